"""Opening a session along one way: address after address, until one gives us a session or it is enough."""

import asyncio
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from engine.delivery.addresses import Found
from engine.delivery.candidates import Candidates
from engine.delivery.hurry import Hurried, Hurry
from engine.delivery.parts import Parts
from engine.delivery.routes import Way, loop
from engine.delivery.site import Connection, Site
from engine.delivery.stall import Pace
from engine.delivery.way_out import Watched
from engine.dns.mx import Exchange
from engine.model.outcome import Outcome
from engine.smtpclient.blame import Blame, family_of
from engine.smtpclient.failures import LoopsBack, SessionError, TlsBroken
from engine.smtpclient.session import Session
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from engine.tls.demand import TlsDemand


class NoSession(Struct, frozen=True):
    """Why there is no session; `by_dns`: nobody was dialled, since no host had an address or might be tried.

    `blamed`: whose fault that is; but for "host" it is ours, and says nothing of any host. The outcome is permanent
    only where DNS says of every exchange that it has no address: what kept us from connecting is never a verdict on
    the mail, nor is it that an operator has marked the other exchanges bad.
    """

    outcome: Outcome
    by_dns: bool = False
    blamed: Blame = "host"


class _Failing(Struct, frozen=True):
    """A host of which every address tried so far had the same to say: not to us. `last` is what was said last.

    `silent` are the families at whose addresses nobody answered; none where that was not all that was wrong.
    """

    exchange: Exchange
    last: Outcome
    silent: frozenset[str]


class Dialling(Connection, Protocol):
    """What an opening needs to know of the relayer that it is for, and shows at it."""

    address: str
    hurry: Hurry
    pace: Pace
    transcript: Transcript

    @property
    def site(self) -> Site: ...
    @property
    def has_dialled(self) -> bool: ...
    @property
    def is_leaving(self) -> bool: ...
    def tries(self, target: Target) -> None: ...
    def leave(self, why: str) -> None: ...


