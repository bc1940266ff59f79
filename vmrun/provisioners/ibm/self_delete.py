"""The program by which a machine deletes itself at IBM Cloud: a script of its own, that knows where to ask."""

from __future__ import annotations

from importlib.resources import files

_FILE = "self_delete_main.py"


def program(endpoint: str, trusted_profile: str) -> str:
    """The script, for the machine's own Python. `endpoint`: the API's address, "" for IBM's own in each region."""
    text = files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    for line, value in (("ENDPOINT", endpoint.rstrip("/")), ("PROFILE", trusted_profile)):
        blank = f'{line} = ""\n'
        if text.count(blank) != 1:
            raise AssertionError(f"{_FILE} has no line for {line}")
        text = text.replace(blank, f"{line} = {value!r}\n")
    return text
