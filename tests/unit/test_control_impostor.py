"""Nothing is asked of whoever listens on a control socket and is neither the spool's owner nor root."""

import asyncio
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.cli import app
from engine.control import client as client_module
from engine.control.client import Client, Impostor, control_socket
from engine.model.verbs import Drop
from tests.plain_user import USER, needs_root, open_folder
from tests.unit.fake_relay import FakeEngine, short_folder
from tests.waiting import PATIENCE

_LISTENER = """
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
listening = socket.socket(socket.AF_UNIX)
listening.bind(path); os.chmod(path, 0o666); listening.listen()
print("listening", flush=True)
taken, _ = listening.accept()
print("heard", len(taken.recv(4096)), flush=True)
"""


@contextmanager
def impostor(spool: Path) -> Iterator[subprocess.Popen[str]]:
    """A plain user's program on the control socket."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LISTENER, str(control_socket(spool)), str(pwd.getpwnam(USER).pw_uid)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_root
async def test_a_stranger_on_the_socket_hears_nothing() -> None:
    with open_folder() as folder:
        folder.chmod(0o777)
        with impostor(folder) as process:
            async with Client(control_socket(folder)) as client:
                with pytest.raises(Impostor) as caught:
                    await client.ask(Drop(filter="from=boss@example.org"))
            said = str(caught.value)
            assert f"control.sock is run by {USER}, and the spool is root's: nothing was asked of it" in said
            assert process.stdout is not None
            heard = await asyncio.to_thread(process.stdout.readline)
            assert heard == "heard 0\n"


@needs_root
def test_a_command_leaves_with_a_line_and_does_not_advise_to_start_another() -> None:
    with open_folder() as folder:
        folder.chmod(0o777)
        with impostor(folder):
            result = CliRunner().invoke(app, ["--spool", str(folder), "drop", "--yes", "id=7"])
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert f"is run by {USER}" in line


@needs_root
async def test_the_owner_of_the_spool_is_asked_by_root() -> None:
    with open_folder() as folder:
        os.chown(folder, pwd.getpwnam(USER).pw_uid, -1)
        with impostor(folder) as process:
            async with Client(control_socket(folder), timeout=1) as client:
                with pytest.raises(client_module.EngineUnreachable, match=r"timed out|no engine"):
                    await client.health()
            assert process.stdout is not None
            assert (await asyncio.to_thread(process.stdout.readline)).startswith("heard ")


async def test_the_spools_owner_and_root_alone_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_folder() as folder:
        engine = FakeEngine(Path(folder))
        async with engine.serving():
            owner = Path(folder).stat().st_uid
            for uid, is_asked in ((owner, True), (0, True), (54321, False)):
                monkeypatch.setattr(client_module, "uid_behind", lambda _, uid=uid: uid)
                async with Client(engine.socket) as client:
                    if is_asked:
                        assert (await client.health()).state == "relaying"
                    else:
                        with pytest.raises(Impostor, match="is run by uid 54321"):
                            await client.health()
                        async with asyncio.timeout(PATIENCE):  # for a sign of life one waits for twice as long
                            with pytest.raises(Impostor):
                                await anext(client.follow())