class Opening:
    """The sessions of one attempt along one way. What is tried shows at its relayer, which may leave meanwhile."""

    def __init__(self, relayer: Dialling, way: Way, found: Found, parts: Parts) -> None:
        self._relayer = relayer
        self._way = way
        self._parts = parts
        self._candidates = Candidates(
            way,
            found,
            max_addresses=parts.delivery.max_addresses,
            max_sessions=parts.delivery.max_sessions,
            put_off=lambda host: parts.mx.is_returning(host) and relayer.site.is_tried_by_another(host, relayer),
            remark=lambda text: relayer.transcript.add("=", text),
        )

    async def session(self) -> Session | NoSession | None:
        """The next session, or why there is none; None when the relayer is to leave. Takes no longer than an attempt.

        Raises QueueError.
        """
        bound = self._parts.delivery.timeouts.attempt
        try:
            async with asyncio.timeout(bound):
                return await self._try_all()
        except TimeoutError:
            text = f"no session within {bound:.0f} s"
            return NoSession(Outcome.transient(text, enhanced="4.4.1", host=self._relayer.host))

    def may_go_on(self) -> bool:
        """Whether another host than the one that was last tried may be."""
        return self._candidates.may_go_on(self._relayer.host)

    def may_go_over_ipv4(self) -> bool:
        """Whether what was last tried is of IPv6, and there is something of IPv4."""
        return ":" in self._relayer.address and self._candidates.may_go_over_ipv4()

    def go_over_ipv4(self) -> None:
        """Try no more addresses of IPv6."""
        self._candidates.go_over_ipv4()

    def go_on(self) -> None:
        """Try no more addresses of the host that was last tried."""
        self._candidates.leave(self._relayer.host)

    async def _try_all(self) -> Session | NoSession | None:
        """RFC 5321 5.1. A host is marked bad when every address tried of it had the same to say: not to us.

        Addresses that could not be tried, by a fault of ours, say nothing of it; where nothing can be, it is over.
        Nor does silence where the way out seems to be closed (see engine.delivery.way_out).
        """
        last: Outcome | None = None
        ours: SessionError | None = None
        failing: _Failing | None = None
        while not self._relayer.is_leaving and (found := self._candidates.next()) is not None:
            exchange, target = found
            if failing is not None and failing.exchange is not exchange:
                await self._mark_bad(failing)
                failing = None
            if not self._may_dial():
                if last is None:
                    self._relayer.leave("a limit allows no more connections for now")
                break
            try:
                async with self._relayer.hurry.bound():
                    session = await self._open(target)
            except Hurried as error:  # that others wait is no fault of the host's: it is not marked
                last = Outcome.transient(str(error), enhanced="4.4.1", host=target.host, phase=self._relayer.pace.phase)
                failing = None
            except LoopsBack as error:
                self._candidates.is_ourselves(exchange, loop(self._way, error.outcome.text))
            except SessionError as error:
                if error.blamed != "host":
                    ours = error
                    if error.blamed == "machine":
                        return NoSession(error.outcome, blamed=error.blamed)
                    continue
                self._relayer.site.works()
                last = error.outcome
                self._candidates.sessions -= not error.unreachable
                failing = self._failing(failing, exchange, target, error)
                if error.silent:
                    await self._take_marks_back()
            else:
                self._relayer.site.works()
                self._candidates.sessions -= 1
                try:
                    if await self._parts.mx.mark_good(exchange.host) is not None:
                        self._relayer.site.host_is_back()
                except BaseException:
                    session.close()  # nobody else has it yet
                    raise
                return session
        if failing is not None:
            await self._mark_bad(failing)
        if self._relayer.is_leaving:
            return None
        if last is not None:
            return NoSession(last.as_transient())
        if ours is not None:
            return NoSession(ours.outcome, blamed=ours.blamed)
        nothing = self._candidates.nothing or Outcome.transient("no exchange has an address", enhanced="4.4.4")
        if self._candidates.leaves_some_out:
            nothing = nothing.as_transient()
        return NoSession(nothing, by_dns=True)

    def _may_dial(self) -> bool:
        """Whether one more address may be tried; it was admitted for the first."""
        if self._relayer.has_dialled:
            if not self._relayer.site.may_dial():
                return False
            self._relayer.site.dials()
        return True

    def _failing(
        self, before: _Failing | None, exchange: Exchange, target: Target, error: SessionError
    ) -> _Failing | None:
        if not error.is_the_hosts(target.demand):
            return None
        is_silent = error.silent and self._parts.way_out.concerns(target.address, target.port)
        if not is_silent or (before is not None and not before.silent):
            return _Failing(exchange, error.outcome, frozenset())
        silent = before.silent if before is not None else frozenset[str]()
        return _Failing(exchange, error.outcome, silent | {family_of(target.address)})

    async def _mark_bad(self, failing: _Failing) -> None:
        """Remember that a host was of no use; not where it serves our other connections, and we are one too many."""
        if self._relayer.site.is_served_beside(self._relayer):
            return
        way_out, host, outcome = self._parts.way_out, failing.exchange.host, failing.last
        if way_out.is_closed(failing.silent):
            self._relayer.transcript.add("=", f"{host} is not marked bad: the way out seems to be closed")
            return
        note = outcome.line if outcome.code else outcome.text
        before = self._parts.mx.mark(host)
        mark = await self._parts.mx.mark_bad(host, note=note, last=outcome)
        if failing.silent:
            way_out.marked(mark, before, failing.silent)
            await self._take_marks_back()  # it may have been seen while the mark was written

    async def _take_marks_back(self) -> None:
        """Undo what was marked for silence alone before it was seen that the way out seems to be closed."""
        if wrong := self._parts.way_out.wrong_marks:
            await self._parts.mx.take_back(wrong, note="it was silent, as all are: the way out seems to be closed")
            self._parts.way_out.taken_back(wrong)

    async def _open(self, target: Target) -> Session:
        """Open a session; where opportunistic TLS breaks, once more without it (RFC 7435 4).

        What did go without it is remembered, for a while the next sessions do not try; but not where the handshake was
        cut off, which tells nothing of the next one.
        """
        self._relayer.tries(target)
        parts, site = self._parts, self._relayer.site.name
        dialler = Watched(parts.dialler, parts.way_out, parts.clock, site=site, host=target.host)
        session = self._session_with(target)
        try:
            await session.open(dialler)
        except TlsBroken as broken:
            if target.demand.is_must:
                raise
            self._relayer.transcript.add("=", "TLS broke: once more without it")
            self._relayer.site.dials()  # though no limit may allow it: without, it were for nothing
            session = self._session_with(replace(target, demand=TlsDemand(level="none")))
            await session.open(dialler)
            if not broken.by_network:
                self._parts.router.tls.broke(target.host, broken.outcome.text)
        return session

    def _session_with(self, target: Target) -> Session:
        relayer = self._relayer
        return Session(
            target,
            hostname=self._parts.hostname,
            timeouts=self._parts.delivery.timeouts,
            transcript=relayer.transcript,
            on_phase=relayer.pace.enter,
            pipelining=self._parts.pipelining.has_none(target.host),
            chunking=target.chunking and self._parts.chunking.has_none(target.host),
            blame=self._parts.blame,
        )
