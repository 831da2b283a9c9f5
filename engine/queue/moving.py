"""Moving a queue from one store to another: batch by batch, and killed at any line it goes on when it is run again.

The queue that is left is marked first, and no engine opens it until the move is over. A batch of messages is written
at the other end in one transaction, together with the list of what is in it, and removed here in the next: whatever of
that list is still here when a move goes on was cut short between the two, and is removed first. So each message is
sent by one of them alone, and none is lost.

Numbers are kept where the other queue is empty. Else each kind of them (messages, attempts, orders, rules, events) is
shifted as a whole, beyond all that the other end has ever given: what refers to a number is shifted with it, and an
engine that gives new ones at the other end meanwhile gives them beyond those. What stands there already (a suspension,
an override, what is known of a destination) wins over what comes under the same name.
"""

import asyncio
import hashlib
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from engine.queue.tables import (
    ATTEMPT,
    BODY,
    COMING,
    DESTINATION,
    ENTRY,
    EVENT,
    EXCHANGE,
    HOLD_RULE,
    LEAVING,
    MESSAGE,
    NUMBERED,
    OF_MAIL,
    OPERATION,
    STANDING,
    TAKEN_KEY,
    Row,
    Table,
)

MESSAGES_AT_ONCE = 1000  # in one transaction
WEIGHT_AT_ONCE = 8 * 2**20  # bytes of content; one message that has more goes alone
ROWS_AT_ONCE = 10_000  # recipients, attempts and events of those messages
STANDING_AT_ONCE = 1000  # rows of what is no mail

_NO_NUMBER = 0  # in the columns where it may stand, of an event and an order, it is the number of nothing


class CannotMove(Exception):
    """The move cannot be begun, or cannot go on; the text says why and what to do. No message is lost or doubled."""


class Unreadable(CannotMove):
    """A part of the store that this needs is damaged."""


class Leaving(NamedTuple):
    """The mark of a queue that is being moved away; `agreed`: the other end knows of it, and may have some of it."""

    move: str
    source: str
    target: str
    agreed: bool = False

    @property
    def refusal(self) -> str:
        """What is told to an engine that would open it."""
        command = command_of(self.source, self.target)
        return (
            f"the queue {self.source} is being moved to {self.target}, and no engine may open it until that is over: "
            f"`{command}` goes on with it; `{command} --abandon` ends it, and leaves here what has not been moved yet"
        )


class Coming(NamedTuple):
    """A move into this queue: how far each kind of number is shifted, and the messages that came last, as they were.

    Once all has come there are no shifts: nothing more is to come.
    """

    move: str
    shifts: Mapping[str, int]
    batch: tuple[int, ...] = ()

    @classmethod
    def of(cls, row: Row) -> "Coming":
        """Read a row of COMING."""
        move, shifts, batch = row
        return cls(move, msgspec.json.decode(shifts), tuple(msgspec.json.decode(batch)))

    @property
    def is_whole(self) -> bool:
        """Whether all has come."""
        return not self.shifts

    @property
    def row(self) -> Row:
        """The row of COMING that says so."""
        return self.move, msgspec.json.encode(self.shifts).decode(), msgspec.json.encode(self.batch).decode()


class Waiting(NamedTuple):
    """A message that is still to be moved, and how much belongs to it: bytes of content, and rows of other tables."""

    number: int
    size: int
    rows: int


class Moved(Struct, frozen=True, kw_only=True):
    """What came of a move: the messages that went by it, and those that are left since they cannot be read, and why."""

    messages: int
    left: tuple[tuple[int, str], ...] = ()


