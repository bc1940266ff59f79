"""What every verb works with: the screen, the clock, the deployment, and what stood after `--`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmrun.core.clock import Clock
from vmrun.core.errors import VmrunError
from vmrun.render import Screen

if TYPE_CHECKING:
    import typer

    from vmrun.client import Client


@dataclass(slots=True)
class Session:
    """One run of the command line."""

    screen: Screen
    clock: Clock
    connect: Callable[[], Client]
    #: What stood after `--`; None if there was none.
    program: tuple[str, ...] | None = None
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        """The deployment, opened at first use."""
        if self._client is None:
            self._client = self.connect()
        return self._client

    @property
    def as_json(self) -> bool:
        """Whether data goes out as JSON documents."""
        return self.screen.as_json


def session_of(ctx: typer.Context) -> Session:
    """The session of the verb that runs."""
    session = ctx.obj
    assert isinstance(session, Session)
    return session


def connect() -> Client:
    """The deployment that the configuration here describes."""
    from vmrun.client import Client
    from vmrun.settings import load_settings

    return Client(load_settings())


class Interrupted(VmrunError):
    """Ended by Ctrl-C."""

    code = "interrupted"
    exit_code = 130
    retryable = True
