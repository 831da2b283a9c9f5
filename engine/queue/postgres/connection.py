"""Connections to the database: how they are made, what they are set to, and what their errors mean."""

from typing import Any, NamedTuple

import asyncpg

from engine.base.text import clean
from engine.queue.errors import QueueBusy, QueueError, QueueFull

SCHEMA = "smarthost"  # which the tables are in
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0  # for any one answer of the server
STATEMENTS_KEPT = 1000  # prepared, on each connection
# Locks of pg_advisory_lock: of the node that has a name (with a hash of that), of who makes or changes tables, and of
# work that one node does at a time. The next one after MAKING is `alone` of functions.sql.
NODE = 0x736D6172
MAKING = NODE + 1
OVERDUE = NODE + 3
RULING = NODE + 4
TAKING = NODE + 5
MOVING = NODE + 6  # held by all engines that have the queue open, or by who moves it alone

# What a transaction changes of destinations, until it ends: see functions.sql. `edge` is when the first entry is due
# that waits now, `vacated` when the first was due that waits no more; other columns are those of `destination`.
CHANGE = (
    'CREATE TEMPORARY TABLE change (destination TEXT COLLATE "C" NOT NULL, waiting BIGINT, held BIGINT, '
    "relaying BIGINT, edge FLOAT8, vacated FLOAT8, turn BIGINT, touched FLOAT8, last TEXT, last_at FLOAT8, "
    "took_at FLOAT8, place BIGINT GENERATED ALWAYS AS IDENTITY) ON COMMIT DELETE ROWS"
)
# What was answered with 250 is on the disk, whatever is usual in this database. More than that is left as it is set.
DURABLY = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"

CHANNEL = "smarthost"  # on which nodes tell each other their news
FENCED = "SH001"  # what `conclude` says to a node whose epoch is over
LOCK_TIMEOUT = "10s"

_SETTINGS = {
    "application_name": "smarthost",
    "search_path": SCHEMA,
    "timezone": "UTC",
    "client_encoding": "UTF8",
    "lock_timeout": LOCK_TIMEOUT,
    "idle_in_transaction_session_timeout": "5s",  # who asks and was stopped in the middle keeps nothing for longer
    # A machine that is gone must not own the queue for hours: its session ends within half a minute.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "30s",
    "random_page_cost": "1.1",  # rows are looked up one by one: a plan that reads a whole table is the wrong one
    "jit": "off",  # whose compiling costs more than any question here
}

# What says that a connection is of no use any more.
LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # it was lost in the middle of what the driver asks for itself
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,  # the server is shut down, or somebody ended the session
    asyncpg.IdleInTransactionSessionTimeoutError,
)


class Server(NamedTuple):
    """Where the database is, and by which password it is reached; "": by none, or as the environment says."""

    dsn: str
    password: str = ""

    def __repr__(self) -> str:
        return f"Server({self.dsn!r})"  # the password is for nobody's eyes


async def connect(server: Server) -> Any:
    """A connection of our own. Raises QueueBusy, which never names the password."""
    try:
        connection = await asyncpg.connect(
            server.dsn,
            password=server.password or None,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            statement_cache_size=STATEMENTS_KEPT,
            max_cached_statement_lifetime=0,
            server_settings=_SETTINGS,
        )
    except (*LOST, asyncpg.PostgresError, ValueError) as error:
        raise QueueBusy(f"the database cannot be reached: {said(error)}") from error
    return connection


def said(error: BaseException) -> str:
    """What an error says, fit to be shown."""
    return clean(str(error) or type(error).__name__, 300)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the connection is of no use any more; what was being done may or may not be done."""
    return isinstance(error, LOST)


def is_to_be_repeated(error: BaseException) -> bool:
    """Whether the same may succeed a moment later: two have waited for each other, or for too long."""
    return isinstance(
        error,
        (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError),
    )


def refusal(error: Exception) -> Exception:
    """What an error of the database means to who asked; another's is given as it is."""
    if is_lost(error):
        return QueueBusy(f"the database cannot be reached: {said(error)}")
    if isinstance(error, (asyncpg.DiskFullError, asyncpg.OutOfMemoryError)):
        return QueueFull(f"no room for the queue: {said(error)}")
    if is_to_be_repeated(error):
        return QueueBusy(f"others hold what this needs: {said(error)}")
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == FENCED:
        return QueueBusy("others have taken over from this node")
    if isinstance(error, asyncpg.PostgresError):
        return QueueError(f"the queue could not be written: {said(error)}")
    return error