class End(ABC):
    """A queue at one end of a move, which nobody else has open. All methods raise CannotMove.

    `address` is how an operator names it.
    """

    address: str

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[None]:
        """What is changed within is on disk once this is left, or not done at all."""

    @abstractmethod
    async def read(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        """Up to `limit` rows in order of their key, those behind the key `after`."""

    @abstractmethod
    async def read_of(self, table: Table, first: Any, last: Any) -> list[Row]:
        """The rows that belong to anything from `first` to `last`, in order of that and of their key."""

    @abstractmethod
    async def waiting(self, after: int, limit: int) -> list[Waiting]:
        """Up to `limit` messages in order, from behind the number `after`."""

    @abstractmethod
    async def count(self) -> int:
        """How many messages there are."""

    @abstractmethod
    async def add(self, table: Table, rows: Sequence[Row]) -> set[Row]:
        """Add rows whose key is not there yet, and give the keys of these."""

    @abstractmethod
    async def forget(self, table: Table, key: Row) -> None:
        """Remove the row of this key, if there is one."""

    @abstractmethod
    async def remove(self, messages: Sequence[int]) -> None:
        """Remove messages with all that belongs to them, as far as they are there."""

    @abstractmethod
    async def clear(self) -> None:
        """Remove everything but what tells of moves."""

    @abstractmethod
    async def given(self) -> dict[str, int]:
        """The highest number ever given to a row of each of NUMBERED, by table."""

    @abstractmethod
    async def number_from(self, numbers: Mapping[str, int]) -> None:
        """Give no number any more up to these, by table."""

    @abstractmethod
    async def put_back_interrupted(self) -> None:
        """Do what a start does: what was being sent waits again, its attempt told as interrupted; so of orders."""

    @abstractmethod
    async def know_destinations(self, names: Sequence[str]) -> None:
        """See to it that these destinations have a row; those that have one are left as they are."""

    @abstractmethod
    async def hold_by_rules(self, messages: Sequence[int]) -> None:
        """Hold what a rule in force names of messages that have come."""

    @abstractmethod
    def now(self) -> float:
        """The time by this end's clock."""


async def move(source: End, target: End, told: Callable[[int, int], object]) -> Moved:
    """Move all of a queue, or go on with that. `told` is called after each batch: messages moved, of how many.

    Where some cannot be read these stay with all that stands, and the queue stays marked: after a repair it goes on.
    """
    mark = await _leave(source, target)
    coming = await _agree(source, target, mark)
    await _go_on_after(source, coming)
    done = Moved(messages=0)
    if not coming.is_whole:
        rules = await _move_standing(source, target, coming.shifts)
        done = await _move_mail(source, target, coming, rules, told)
        if done.left:
            return done
        await _copy(source, target, EVENT, coming.shifts)  # of what has left long ago, or is no mail
        async with target.transaction():
            await _note(target, Coming(mark.move, {}))
    async with source.transaction():
        await source.clear()
        await source.forget(LEAVING, (mark.move,))
    async with target.transaction():
        await target.forget(COMING, (mark.move,))
    return done


async def abandon(source: End, target: End | None) -> None:
    """End a move half-way: what has been moved stays moved, all else stays, and both are queues as any other.

    Without a target it is gone for good, and cannot be asked what it has of the last batch: that stays here, too.
    """
    mark = await leaving(source)
    if mark is None:
        raise CannotMove(f"{source.address} is not being moved: there is nothing to abandon")
    if mark.agreed and target is not None:
        await _go_on_after(source, await _known(target, mark))
    async with source.transaction():
        await source.forget(LEAVING, (mark.move,))
    if target is not None:
        async with target.transaction():
            await target.forget(COMING, (mark.move,))


async def leaving(end: End) -> Leaving | None:
    """The mark of a queue that is being moved away."""
    rows = await end.read(LEAVING, None, 1)
    return Leaving(*rows[0]) if rows else None


def command_of(source: str, target: str) -> str:
    """What an operator types to move a queue, or to go on with that."""
    return shlex.join(["smarthost", "move-queue", source, target])


# -- the steps ------------------------------------------------------------------------------------------------------


async def _leave(source: End, target: End) -> Leaving:
    """Mark the queue, where it is not."""
    if (other := await leaving(target)) is not None:
        raise CannotMove(other.refusal)
    mark = await leaving(source)
    if mark is None:
        mark = Leaving(secrets.token_hex(16), source.address, target.address)
        async with source.transaction():
            await source.put_back_interrupted()
            await source.add(LEAVING, [mark])
    return mark


async def _agree(source: End, target: End, mark: Leaving) -> Coming:
    """Have the other end know of the move, with room for our numbers; from then on it can be no other."""
    given = await source.given()
    if mark.agreed:
        coming = await _known(target, mark)
        if not coming.is_whole:  # a repair may have given more
            async with target.transaction():
                await _make_room(target, coming, given)
        return coming
    coming = await _coming(target, mark.move) or await _announce(target, mark.move, given)
    async with source.transaction():
        await source.forget(LEAVING, (mark.move,))
        await source.add(LEAVING, [Leaving(mark.move, source.address, target.address, agreed=True)])
    return coming


async def _announce(target: End, move: str, given: Mapping[str, int]) -> Coming:
    """Keep room for all numbers given here in the transaction that tells of the move: others may be on their way."""
    here = await target.given()
    coming = Coming(move, dict.fromkeys(here, 0) if await _is_empty(target) else here)
    async with target.transaction():
        await target.add(COMING, [coming.row])
        await _make_room(target, coming, given)
    return coming


async def _make_room(target: End, coming: Coming, given: Mapping[str, int]) -> None:
    await target.number_from({name: coming.shifts[name] + number for name, number in given.items()})


async def _known(target: End, mark: Leaving) -> Coming:
    if (coming := await _coming(target, mark.move)) is None:
        raise CannotMove(
            f"{mark.source} is being moved to {mark.target}, and {target.address} knows nothing of that: it is another "
            f"queue, or was made anew; go on with `{command_of(mark.source, mark.target)}`"
        )
    return coming


async def _coming(target: End, move: str) -> Coming | None:
    found = await target.read_of(COMING, move, move)
    return Coming.of(found[0]) if found else None


async def _note(target: End, coming: Coming) -> None:
    await target.forget(COMING, (coming.move,))
    await target.add(COMING, [coming.row])


async def _is_empty(end: End) -> bool:
    """Whether no number that a queue has given stands anywhere in it, nor any is to come: then it may be another's."""
    to_come = [row for row in await end.read(COMING, None, STANDING_AT_ONCE) if not Coming.of(row).is_whole]
    return not (to_come or any([await end.read(table, None, 1) for table in (*NUMBERED, TAKEN_KEY)]))


async def _go_on_after(source: End, coming: Coming) -> None:
    """Remove what the other end has since the last batch: a move may have ended between the two transactions."""
    if coming.batch:
        async with source.transaction():
            await source.remove(coming.batch)


async def _move_standing(source: End, target: End, shifts: Mapping[str, int]) -> dict[int, int]:
    """Copy what stands beside the mail, which goes by it at both ends until all is moved; give the number of each rule.

    Until then both have it, so that nothing is let go by a move that is half done.
    """
    async for rows in _chunks(source, DESTINATION):
        names = [row[0] for row in rows]
        exchanges = await source.read_of(EXCHANGE, names[0], names[-1])
        async with target.transaction():
            new = await target.add(DESTINATION, [_shifted(DESTINATION, row, shifts) for row in rows])
            await target.add(EXCHANGE, [row for row in exchanges if row[:1] in new])
    rules = await _move_rules(source, target, shifts)
    for table in STANDING:
        await _copy(source, target, table, shifts)
    return rules


async def _copy(source: End, target: End, table: Table, shifts: Mapping[str, int]) -> None:
    async for rows in _chunks(source, table):
        async with target.transaction():
            await target.add(table, [_shifted(table, row, shifts) for row in rows])


async def _move_rules(source: End, target: End, shifts: Mapping[str, int]) -> dict[int, int]:
    """Copy the hold rules, but for one with the filter of a rule that is in force there: that one has its mail."""
    rules = [row async for rows in _chunks(source, HOLD_RULE) for row in rows]
    own = {row[1]: row[0] for row in await _own_rules(target, shifts)}
    numbers = {row[0]: own.get(row[1], row[0] + shifts["hold_rule"]) for row in rules}
    async with target.transaction():
        await target.add(HOLD_RULE, [_shifted(HOLD_RULE, row, shifts) for row in rules if row[1] not in own])
    return numbers


async def _own_rules(target: End, shifts: Mapping[str, int]) -> list[Row]:
    """The rules in force that the other queue had before anything came; none where the numbers are kept."""
    (until,) = HOLD_RULE.places("until")
    rules = await target.read_of(HOLD_RULE, 0, shifts["hold_rule"])
    return [row for row in rules if row[until] > target.now()]


async def _move_mail(
    source: End, target: End, coming: Coming, rules: Mapping[int, int], told: Callable[[int, int], object]
) -> Moved:
    of, moved, after = await source.count(), 0, 0
    left: list[tuple[int, str]] = []
    has_rules = bool(await _own_rules(target, coming.shifts))
    while batch := _within_bounds(await source.waiting(after, MESSAGES_AT_ONCE)):
        after = batch[-1].number
        mail, damaged = await _read(source, [one.number for one in batch])
        left += damaged
        if numbers := [row[0] for row in mail[MESSAGE.name]]:
            await _write(target, coming, mail, rules, has_rules=has_rules)
            async with source.transaction():
                await source.remove(numbers)
            moved += len(numbers)
            told(moved, of)
        await asyncio.sleep(0)  # who wants to stop it may
    return Moved(messages=moved, left=tuple(left))


async def _write(
    target: End, coming: Coming, mail: Mapping[str, list[Row]], rules: Mapping[int, int], *, has_rules: bool
) -> None:
    """Write a batch at the other end, with the list of it, in one transaction."""
    shifts = coming.shifts
    (destination,) = ENTRY.places("destination")
    numbers = [row[0] for row in mail[MESSAGE.name]]
    async with target.transaction():
        await _note(target, coming._replace(batch=tuple(numbers)))
        await target.know_destinations(sorted({row[destination] for row in mail[ENTRY.name]}))
        for table in OF_MAIL:
            rows = [_shifted(table, row, shifts, rules) for row in mail[table.name]]
            if len(await target.add(table, rows)) < len(rows) and table is not EVENT:
                raise CannotMove(f"{target.address} has a {table.name} of the number of one that comes")
        if has_rules:
            await target.hold_by_rules([number + shifts["message"] for number in numbers])


# -- reading --------------------------------------------------------------------------------------------------------


def _within_bounds(waiting: Sequence[Waiting]) -> list[Waiting]:
    """The first of these, at least one, that are not too many or too large together."""
    taken: list[Waiting] = []
    size = rows = 0
    for one in waiting:
        size, rows = size + one.size, rows + one.rows
        if taken and (size > WEIGHT_AT_ONCE or rows > ROWS_AT_ONCE):
            break
        taken.append(one)
    return taken


async def _read(source: End, numbers: Sequence[int]) -> tuple[dict[str, list[Row]], list[tuple[int, str]]]:
    """All rows of some messages that follow each other, but for those that are damaged; and these, with the reason."""
    try:
        mail = await _rows(source, numbers[0], numbers[-1])
    except Unreadable as error:
        if len(numbers) == 1:
            return {table.name: [] for table in OF_MAIL}, [(numbers[0], str(error))]
        singly = [await _read(source, [number]) for number in numbers]
        mail = {table.name: [row for found, _ in singly for row in found[table.name]] for table in OF_MAIL}
        return mail, [one for _, damaged in singly for one in damaged]
    damaged = list(_damaged(mail))
    wrong = {number for number, _ in damaged}
    for table in OF_MAIL if wrong else ():
        (place,) = table.places(table.belongs)
        mail[table.name] = [row for row in mail[table.name] if row[place] not in wrong]
    return mail, damaged


async def _rows(source: End, first: int, last: int) -> dict[str, list[Row]]:
    return {table.name: await source.read_of(table, first, last) for table in OF_MAIL}


def _damaged(mail: Mapping[str, list[Row]]) -> Iterable[tuple[int, str]]:
    """Messages whose content is not what came. One that is settled is told of without a content that is gone."""
    bodies = {number: (digest, content) for number, digest, content in mail[BODY.name]}
    unsettled = {row[0] for row in mail[ENTRY.name]}
    (size,) = MESSAGE.places("size")
    for row in mail[MESSAGE.name]:
        number = row[0]
        if number not in bodies:
            if number in unsettled:
                yield number, "its content is missing"
            continue
        digest, content = bodies[number]
        if len(content) != row[size] or hashlib.sha256(content).digest() != digest:
            yield number, "its content is not what came"


async def _chunks(source: End, table: Table) -> AsyncIterator[list[Row]]:
    """The rows of a table in order, some at a time."""
    after: Row | None = None
    while rows := await source.read(table, after, STANDING_AT_ONCE):
        yield rows
        if len(rows) < STANDING_AT_ONCE:
            break
        after = table.key_of(rows[-1])
        await asyncio.sleep(0)  # who wants to stop it may


def _shifted(table: Table, row: Row, shifts: Mapping[str, int], rules: Mapping[int, int] | None = None) -> Row:
    """A row as it is at the other end."""
    values = list(row)
    for column, kind in table.numbers.items():
        (place,) = table.places(column)
        number = values[place]
        if number is None or (number == _NO_NUMBER and table in (EVENT, OPERATION)):
            continue
        mapped = rules.get(number) if rules is not None and kind == HOLD_RULE.name else None
        values[place] = number + shifts[kind] if mapped is None else mapped
    if table is DESTINATION:  # turns are counted by twos, by the numbers of attempts
        (turn,) = table.places("turn")
        values[turn] += 2 * shifts[ATTEMPT.name]
    return tuple(values)
