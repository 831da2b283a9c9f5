"""What every store keeps, as tables that have the same names and columns in each: what a move takes along.

A column that is new is named here, or a move leaves it behind (a test asks for it).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Row = tuple[Any, ...]


class Table(NamedTuple):
    """A table that every store has: its key, all columns to be moved, and what is in them.

    `belongs` is the column by which rows go together, and `which` what else is said to find them by it; `numbers` says
    whose numbers are in a column, by table; `flags` are true or false.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    belongs: str
    numbers: Mapping[str, str] = {}
    flags: frozenset[str] = frozenset()
    which: str = ""

    @property
    def order(self) -> tuple[str, ...]:
        """By what rows that go together are in order."""
        return tuple(dict.fromkeys((self.belongs, *self.key)))

    def places(self, *columns: str) -> tuple[int, ...]:
        """Where columns stand in a row."""
        return tuple(map(self.columns.index, columns))

    def key_of(self, row: Row) -> Row:
        """The key of a row."""
        return tuple(row[place] for place in self.places(*self.key))


def _table(
    name: str, key: str, others: str, belongs: str = "", numbers: Mapping[str, str] | None = None, flags: str = ""
) -> Table:
    keys = tuple(key.split())
    return Table(name, keys, (*keys, *others.split()), belongs or keys[0], numbers or {}, frozenset(flags.split()))


MESSAGE = _table(
    "message",
    "number",
    "sender size arrived expires origin subject message_id eight_bit smtputf8 tell_at tellings given_back ret envid",
    numbers={"number": "message"},
    flags="eight_bit smtputf8 given_back",
)
BODY = _table("body", "message", "sha256 content", numbers={"message": "message"})
ENTRY = _table(
    "entry",
    "message number",
    "recipient destination state due expires attempts last last_line reason_key last_at notify orcpt notice_at "
    "giving_up ordered ordered_by note operation prior prior_by prior_note rule counted postponed_at postponed_by",
    numbers={"message": "message", "operation": "operation", "counted": "operation", "rule": "hold_rule"},
    flags="giving_up",
)
UNTOLD = _table("untold", "message number", "recipient orcpt action outcome at", numbers={"message": "message"})
ATTEMPT = _table(
    "attempt",
    "id",
    "message entry relayer started ended outcome interrupted",
    belongs="message",
    numbers={"id": "attempt", "message": "message"},
    flags="interrupted",
)
DESTINATION = _table(  # what is counted in it follows the entries
    "destination",
    "name",
    "site turn blocked_until blocked_why blocked_cause last last_at touched unreached_at took_at",
)
EXCHANGE = _table("exchange", "destination preference", "host")
SUSPENSION = _table("suspension", "destination", "since until by note")
HOLD_RULE = _table(
    "hold_rule",
    "id",
    "filter since until by note newest swept ended_by released",
    numbers={"id": "hold_rule", "newest": "message", "swept": "message"},
)
OVERRIDE = _table("override", "destination", "host port since until by note")
MARK = _table("mark", "host", "since until by note last times")
STS_POLICY = _table("sts_policy", "domain", "expires policy")
KNOWN_LOGIN = _table("known_login", "login address", "at")
SUPPRESSED = _table("suppressed", "address", "since until by reply note")
TAKEN_KEY = _table("taken_key", "key", "message", numbers={"message": "message"})
OPERATION = _table(
    "operation",
    "id",
    "kind verb filter by note at messages recipients skipped last finished gone_messages gone_recipients released due",
    numbers={"id": "operation", "last": "message"},
    flags="finished",
)
EVENT = _table(
    "event",
    "seq",
    "at kind by message entry sender recipient destination host outcome text",
    belongs="message",
    numbers={"seq": "event", "message": "message"},
)._replace(which="AND message > 0")  # as its index has it

OF_MAIL = (MESSAGE, BODY, ENTRY, UNTOLD, ATTEMPT, EVENT)  # each after what its rows refer to
STANDING = (SUSPENSION, OVERRIDE, MARK, STS_POLICY, KNOWN_LOGIN, SUPPRESSED, OPERATION, TAKEN_KEY)
EVERY = (DESTINATION, EXCHANGE, HOLD_RULE, *STANDING, *OF_MAIL)

# The tables that tell of moves, which stay where they are, and those whose rows are numbered by the store.
LEAVING = _table("leaving", "move", "source target agreed", flags="agreed")
COMING = _table("coming", "move", "shifts batch")
NUMBERED = (MESSAGE, ATTEMPT, OPERATION, HOLD_RULE, EVENT)
