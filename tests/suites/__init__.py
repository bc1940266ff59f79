"""Behaviour suites: one per seam, run on every implementation of it."""

from __future__ import annotations

import pkgutil

import pytest

# Failed assertions of a suite are explained like those of a test module.
for found in pkgutil.iter_modules(__path__, f"{__name__}."):
    pytest.register_assert_rewrite(found.name)
