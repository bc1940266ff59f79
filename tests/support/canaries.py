"""Secrets that are planted, and a search for them in whatever came of a run."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from vmrun.crypto import load_private_key


@dataclass
class Canaries:
    """What must not be found, as bytes, by what it is."""

    texts: dict[str, bytes]

    def add_key(self, name: str, path: Path) -> None:
        """A private key in each form in which it could get about."""
        raw = load_private_key(path)
        body = "".join(line for line in path.read_text().splitlines() if "-----" not in line)
        self.texts |= {f"{name} (raw)": raw, f"{name} (hex)": raw.hex().encode(), f"{name} (PEM)": body.encode()}

    def add_text(self, name: str, text: str) -> None:
        """A secret as it is, and as any base64 of something that holds it."""
        self.texts[name] = raw = text.encode()
        for before in range(3):
            # What stands before it decides the alignment; the characters at both ends are shared with its neighbours.
            encoded = base64.b64encode(bytes(before) + raw)
            self.texts[f"{name} (base64, {before})"] = encoded[(before * 8 + 5) // 6 : len(encoded) - 4]

    def within(self, data: bytes) -> list[str]:
        return [name for name, text in self.texts.items() if text in data]

    def check(self, what: str, data: bytes | str) -> None:
        found = self.within(data.encode() if isinstance(data, str) else data)
        assert not found, f"{what} holds {found}"

    def files(self, folder: Path) -> dict[str, list[str]]:
        """Files below `folder` that hold any, with what they hold."""
        found = {}
        for path in folder.rglob("*"):
            try:
                if path.is_file() and not path.is_symlink() and (names := self.within(path.read_bytes())):
                    found[str(path.relative_to(folder))] = names
            except FileNotFoundError:
                continue
        return found
