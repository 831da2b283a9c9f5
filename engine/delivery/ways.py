"""Ways: for one relayer, the way of each destination that it has mail for, and what becomes of mail that has none.

A relayer serves one site. The way of a destination is sought before its mail is sent, since what the DNS, the routes,
the policies and the marks say now is what counts; what has another site by now is given back, for a relayer of its own.
"""

import asyncio
from typing import Protocol

from engine.delivery.addresses import LOOKUP, WITH_OTHERS, Found, find
from engine.delivery.mailbag import Mailbag
from engine.delivery.parts import Parts
from engine.delivery.routes import Way, has_hosts_of
from engine.delivery.site import Connection, Site
from engine.dns.mx import MOST_EXCHANGES, AllMarkedBad, MXError
from engine.model.claim import Claim
from engine.model.destination import unknown_site
from engine.model.outcome import Outcome
from engine.smtpclient.blame import Blame, shortage
from engine.smtpclient.session import Session
from engine.smtpclient.transcript import Transcript


class Seeking(Connection, Protocol):
    """What finding ways needs to know of the relayer that they are for, and shows at it."""

    result: str
    transcript: Transcript

    @property
    def site(self) -> Site: ...
    def leave(self, why: str) -> None: ...


class Ways:
    """Finds the ways of what is in a relayer's mailbag, and deals with what has none, or another site than it has."""

    def __init__(self, relayer: Seeking, bag: Mailbag, parts: Parts) -> None:
        self._relayer = relayer
        self._bag = bag
        self._parts = parts
        self._right: set[str] = set()  # destinations that the session at hand is right for

    async def to(self, destination: str) -> Way | None:
        """Find the way to a destination and note it; None when there is none, and its messages are dealt with.

        Raises QueueError.
        """
        relayer = self._relayer
        is_alone = not relayer.is_admitted and relayer.site.name == unknown_site(destination)
        bound = LOOKUP if is_alone else WITH_OTHERS
        try:
            async with asyncio.timeout(bound):
                way = await self._parts.router.apart(await self._parts.router.way(destination))
        except AllMarkedBad as error:
            await self._left_out(destination, error)
            return None
        except MXError as error:
            await self.no_way(destination, error.outcome)
            return None
        except TimeoutError:
            if not is_alone:
                await self._look_up_apart(destination)
                return None
            text = f"no way was found within {bound:.0f} s"
            await self.no_way(destination, Outcome.transient(text, enhanced="4.4.3"))
            return None
        if not relayer.site.is_of(way.destination, way.site):
            name = relayer.site.name_of(way.destination, way.site)
            await self._parts.queue.standing.note_destination(destination, way.hosts[:MOST_EXCHANGES], name)
        return way

    async def addresses(self, way: Way) -> Found | None:
        """What there is to dial on a way; None: that takes too long beside others, and its mail has been put back.

        Raises QueueError.
        """
        found = await find(
            self._parts.router,
            way,
            most=self._parts.delivery.max_addresses,
            seconds=WITH_OTHERS if self._relayer.is_admitted else LOOKUP,
            put_off=self._is_on_trial,
        )
        if self._relayer.is_admitted and not found.has_targets:
            await self._look_up_apart(way.destination)
            return None
        return found

    def _is_on_trial(self, host: str) -> bool:
        """Whether a host comes back from being bad, and another relayer is the one that finds out how it is."""
        return self._parts.mx.is_returning(host) and self._relayer.site.is_tried_by_another(host, self._relayer)

    # -- the session at hand --------------------------------------------------------------------------------------

    def begin(self, way: Way) -> None:
        """Sessions are opened for this way now: whether they are right for other destinations is yet to be seen."""
        self._right = {way.destination}

    def forget(self, destination: str) -> None:
        """What was known of the way to a destination counts no more: it is sought anew before its next message."""
        self._right.discard(destination)

    async def leads_here(self, way: Way) -> bool:
        """Whether a way is one of the relayer's site; where not, its messages are given back. Raises QueueError."""
        if self._relayer.site.is_of(way.destination, way.site):
            return True
        await self._bag.put_back("it has other exchanges now", way.destination)
        return False

    async def may_carry(self, session: Session, claim: Claim) -> bool:
        """Whether a session may carry a claim; else it is dealt with, or left for a session of its own.

        That it is of this site was so by its last MX answer; what is said now is what counts. Raises QueueError.
        """
        if not self._bag.holds(claim):
            return False  # dealt with
        if claim.destination in self._right:
            return True
        way = await self.to(claim.destination)
        if way is None or not await self.leads_here(way):
            return False
        host = self._relayer.host
        if all(exchange.host != host for exchange in way.exchanges):
            self._relayer.leave(f"{host} is left out now")
            return False
        if not await self._is_safe_enough_for(way, session):
            return False
        self._right.add(claim.destination)
        return True

    async def _is_safe_enough_for(self, way: Way, session: Session) -> bool:
        """Whether a session meets what a destination's own policies demand of its host."""
        try:
            async with asyncio.timeout(WITH_OTHERS):
                demand = await self._parts.router.demand(way, self._relayer.host)
        except (MXError, TimeoutError):
            return False
        return demand.is_met_by(session.demand)

    # -- where there is none --------------------------------------------------------------------------------------

    async def no_way(self, destination: str, outcome: Outcome) -> None:
        """DNS has no way: for good (and then for all the mail that comes after) or for now. Raises QueueError."""
        relayer = self._relayer
        relayer.transcript.add("=", outcome.line)
        relayer.result = outcome.text
        if outcome.kind == "transient" and (wanting := shortage()):
            # No name server could be asked, which is no fault of the domain's.
            relayer.result = f"{wanting} here: {outcome.text}"
            ours = Outcome.transient(relayer.result, enhanced="4.3.2", cause="ours")
            relayer.site.is_ours("machine", ours)
            await self._leave()
            return
        await self._bag.report_all(destination, outcome)
        if outcome.kind == "transient":
            await relayer.site.lost(destination, outcome)

    async def no_connection(self, outcome: Outcome, blamed: Blame) -> None:
        """No host of the way gave us a session. Raises QueueError."""
        relayer = self._relayer
        relayer.result = outcome.line
        if blamed != "host" and relayer.site.is_ours(blamed, outcome):
            await self._leave()
            return
        if relayer.site.is_served_beside(relayer):
            # One connection too many is no attempt at the messages: the others take them.
            await relayer.site.unreachable(relayer, outcome)
            await self._bag.put_back(relayer.result)
            return
        await self._keep_what_leads_here()
        await self._bag.report_no_connection(outcome)
        await relayer.site.unreachable(relayer, outcome)

    async def _leave(self) -> None:
        """Have the relayer end, and its mail wait untried: it is a fault of ours, which all of it would meet."""
        self._relayer.leave(self._relayer.result)
        await self._bag.put_back(self._relayer.result)

    async def _left_out(self, destination: str, error: AllMarkedBad) -> None:
        """Operators have marked all hosts bad: that is no attempt."""
        relayer = self._relayer
        await self._parts.queue.standing.note_destination(destination, sorted(error.hosts))
        relayer.result = error.outcome.text
        if error.site and has_hosts_of(error.site, relayer.site.name):
            await relayer.site.unreachable(relayer, error.outcome, until=error.until)
        else:
            await relayer.site.lost(destination, error.outcome, until=error.until)
        await self._bag.put_back(relayer.result, destination)

    async def _look_up_apart(self, destination: str) -> None:
        """What takes long to look up must keep neither a connection nor the mail of others: it gets its own relayer."""
        await self._parts.queue.standing.note_destination(destination, None, unknown_site(destination))
        await self._bag.put_back("its look-up takes long", destination)

    async def _keep_what_leads_here(self) -> None:
        """Give back what has another site by now, as by a policy that is new: how it went here is not its concern."""
        for destination in dict.fromkeys(claim.destination for claim in self._bag.left()):
            if destination not in self._right and (way := await self.to(destination)) is not None:
                await self.leads_here(way)
