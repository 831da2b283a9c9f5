"""PostgreSQL servers of the tests' own, each a private cluster in a temporary folder.

`cluster` is one for each process that runs tests, started when the first one asks and ended with the process, and
reached by a Unix socket alone. It syncs nothing: what is tested is what we ask of it, and not the disk. A test that
ends its server and starts it again has a `Server` for itself.
"""

import asyncio
import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import asyncpg

SECONDS = 30.0  # for the server to start, and to end
NONE_MORE: Mapping[str, str] = MappingProxyType({})
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}


def folder_of_programs() -> Path | None:
    """Where the newest server's programs are; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).parent if named else None


def why_not() -> str:
    """Why there is no server to be had here, or ""."""
    if folder_of_programs() is None:
        return "not installed: postgresql"
    if os.geteuid() == 0 and not _has_user():
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


@cache
def cluster() -> "Cluster":
    """The server of this process."""
    return Cluster()


def forget() -> None:
    """Empty what a test has used of the server, if there is one."""
    if cluster.cache_info().currsize:
        asyncio.run(cluster().forget())


def end() -> None:
    """End the server, if there is one."""
    if cluster.cache_info().currsize:
        cluster().end()


class Server:
    """A server with a cluster of its own, that runs until the process ends; `settings` are beside the usual ones.

    It listens at a Unix socket in its `folder`, and at a `port` of 127.0.0.1 where one is given. `on_disk`: its files
    are on a disk that can be synced, and not in memory.
    """

    def __init__(self, settings: Mapping[str, str] = NONE_MORE, *, port: int = 0, on_disk: bool = False) -> None:
        programs = folder_of_programs()
        assert programs is not None
        self.port = port or 5432
        self.folder = Path(tempfile.mkdtemp(prefix="smarthost-pg-", dir=None if on_disk else _where()))
        self._as_whom: dict[str, str] = {}
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._as_whom = {"user": "postgres", "group": "postgres"}
        data = self.folder / "data"
        # What locale there is here says nothing of the one there will be.
        made = ["--no-sync", "--auth=trust", "--username=smarthost", "--encoding=UTF8", "--locale=C.UTF-8"]
        subprocess.run(
            [programs / "initdb", *made, "-D", data],
            check=True, stdout=subprocess.DEVNULL, cwd=self.folder, timeout=SECONDS, **self._as_whom,  # type: ignore[call-overload]
        )  # fmt: skip
        all_settings = {**_SETTINGS, "listen_addresses": "127.0.0.1" if port else "", **settings}
        options = [word for name, value in all_settings.items() for word in ("-c", f"{name}={value}")]
        self._command = [programs / "postgres", "-D", data, "-k", self.folder, "-p", f"{self.port}", *options]
        self._log = (self.folder / "log").open("wb")
        self._server: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)
        self.start()

    def dsn(self, name: str) -> str:
        """How a database of this server is named to who connects by its socket."""
        return f"postgresql://smarthost@/{name}?host={self.folder}&port={self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server = subprocess.Popen(
            self._command,
            stdout=self._log, stderr=self._log, cwd=self.folder, start_new_session=True, **self._as_whom,  # type: ignore[call-overload]
        )  # fmt: skip
        until = time.monotonic() + SECONDS
        while not (self.folder / f".s.PGSQL.{self.port}").exists() or not _answers(self.dsn("postgres")):
            if self._server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def stop(self, *, at_once: bool = False) -> None:
        """End it: its sessions are ended, and it waits for them; `at_once`, as if the machine had gone."""
        assert self._server is not None
        self._server.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        try:
            self._server.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def end(self) -> None:
        """End it and remove all it has."""
        if self._log.closed:
            return
        if self._server is not None and self._server.poll() is None:
            self.stop()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Cluster(Server):
    """A server of which each test's folder has a database."""

    def __init__(self) -> None:
        super().__init__()
        self._made = 0
        self._used: dict[Path, str] = {}
        self._empty: list[str] = []
        self._tables: list[str] = []
        asyncio.run(self._make_template())

    async def database(self, owner: Path) -> str:
        """The database of a test's folder, empty when it is asked for first; gives its dsn."""
        if owner not in self._used:
            self._used[owner] = self._empty.pop() if self._empty else await self._make()
        return self.dsn(self._used[owner])

    async def bare_database(self, encoding: str = "UTF8") -> str:
        """One of which nothing is made yet, and which is used once; gives its dsn."""
        self._made += 1
        connection = await asyncpg.connect(self.dsn("postgres"), timeout=SECONDS)
        try:
            like = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            await connection.execute(f"CREATE DATABASE bare_{self._made} {like}")
        finally:
            await connection.close()
        return self.dsn(f"bare_{self._made}")

    async def forget(self) -> None:
        """Empty the databases in use, for the tests to come: to make one anew takes ten times as long."""
        while self._used:
            _, name = self._used.popitem()
            connection = await asyncpg.connect(self.dsn(name), timeout=SECONDS)
            try:
                await connection.execute("SET lock_timeout = '5s'")
                await connection.execute(f"TRUNCATE {', '.join(self._tables)} RESTART IDENTITY")
                self._empty.append(name)
            except asyncpg.LockNotAvailableError:
                pass  # somebody is still at it: it is used no more
            finally:
                await connection.close()

    async def _make(self) -> str:
        self._made += 1
        name = f"queue_{self._made}"
        connection = await asyncpg.connect(self.dsn("postgres"), timeout=SECONDS)
        try:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE queue_made")
        finally:
            await connection.close()
        return name

    async def _make_template(self) -> None:
        from engine.queue.postgres.connection import SCHEMA, Server, connect
        from engine.queue.postgres.migrations import prepare

        made = await asyncpg.connect(self.dsn("postgres"), timeout=SECONDS)
        await made.execute("CREATE DATABASE queue_made")
        await made.close()
        connection = await connect(Server(self.dsn("queue_made")))
        await prepare(connection)
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
        self._tables = [f"{SCHEMA}.{name}" for (name,) in rows if name != "version"]
        await connection.close()


def _answers(dsn: str) -> bool:
    async def ask() -> None:
        await (await asyncpg.connect(dsn, timeout=SECONDS)).close()

    try:
        asyncio.run(ask())
    except (OSError, asyncpg.PostgresError):
        return False
    return True


def _where() -> str | None:
    """In memory where there is room: its files come and go with every test."""
    memory = Path("/dev/shm")
    is_there = memory.is_dir() and os.access(memory, os.W_OK | os.X_OK)
    return str(memory) if is_there and shutil.disk_usage(memory).free > 2 * 2**30 else None


def _has_user() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True
