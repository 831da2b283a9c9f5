"""34. What one may not enter, open or read is said in a line: which path, who one is, what to do; and no mail is lost.

Every command here is run by a plain user, who is in the group "mail" where the test says so.
"""

import asyncio
import grp
import os
import pwd
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.settings.settings import Control, Dns, Intake, Nameserver, Settings, Smtp
from tests import plain_user
from tests.plain_user import GROUP, USER
from tests.terminals import on_a_terminal
from tests.waiting import until

pytestmark = plain_user.needs_root


@pytest.fixture
def folder() -> Iterator[Path]:
    with plain_user.open_folder() as folder:
        yield folder


def settings_in(folder: Path, text: str, mode: int = 0o644) -> dict[str, str]:
    path = folder / "smarthost.toml"
    path.write_text(f'hostname = "relay.example.net"\n{text}')
    path.chmod(mode)
    return {"SMARTHOST_CONFIG": str(path)}


def one_line(said: str) -> str:
    assert "Traceback" not in said
    (line,) = said.splitlines()
    assert f"by {USER} (in group" in line
    return line


@asynccontextmanager
async def an_engine(spool: Path, control: Control | None = None) -> AsyncIterator[Engine]:
    """A relay of root's whose control socket the group may use."""
    engine = Engine(
        Settings(
            hostname="relay.example.net",
            spool=spool,
            control=control or Control(group=GROUP),
            intake=Intake(smtp=Smtp(listen=())),
            dns=Dns(nameservers=(Nameserver("127.0.0.1", 1),)),
        )
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(drain=0.3)


@pytest.mark.parametrize(("words", "status"), [(["serve"], 2), (["config", "check"], 1), (["status"], 3)])
def test_a_spool_in_a_folder_one_may_not_enter_is_a_line_and_no_traceback(
    folder: Path, words: list[str], status: int
) -> None:
    (folder / "deep").mkdir(mode=0o700)
    done = plain_user.run(*words, env=settings_in(folder, f'spool = "{folder}/deep/spool"\n'))
    assert done.returncode == status
    line = one_line(done.stderr)
    assert f"{folder}/deep/spool" in line
    assert f"{folder}/deep may not be entered by {USER}" in line
    assert "root's, group root, mode 0700: do this as root" in line


@pytest.mark.parametrize("more", ["", "[intake.drop]\nenabled = false\n"])
def test_a_spool_one_may_not_enter_loses_no_mail_of_cron(folder: Path, more: str) -> None:
    (folder / "deep").mkdir(mode=0o700)
    text = f'spool = "{folder}/deep/spool"\n[intake.smtp]\nlisten = ["127.0.0.1:1"]\n{more}'
    done = plain_user.run("sendmail", "bob@example.org", input=b"hi\n", env=settings_in(folder, text))
    assert done.returncode == 75
    assert "Traceback" not in done.stderr
    assert ("may not be entered" in one_line(done.stderr)) if not more else ("refused" in done.stderr)


def test_a_drop_folder_that_is_the_only_way_in_and_not_ours_is_tried_again_later(folder: Path) -> None:
    (folder / "deep").mkdir(mode=0o700)
    text = f'spool = "{folder}/deep/spool"\n[intake.smtp]\nlisten = []\n'
    done = plain_user.run("sendmail", "bob@example.org", input=b"hi\n", env=settings_in(folder, text))
    assert done.returncode == 75
    assert f"{folder}/deep may not be entered" in one_line(done.stderr)


@pytest.mark.parametrize(("words", "status"), [(["status"], 2), (["config", "check"], 1), (["serve"], 2)])
def test_settings_one_may_not_read_are_a_line(folder: Path, words: list[str], status: int) -> None:
    done = plain_user.run(*words, env=settings_in(folder, "", mode=0o600))
    assert done.returncode == status
    line = one_line(done.stderr)
    assert f"{folder}/smarthost.toml may not be read" in line
    assert ("--spool" in line) == (words == ["status"])


@pytest.mark.parametrize("inner", ["", "deep"])
def test_settings_one_may_not_read_lose_no_mail_of_cron(folder: Path, inner: str) -> None:
    (folder / "deep").mkdir(mode=0o700)
    env = settings_in(folder / inner, "", mode=0o600)
    done = plain_user.run("sendmail", "bob@example.org", input=b"hi\n", env=env)
    assert done.returncode == 75
    assert str(folder / inner / "smarthost.toml") in one_line(done.stderr)


def test_a_password_file_one_may_not_read_is_named_with_who_one_is(folder: Path) -> None:
    password = folder / "password"
    password.write_text("secret")
    password.chmod(0o640)
    route = f'[[route]]\ndomain = "*"\nhost = "up.example"\npassword_file = "{password}"\nusername = "u"\n'
    done = plain_user.run("config", "check", env=settings_in(folder, route + 'tls = "required"\n'))
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert f"route[0].password_file: {password} may not be read by {USER}" in line


async def test_members_of_the_group_need_neither_settings_nor_passwords_nor_the_right_to_list_the_spool(
    folder: Path,
) -> None:
    password = folder / "password"
    password.write_text("secret")
    password.chmod(0o600)
    spool = folder / "spool"
    route = f'[[route]]\ndomain = "*"\nhost = "up.example"\npassword_file = "{password}"\nusername = "u"\n'
    secret = f'[tls]\nca_file = "{password}"\n{route}tls = "required"\n'
    async with an_engine(spool):
        assert spool.stat().st_mode & 0o777 == 0o710
        for words in (["status"], ["queue"], ["events", "--limit", "1"], ["check"], ["suspend", "a.example"]):
            env = settings_in(folder, f'spool = "{spool}"\n{secret}')
            done = await asyncio.to_thread(plain_user.run, *words, env=env, groups=(GROUP,))
            assert (done.returncode, "may not" in done.stderr) == (0, False), (words, done.stderr)
        env = settings_in(folder, secret, mode=0o600)
        done = await asyncio.to_thread(plain_user.run, "--spool", spool, "status", env=env, groups=(GROUP,))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("relay.example.net")


async def test_who_may_not_open_the_socket_is_told_who_may_and_not_to_start_another_engine(folder: Path) -> None:
    async with an_engine(folder / "spool"):
        done = await asyncio.to_thread(plain_user.run, "--spool", folder / "spool", "status")
    assert done.returncode == 3
    line = one_line(done.stderr)
    assert f"{folder}/spool may not be entered by {USER}" in line
    assert f"do this as a member of {GROUP} or as root" in line
    assert "start one" not in done.stderr


async def test_a_member_of_another_group_is_told_of_the_socket_itself(folder: Path) -> None:
    async with an_engine(folder / "spool"):
        (folder / "spool").chmod(0o711)
        done = await asyncio.to_thread(plain_user.run, "--spool", folder / "spool", "status")
    assert f"{folder}/spool/control.sock may not be opened by {USER}" in one_line(done.stderr)


def test_an_engine_that_may_not_make_its_spool_says_so(folder: Path) -> None:
    done = plain_user.run("--spool", folder / "spool", "serve", env=settings_in(folder, ""))
    assert done.returncode == 1
    assert f"{folder} may not be written to by {USER}" in one_line(done.stderr)


def test_users_one_may_not_read_are_a_line(folder: Path) -> None:
    users = folder / "users"
    users.write_text("")
    users.chmod(0o600)
    done = plain_user.run("user", "list", env=settings_in(folder, f'[intake.submission]\nusers = "{users}"\n'))
    assert done.returncode == 1
    assert f"{users} may not be read by {USER}" in one_line(done.stderr)


class Attached:
    """A console of a member of the group, on a terminal."""

    def __init__(self, folder: Path) -> None:
        home = folder / "home"
        home.mkdir()
        home.chmod(0o777)
        command = plain_user.command("--spool", folder / "spool", "attach", groups=(GROUP,))
        self.process, self._line = on_a_terminal(command, env={"XDG_STATE_HOME": str(home)})
        self._seen = b""

    async def shows(self, *texts: bytes) -> bytes:
        """Wait until all these were drawn, or it has ended; give all that was drawn."""
        await until(lambda: all(text in self._read() for text in texts) or self.process.poll() is not None)
        return self._seen

    def press(self, key: bytes) -> None:
        os.write(self._line, key)

    async def ended(self) -> int:
        """Wait until it has ended; give its status."""

        def has_ended() -> bool:
            self._read()
            return self.process.poll() is not None

        await until(has_ended)
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._line)

    def _read(self) -> bytes:
        with suppress(OSError):  # there is nothing to read, or nobody to write
            self._seen += os.read(self._line, 65536)
        return self._seen


