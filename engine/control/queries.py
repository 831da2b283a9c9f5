"""What can be seen: gathers each view from the parts of the relay, in a bounded number of bounded questions."""

import os
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from engine.base.words import stand_in, words_of
from engine.control import presentation, views
from engine.control.judge import Judge
from engine.control.metrics import Figures
from engine.control.relay import Relay
from engine.control.requests import Missing, not_bad
from engine.model.destination import RELAY, BadHost, Destination, HeldBack, Mark, Suspension, Totals
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Message, Window
from engine.model.node import NodeState
from engine.model.reason import Reason
from engine.queue.errors import NoSuchMessage, QueueError

DESTINATION_SORTS = ("name", "waiting", "due", "held", "oldest")
HOST_SORTS = ("back", "host", "waiting")
_EVENTS_OF_MESSAGE = 1000
_NOTHING = Totals(waiting=0, due=0, held=0, relaying=0, destinations=0)


class Queries:
    """Answers what operators want to see of a relay. Raises QueueError where the store cannot be read."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def health(self) -> views.HealthView:
        """One line of health. It is answered even when the store cannot be read: then that is the trouble."""
        relay = self._relay
        trouble = relay.trouble()
        try:
            totals = await relay.queue.listing.totals(relay.smarthost.room())
            suspensions = await self.suspensions()
            nodes = await relay.colleagues.states()
        except QueueError as error:
            totals, suspensions, nodes = _NOTHING, (), ()
            trouble = trouble or f"the queue cannot be read: {error}"
        health = self._health(
            totals, next((suspension for suspension in suspensions if suspension.destination == RELAY), None), trouble
        )
        notes = (*health.notes, *relay.colleagues.notes(nodes))
        if len(nodes) < 2:
            return replace(health, notes=notes)
        lost = sum(state.is_lost for state in nodes)
        return replace(health, notes=notes, node=relay.colleagues.name, nodes=len(nodes), nodes_lost=lost)

    async def overview(self, destinations: int, hosts: int, events: int) -> views.OverviewView:
        """The four panes and the health line. Where the store cannot be read, its panes are empty."""
        health = await self.health()
        try:
            busiest = (await self.destinations("", "-waiting", 0, destinations)).rows
            first_back = (await self.hosts("", "back", 0, hosts)).rows
            happened = await self.events(limit=events)
        except QueueError:
            if health.state != "sick":
                raise
            busiest, first_back, happened = (), (), ()
        return views.OverviewView(
            health=health, destinations=busiest, relayers=await self.relayers(0), hosts=first_back, events=happened
        )

    async def window(self, filter: Filter, sort: str, offset: int, limit: int) -> Window:
        """A window of the queue."""
        found = await self._relay.queue.listing.window(filter, sort, offset, limit)
        return replace(found, rows=Judge(self._relay).entries(found.rows))

    async def message(self, number: int) -> Message:
        """A message in the queue, or what the events tell of one that has left it. Raises Missing."""
        queue = self._relay.queue
        try:
            found = await queue.listing.message(number)
        except NoSuchMessage as error:
            # Asked for only now: a message that leaves between the two questions has its last events by then.
            events = await self.events(message=number, limit=_EVENTS_OF_MESSAGE)
            if not events:
                raise Missing(f"there is no message {number}, and no event tells of it", where="id") from error
            return presentation.finished(number, events)
        events = await self.events(message=number, limit=_EVENTS_OF_MESSAGE)
        try:
            headers = presentation.headers(await queue.claims.content(number))
        except NoSuchMessage:  # it left between the two questions
            headers = ()
        except QueueError as error:
            headers = (f"(the content cannot be read: {error})",)
        entries = Judge(self._relay).entries(found.entries)
        shown = replace(found, entries=entries, headers=headers, events=events)
        await self._relay.colleagues.states()
        return self._relay.colleagues.unnamed_message(shown)

    async def destinations(self, match: str, sort: str, offset: int, limit: int) -> views.DestinationsView:
        """A window of the destinations."""
        total, rows = await self._relay.queue.listing.destinations(match, sort, offset, limit)
        shown = tuple(map(Judge(self._relay).destination, rows))
        return views.DestinationsView(total=total, offset=offset, rows=shown)

    async def destination(self, name: str) -> Destination:
        """One destination."""
        return Judge(self._relay).destination(await self._relay.queue.listing.destination(name))

    async def relayers(self, ended: int) -> tuple[views.RelayerView, ...]:
        """The live relayers in the order they started, then up to `ended` of those that ended last, newest first.

        Where several nodes share the queue those of the others follow, node by node, as far as they answer.
        """
        colleagues, others = self._relay.colleagues, tuple[views.RelayerView, ...]()
        with suppress(QueueError):  # ours are there all the same
            others = await colleagues.relayers(ended)
        own = self.own_relayers(ended)
        return (*(replace(row, node=colleagues.name) for row in own), *others) if colleagues.name else own

    async def nodes(self) -> tuple[NodeState, ...]:
        """The engines that share the queue, each with whether it answers; () where it is this one's alone."""
        await self._relay.colleagues.relayers()
        return await self._relay.colleagues.states()

    def own_relayers(self, ended: int) -> tuple[views.RelayerView, ...]:
        """Those of this engine, in that order."""
        live = sorted(self._relay.smarthost.managed, key=lambda relayer: relayer.id)
        gone = list(self._relay.smarthost.ended)[::-1][:ended]
        return tuple(map(presentation.relayer, (*live, *gone)))

    async def transcript(self, number: int, node: str) -> views.TranscriptView:
        """What one relayer, of the node named ("": this one), and its peer have said. Raises Missing."""
        colleagues = self._relay.colleagues
        if colleagues.is_another(node):
            return await colleagues.transcript(node, number)
        found = self.own_transcript(number)
        return replace(found, relayer=replace(found.relayer, node=colleagues.name))

    def own_transcript(self, number: int) -> views.TranscriptView:
        """The same of a relayer of this engine. Raises Missing."""
        smarthost = self._relay.smarthost
        found = next((relayer for relayer in (*smarthost.managed, *smarthost.ended) if relayer.id == number), None)
        if found is None:
            raise Missing(f"there is no relayer {number}, and it is not among those that ended last", where="id")
        return presentation.transcript(found)

    async def hosts(self, match: str, sort: str, offset: int, limit: int) -> views.HostsView:
        """A window of the MX hosts marked bad: of those in whose name, maker, note or last reply the words stand."""
        marks, words = self._marks(), words_of(match)
        if words:
            marks = [mark for mark in marks if stand_in(words, _said(mark))]
        if sort.endswith("host"):
            marks.sort(key=lambda mark: mark.host)
        elif sort.endswith("waiting"):
            counts = await self._relay.queue.listing.held_back_counts()
            marks.sort(key=lambda mark: counts.get(mark.host, 0))
        if sort.startswith("-"):
            marks.reverse()
        rows = await self._hosts(marks[offset : offset + limit])
        return views.HostsView(total=len(marks), offset=offset, rows=rows)

    async def host(self, name: str) -> BadHost:
        """One host that is marked bad. Raises Missing."""
        marked = [mark for mark in self._marks() if mark.host == name]
        if not marked:
            raise not_bad(name)
        (found,) = await self._hosts(marked)
        return found

    async def _hosts(self, marks: Sequence[Mark]) -> tuple[BadHost, ...]:
        if not marks:
            return ()
        held = {mail.host: mail for mail in await self._relay.queue.listing.held_back([mark.host for mark in marks])}
        judge = Judge(self._relay)
        tried = {name: judge.next_try(mail) for name, mail in held.items()}
        return tuple(_bad_host(mark, held.get(mark.host), tried.get(mark.host)) for mark in marks)

    async def reasons(self, limit: int) -> tuple[Reason, ...]:
        """Why mail waits, in groups: what was said last, or why it was not tried. The one with most entries first."""
        return await self._relay.queue.listing.reasons(limit)

    async def suspensions(self) -> tuple[Suspension, ...]:
        """The suspensions in force, the relay's own first."""
        return await self._relay.queue.standing.suspensions()

    async def overrides(self, offset: int, limit: int) -> tuple[views.StandingView, ...]:
        """A window of all that operators have laid upon mail, and of the engine's marks: the first to end first."""
        queue, marks = self._relay.queue, self._marks()[: offset + limit]  # those that end later are beyond the window
        found = presentation.standing(
            await queue.standing.suspensions(), await queue.standing.rules(), marks, await queue.standing.overrides()
        )
        return found[offset : offset + limit]

    async def events(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        """Events kept, in order of `seq`: the newest come last."""
        found = await self._relay.queue.listing.events(
            before=before, after=after, message=message, match=match, limit=limit
        )
        await self._relay.colleagues.states()
        return self._relay.colleagues.unnamed(found)

    async def events_of_all(self, after: int) -> tuple[Event, ...] | None:
        """Events after one, of all nodes; None where this engine is alone, which knows all of them at once."""
        if len(await self._relay.colleagues.states()) < 2:
            return None
        return await self.events(after=after, limit=_EVENTS_OF_MESSAGE)

    async def newest_event(self) -> int:
        """The number of the newest event."""
        return max((event.seq for event in await self.events(limit=1)), default=0)

    async def figures(self) -> Figures:
        """What a monitoring system counts."""
        counts = {str(kind): count for kind, count in self._relay.events.counts().items()}
        health, nodes = await self.health(), self._relay.queue.nodes
        return Figures(
            health=health,
            events=counts,
            bad_hosts=self._relay.mx.marked,
            node=nodes.name,
            nodes=await self._node_states(),
            lease=nodes.lease,
        )

    async def _node_states(self) -> tuple[NodeState, ...]:
        with suppress(QueueError):
            return await self._relay.colleagues.states()
        return ()

    def _health(self, totals: Totals, suspended: Suspension | None, trouble: str) -> views.HealthView:
        relay, settings = self._relay, self._relay.settings
        smarthost = relay.smarthost
        state: views.HealthState = "relaying"
        if trouble:
            state = "sick"
        elif smarthost.draining or smarthost.is_drained:
            state = "draining"
        elif suspended:
            state = "suspended"
        return views.HealthView(
            hostname=settings.hostname,
            version=relay.version,
            pid=os.getpid(),
            started=relay.started,
            now=relay.clock.now(),
            state=state,
            trouble=trouble,
            notes=tuple(relay.notes()),
            waiting=totals.waiting,
            due=totals.due,
            ready=0 if smarthost.draining else totals.ready,
            held=totals.held,
            relaying=totals.relaying,
            oldest=totals.oldest,
            destinations=totals.destinations,
            destinations_known=totals.known,
            rate_in=relay.events.rate_in(),
            rate_out=relay.events.rate_out(),
            connections=smarthost.connections,
            max_connections=smarthost.max_connections,
            lookups=len(smarthost.managed) - smarthost.connections,
            max_lookups=settings.delivery.max_lookups,
            next_check=smarthost.next_check,
            suspended=suspended,
            undo_seconds=settings.console.undo,
            confirm_typed_over=settings.console.confirm_typed_over,
            bad_mx_seconds=settings.delivery.bad_mx_timeout,
            bad_hosts=relay.mx.marked,
        )

    def _marks(self) -> list[Mark]:
        now = self._relay.clock.now()
        return sorted((mark for mark in self._relay.mx.marks if mark.until > now), key=lambda mark: mark.until)


def _bad_host(mark: Mark, held: HeldBack | None, next_try: float | None) -> BadHost:
    """A mark, with what waits because of it."""
    values = {name: getattr(mark, name) for name in Mark.__struct_fields__}
    if held is None:
        return BadHost(**values, next_try=next_try)
    return BadHost(
        **values,
        waiting=held.waiting,
        destinations=held.destinations,
        alternates=held.alternates,
        next_due=held.next_due,
        next_try=next_try,
    )


def _said(mark: Mark) -> str:
    last = mark.last.line if mark.last is not None else ""
    return " ".join((mark.host, mark.by, mark.note, last))
