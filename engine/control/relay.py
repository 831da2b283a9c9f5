"""What the control server stands before: the parts of a running engine, as far as an operator sees or asks them.

Written as protocols, so that the server can be tested before stand-ins, and so that it is plain what it uses.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.base.clock import Clock
from engine.control.feed import EventLog
from engine.delivery.explain import Explanation
from engine.delivery.limits import Limiting
from engine.model.claim import Room
from engine.model.destination import Mark
from engine.model.message import Entry
from engine.model.order import Touched
from engine.model.outcome import Outcome
from engine.queue.contract import Queue
from engine.settings.settings import Settings
from engine.smtpclient.probe import Probed
from engine.tls.secured import Secured


class Spoken(Protocol):
    """One line of a transcript."""

    @property
    def at(self) -> float:
        """When it was said."""
        ...

    @property
    def side(self) -> str:
        """ "<" the peer, ">" we, "=" a remark of ours."""
        ...

    @property
    def text(self) -> str:
        """What was said, cleaned."""
        ...


class Transcript(Protocol):
    """What a relayer and its peer have said; `cut` lines in the middle were not kept."""

    @property
    def cut(self) -> int:
        """How many lines were not kept."""
        ...

    def lines(self) -> Sequence[Spoken]:
        """The lines kept, oldest first."""
        ...


class Relayer(Protocol):
    """One SMTP conversation, live or ended; see engine.delivery.relayer and views.RelayerView for the meanings."""

    @property
    def id(self) -> int: ...
    @property
    def destination(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def phase(self) -> str: ...
    @property
    def phase_since(self) -> float: ...
    @property
    def started(self) -> float: ...
    @property
    def done(self) -> int: ...
    @property
    def taken(self) -> int: ...
    @property
    def tls(self) -> str: ...
    @property
    def secured(self) -> Secured: ...
    @property
    def is_established(self) -> bool: ...
    @property
    def stalling(self) -> bool: ...
    @property
    def ended(self) -> float | None: ...
    @property
    def result(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def site_host(self) -> str: ...
    @property
    def domains(self) -> Sequence[str]: ...
    @property
    def transcript(self) -> Transcript: ...


class SmartHost(Protocol):
    """The relaying manager."""

    @property
    def managed(self) -> Collection[Relayer]:
        """The live relayers (a mapping to what each answers for)."""
        ...

    @property
    def ended(self) -> Collection[Relayer]:
        """Relayers that ended lately, the last one last."""
        ...

    @property
    def max_connections(self) -> int:
        """How many connections may be open at a time."""
        ...

    @property
    def connections(self) -> int:
        """How many of the live ones have a connection, or open one."""
        ...

    @property
    def next_check(self) -> float | None:
        """When the next check is due."""
        ...

    @property
    def draining(self) -> bool:
        """Whether nothing new is sent because the engine is about to stop."""
        ...

    def limits_on(
        self, destination: str, *, site: str = "", is_in_doubt: bool = False, message: int = 0, sender: str = ""
    ) -> Sequence[Limiting]:
        """What of settings and connections keeps mail to a destination from going now."""
        ...

    def room(self) -> Room:
        """To which sites mail may go now."""
        ...

    async def close(self, id: int, by: str) -> Relayer | None:
        """End one connection; gives its relayer, or None where none of that number is live."""
        ...

    async def check_state(self) -> object:
        """Look for something to send and send it."""
        ...

    def wake(self) -> None:
        """Have a check run soon."""
        ...


class MX(Protocol):
    """The MX calculator's marks."""

    @property
    def marks(self) -> Collection[Mark]:
        """The marks in force."""
        ...

    @property
    def marked(self) -> int:
        """How many there are."""
        ...

    def mark(self, host: str) -> Mark | None:
        """The mark in force on a host."""
        ...

    async def mark_bad(
        self, host: str, *, seconds: float | None = None, reason: str, by: str, last: Outcome | None = None
    ) -> Mark:
        """Leave a host out."""
        ...

    async def mark_good(self, host: str, *, by: str, touched: Touched | None = None) -> int:
        """Use a host again; gives how many entries were made due, and writes them into `touched`."""
        ...


class Explainer(Protocol):
    """Who says why mail is not moving; see engine.delivery.explain."""

    async def message(self, number: int, entry: int = 0) -> Sequence[Explanation]:
        """Explain the recipients of a message, or one of them."""
        ...

    async def address(self, recipient: str, destination: str, entries: Sequence[Entry]) -> Sequence[Explanation]:
        """Explain the mail for an address, or what would happen to it."""
        ...

    async def domain(self, destination: str) -> Sequence[Explanation]:
        """Explain a domain."""
        ...


class Prober(Protocol):
    """Who probes hosts; see engine.smtpclient.probe."""

    async def probe(self, host: str, port: int = 0) -> Probed:
        """Ask every address of a host."""
        ...


class Routing(Protocol):
    """Who knows where mail goes; see engine.delivery.routes."""

    async def ours(self, host: str, port: int = 0) -> str:
        """Why a host is this relay itself, or ""."""
        ...


@dataclass(frozen=True, kw_only=True)
class Relay:
    """A running engine's parts. `started` is in seconds since 1970; `trouble` says why the engine is sick, or "".

    `notes` say what is no trouble, and should be known.
    """

    queue: Queue
    smarthost: SmartHost
    mx: MX
    events: EventLog
    explainer: Explainer
    prober: Prober
    router: Routing
    settings: Settings
    clock: Clock
    started: float
    version: str
    trouble: Callable[[], str]
    notes: Callable[[], Sequence[str]] = tuple
