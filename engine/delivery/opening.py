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
from engine.dns.mx import Exchange
from engine.model.outcome import Outcome
from engine.smtpclient.blame import Blame
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
        """
        last: Outcome | None = None
        ours: SessionError | None = None
        failing: tuple[Exchange, Outcome] | None = None
        while not self._relayer.is_leaving and (found := self._candidates.next()) is not None:
            exchange, target = found
            if failing is not None and failing[0] is not exchange:
                await self._mark_bad(*failing)
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
                failing = (exchange, last) if error.is_the_hosts(target.demand) else None
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
            await self._mark_bad(*failing)
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

    async def _mark_bad(self, exchange: Exchange, outcome: Outcome) -> None:
        """Remember that a host was of no use; not where it serves our other connections, and we are one too many."""
        if not self._relayer.site.is_served_beside(self._relayer):
            note = outcome.line if outcome.code else outcome.text
            await self._parts.mx.mark_bad(exchange.host, note=note, last=outcome)

    async def _open(self, target: Target) -> Session:
        """Open a session; where opportunistic TLS breaks, once more without it (RFC 7435 4).

        What did go without it is remembered, for a while the next sessions do not try; but not where the handshake was
        cut off, which tells nothing of the next one.
        """
        self._relayer.tries(target)
        session = self._session_with(target)
        try:
            await session.open(self._parts.dialler)
        except TlsBroken as broken:
            if target.demand.is_must:
                raise
            self._relayer.transcript.add("=", "TLS broke: once more without it")
            self._relayer.site.dials()  # though no limit may allow it: without, it were for nothing
            session = self._session_with(replace(target, demand=TlsDemand(level="none")))
            await session.open(self._parts.dialler)
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
            pipelining=self._parts.pipelining.may_pipeline(target.host),
            blame=self._parts.blame,
        )
