"""`configs/reference.toml` lists every key with its default, and so does the file that `vmrun init` writes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from vmrun.settings import load_settings
from vmrun.settings.models import SECTIONS
from vmrun.settings.reference import reference_text

FILE = Path(__file__).resolve().parents[3] / "configs" / "reference.toml"
TEXT = FILE.read_text(encoding="utf-8")


def uncommented(text: str) -> str:
    """With the keys that are commented out because they are unset set."""
    return re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)


def test_the_file_is_what_the_models_say() -> None:
    assert reference_text(live=True) == TEXT, (
        "write it anew: python -c 'from vmrun.settings.reference import reference_text; "
        'open("configs/reference.toml", "w").write(reference_text(live=True))\''
    )


@pytest.mark.parametrize("text", [TEXT, reference_text(live=False)], ids=["reference", "init"])
def test_every_key_is_there_with_a_meaning(text: str) -> None:
    tables = tomllib.loads(uncommented(text))
    assert list(tables) == list(SECTIONS)
    for name, model in SECTIONS.items():
        assert list(tables[name]) == list(model.model_fields)
    for line, after in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if re.match(r"#?\w+ = ", after):
            assert re.match(r"# .+\.$", line), f"{after} has no meaning above it"


def test_loading_it_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "vmrun.toml").write_text(TEXT, encoding="utf-8")
    loaded, default = load_settings(cwd=tmp_path), load_settings(cwd=tmp_path / "elsewhere")
    assert loaded.source == (tmp_path / "vmrun.toml",)
    for name in SECTIONS:
        assert getattr(loaded, name) == getattr(default, name)


def test_the_commented_values_are_valid_too(tmp_path: Path) -> None:
    (tmp_path / "vmrun.toml").write_text(uncommented(TEXT), encoding="utf-8")
    assert load_settings(cwd=tmp_path).section_for("docker").lease == 1800.0


def test_what_init_writes_sets_nothing() -> None:
    assert all(table == {} for table in tomllib.loads(reference_text(live=False)).values())
