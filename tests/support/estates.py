"""An account at a cloud that exists in memory: what it holds, and what is missing, is the test's to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vmrun.core.clouds import CloudError, Need
from vmrun.core.estates import Finding, Grade, PriceRow

PARTS = ("network", "group", "role")


@dataclass
class FakeEstate:
    """Keeps the rules of the seam: what is there is not made again, what is not there is passed over."""

    name: str = "ec2"
    findings: Sequence[Finding] = (Finding("credentials", Grade.good, "account 1234"),)
    #: Raised after the findings.
    trouble: CloudError | None = None
    #: What it holds, by deployment.
    held: dict[str, set[str]] = field(default_factory=dict)
    needs: list[Need] = field(default_factory=list)

    def check(self, need: Need) -> Iterator[Finding]:
        self.needs.append(need)
        yield from self.findings
        if self.trouble is not None:
            raise self.trouble

    def policy(self) -> str:
        return f"rights on {self.name}\n"

    def establish(self, deployment: str) -> Iterator[str]:
        held = self.held.setdefault(deployment, set())
        for part in PARTS:
            yield f"{part}: {'found' if part in held else 'made'}"
            held.add(part)

    def dismantle(self, deployment: str) -> Iterator[str]:
        for part in sorted(self.held.pop(deployment, set())):
            yield f"{part}: removed"

    def prices(self) -> Iterator[PriceRow]:
        return iter(())