async def test_a_member_of_the_group_attaches_the_console(folder: Path) -> None:
    async with an_engine(folder / "spool"):
        with closing(Attached(folder)) as attached:
            assert b"no mail waits" in await attached.shows(b"no mail waits")
            attached.press(b"q")
            assert await attached.ended() == 0


VIEWER = Control(group="tty", view_group=GROUP)
_POST = b'POST /v1/drop HTTP/1.1\r\nHost: r\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{"filter": ""}'
_SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"


def as_plain_user(path: Path, said: bytes) -> bytes:
    """What a program of the plain user's, in the group, gets back from a socket: no client of ours is in it."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([grp.getgrnam(GROUP).gr_gid])
            os.setgid(pwd.getpwnam(USER).pw_gid)
            os.setuid(pwd.getpwnam(USER).pw_uid)
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(20)
                asking.connect(str(path))
                asking.sendall(said)
                while got := asking.recv(65536):
                    theirs.sendall(got)
        except OSError as error:
            theirs.sendall(type(error).__name__.encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        got = b"".join(iter(lambda: ours.recv(65536), b""))
    os.waitpid(child, 0)
    return got


async def test_who_may_look_looks_with_every_command_and_acts_with_none(folder: Path) -> None:
    spool = folder / "spool"
    async with an_engine(spool, VIEWER):
        assert spool.stat().st_mode & 0o777 == 0o711
        for words in (["status"], ["queue"], ["hosts"], ["events", "--limit", "1"], ["explain", "a.example"]):
            done = await asyncio.to_thread(plain_user.run, "--spool", spool, *words, groups=(GROUP,))
            assert (done.returncode, "may not" in done.stderr) == (0, False), (words, done.stderr)
        for words in (["check"], ["suspend", "a.example"], ["drop", "--yes", "a.example"], ["mark-bad", "mx.example"]):
            done = await asyncio.to_thread(plain_user.run, "--spool", spool, *words, groups=(GROUP,))
            assert done.returncode == 1, words
            refused, allowed = done.stderr.splitlines()
            assert "this is the way in for looking alone" in refused
            assert "control.sock: its owner, root, and the members of tty" in allowed


async def test_who_may_look_cannot_act_with_a_program_of_their_own_either(folder: Path) -> None:
    spool = folder / "spool"
    async with an_engine(spool, VIEWER):
        looking, acting = spool / "control-view.sock", spool / "control.sock"
        assert (await asyncio.to_thread(as_plain_user, looking, _POST)).startswith(b"HTTP/1.1 403 ")
        assert await asyncio.to_thread(as_plain_user, acting, _POST) == b"PermissionError"
        scraped = await asyncio.to_thread(as_plain_user, looking, _SCRAPE)
        assert b"smarthost_bad_hosts 0.0" in scraped


async def test_who_is_in_neither_group_is_told_of_the_operators(folder: Path) -> None:
    async with an_engine(folder / "spool", VIEWER):
        done = await asyncio.to_thread(plain_user.run, "--spool", folder / "spool", "status")
    assert done.returncode == 3
    assert f"{folder}/spool/control.sock may not be opened by {USER}" in one_line(done.stderr)


def test_an_engine_refuses_a_spool_that_others_may_write_to_with_a_line(folder: Path) -> None:
    (folder / "spool").mkdir()
    (folder / "spool").chmod(0o777)
    done = plain_user.run("--spool", folder / "spool", "serve", env=settings_in(folder, ""))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"the spool {folder}/spool is root's, group root, mode 0777: others may write to it" in line
    assert f"chmod go-w {folder}/spool" in line


def test_an_engine_refuses_a_spool_of_anothers_with_a_line(folder: Path) -> None:
    (folder / "spool").mkdir()
    os.chown(folder / "spool", pwd.getpwnam("mail").pw_uid, -1)
    done = plain_user.run("--spool", folder / "spool", "serve", env=settings_in(folder, ""))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"is mail's, group root, mode 0755, and this is {USER}: give it to {USER}" in line


def test_config_check_notes_what_everybody_may_read(folder: Path) -> None:
    users = folder / "users"
    users.write_text("")
    users.chmod(0o644)
    done = plain_user.run("config", "check", env=settings_in(folder, f'[intake.submission]\nusers = "{users}"\n'))
    assert done.returncode == 0
    assert f"intake.submission.users: {users} may be read by everybody on this machine (mode 0644)" in done.stdout


REFUSED = b"Check: this console may only look"


async def test_the_console_of_who_may_look_says_so_and_its_keys_act_on_nothing(folder: Path) -> None:
    async with an_engine(folder / "spool", VIEWER) as engine:
        with closing(Attached(folder)) as attached:
            assert b"read-only" in await attached.shows(b"no mail waits", b"read-only")
            attached.press(b"c")
            assert REFUSED in await attached.shows(REFUSED)
        assert [event.kind for event in await engine.queue.listing.events(limit=100)] == ["started"]
