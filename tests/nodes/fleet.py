"""Several nodes on one database of their own, with peers, load and books."""

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
from msgspec import Struct

from engine.sandbox.internet import Internet
from tests.nodes.books import Books, Takeover, Verdict
from tests.nodes.node import HAS_NODES, Node
from tests.nodes.peers import internet_of
from tests.nodes.way import Way
from tests.postgres import NONE_MORE, Server
from tests.serving import free_port

LOOKS = 0.25  # seconds between two looks at what is still claimed
QUIET = 60.0  # seconds in which all that was answered for must have left, once nothing more befalls the nodes
SLACK = 3.0  # seconds that a takeover may take beside `takeover`: the machine is busy

_CLAIMED = "SELECT id FROM smarthost.attempt WHERE ended IS NULL AND NOT interrupted AND node = $1"
_STILL_CLAIMED = f"SELECT count(*) FROM ({_CLAIMED}) a WHERE id = ANY($2::bigint[])"


class Terms(Struct, frozen=True, kw_only=True):
    """How many nodes there are, and how they are set; durations in seconds.

    A peer takes `takes` for each message. `max_connections` are those of each node. `apart`: each node has a database
    to itself on the same server, which says what the machine is good for.
    """

    nodes: int = 3
    heartbeat: float = 1.0
    takeover: float = 3.0
    check: float = 1.0
    takes: float = 0.3
    max_connections: int = 20
    on_disk: bool = False
    database: Mapping[str, str] = NONE_MORE
    has_ways: bool = True
    has_clocks: bool = False
    apart: bool = False

    @property
    def bound(self) -> float:
        """Seconds in which what a node has claimed is claimed no more, once it can do nothing."""
        return self.takeover + SLACK


class Fleet:
    """The nodes, and what they stand on. `troubles` counts the times that the database itself was taken away."""

    def __init__(self, terms: Terms, nodes: list[Node], database: Server, internet: Internet, books: Books) -> None:
        self.terms = terms
        self.nodes = nodes
        self.database = database
        self.internet = internet
        self.books = books
        self.troubles = 0
        self._befallen: set[str] = set()

    @contextmanager
    def befalling(self, node: Node) -> Iterator[None]:
        """Something befalls a node that keeps it from its work while this lasts."""
        self._befallen.add(node.name)
        try:
            yield
        finally:
            self._befallen.discard(node.name)

    @property
    def well(self) -> list[Node]:
        """The nodes that nothing befalls now."""
        return [node for node in self.nodes if node.name not in self._befallen]

    def over(self, fault: str, *nodes: Node) -> None:
        """What befell these nodes is over now."""
        for node in nodes:
            self.books.over(fault, node.name, time.time())

    async def watch(self, node: Node, fault: str, seconds: float) -> None:
        """Note how long what a node has claimed now stays so, since it can do nothing for so many seconds from now on.

        Does nothing where nobody else is there, or where the node is back before it is anybody's business.
        """
        begin, troubles = time.monotonic(), self.troubles
        if len(self.nodes) == 1 or seconds <= self.terms.bound:
            return
        at = time.time()
        claims = [row[0] for row in await self._ask(_CLAIMED, node.name) or ()]
        last, took = 0, None  # how many they were at the last look that found any
        while took is None and (gone := time.monotonic() - begin) < seconds - LOOKS:
            rows = await self._ask(_STILL_CLAIMED, node.name, claims)
            if rows is not None and rows[0][0] == 0:
                took = gone
            else:
                last = rows[0][0] if rows is not None else last
                await asyncio.sleep(LOOKS)
        self.books.takeovers.append(
            Takeover(
                node=node.name,
                fault=fault,
                at=at,
                took=math.inf if took is None else took,
                bound=self.terms.bound,
                claims=last,
                is_judged=troubles == self.troubles,
            )
        )

    async def settle(self) -> Verdict:
        """Wait until all that was handed in has left, read what is on record, and compare."""
        deadline = time.monotonic() + QUIET
        left = await self._left()
        while (left or self.books.missing) and time.monotonic() < deadline:
            await asyncio.sleep(LOOKS)
            left = await self._left()
        for node in self.nodes if self.terms.apart else self.nodes[:1]:
            seq = 0
            async with node.client() as client:
                while events := await client.events(after=seq, limit=1000):
                    self.books.happened(events)
                    seq = events[-1].seq
        return self.books.verdict(left)

    async def _left(self) -> list[str]:
        """The recipients that are still in the queue."""
        found: list[str] = []
        for name in _databases(self.terms):
            found += [row[0] for row in await self._ask("SELECT recipient FROM smarthost.entry", name=name) or ()]
        return found

    async def _ask(self, query: str, *values: object, name: str = "") -> list[asyncpg.Record] | None:
        """Ask the database itself, past all ways; None where it does not answer."""
        try:
            connection = await asyncpg.connect(self.database.dsn(name or _databases(self.terms)[0]), timeout=5)
        except (OSError, asyncpg.PostgresError):
            return None
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *values, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return None
        finally:
            connection.terminate()
        return rows


@asynccontextmanager
async def fleet(terms: Terms) -> AsyncIterator[Fleet]:
    """Start a database, peers and nodes, and end all of them with the block."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-")))
        database = await asyncio.to_thread(Server, terms.database, port=free_port(), on_disk=terms.on_disk)
        stack.push_async_callback(asyncio.to_thread, database.end)
        books = Books()
        internet = await internet_of(books, terms.takes)
        stack.push_async_callback(internet.stop)
        for each in _databases(terms):
            connection = await asyncpg.connect(database.dsn("postgres"))
            await connection.execute(f"CREATE DATABASE {each}")
            await connection.close()
        nodes = []
        for number in range(terms.nodes):
            name = "abcdefghij"[number]
            way = await stack.enter_async_context(Way(database.port)) if terms.has_ways else None
            (folder / name).mkdir()
            nodes.append(
                Node(
                    name,
                    folder / name,
                    internet.nameserver,
                    internet.port,
                    _settings(terms, name, way.port if way else database.port),
                    way=way,
                    has_own_clock=terms.has_clocks,
                )
            )
            stack.callback(nodes[-1].end)
        for node in nodes:  # one after the other: the first makes the tables
            await node.start_again()
        yield Fleet(terms, nodes, database, internet, books)


def _databases(terms: Terms) -> list[str]:
    return [f"queue_{number}" for number in range(terms.nodes if terms.apart else 1)]


def _settings(terms: Terms, name: str, port: int) -> str:
    database = _databases(terms)["abcdefghij".index(name) if terms.apart else 0]
    node = f"""
node = "{name}"
heartbeat = "{terms.heartbeat:g}s"
takeover = "{terms.takeover:g}s"
"""
    return f"""
max_connections = {terms.max_connections}
bad_mx_timeout = "2s"
[retry]
schedule = ["2s"]
[events]
kept = 1000000
[queue]
store = "postgresql://smarthost@127.0.0.1:{port}/{database}"
{node if HAS_NODES else ""}"""
