"""The part of `vmrun offers --refresh` that asks the clouds; only it loads settings and SDKs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vmrun.catalog.refresh import refresh
from vmrun.core.errors import VmrunError
from vmrun.registry import AUTO
from vmrun.settings import load_settings
from vmrun.settings.configured import configured_clouds
from vmrun.wiring import Wiring

from .refusal import as_told
from .session import Session


def refresh_catalogues(session: Session, clouds: Sequence[str]) -> None:
    """Read anew what `clouds` rent (none, or `auto`: those that are configured), and say what came of it.

    Goes on with the next when one fails, unless it is the only one. Raises ConfigError, Denied, CloudError.
    """
    settings = load_settings()
    chosen = configured_clouds(settings, os.environ) if not clouds or AUTO in clouds else clouds
    wiring = Wiring(settings, session.clock)
    failures: list[VmrunError] = []
    for on in chosen:
        progress = session.screen.progress()
        try:
            progress.stage(f"reading types and prices of {on}")
            told = refresh(wiring.estate(on), session.clock, settings.cache_dir)
        except VmrunError as error:
            failures.append(error)
            continue
        finally:
            progress.close()
        session.screen.note(f"{on}: {len(told.rows):,} types and prices in {', '.join(told.regions)}")
    if len(failures) == len(chosen):
        raise as_told(failures[0])
    for failed in failures:
        session.screen.note(f"warning: {failed.message}{f' ({failed.hint})' if failed.hint else ''}")
