"""`smarthost sendmail` is what programs know as /usr/sbin/sendmail: into the drop folder, or over SMTP."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from engine.intake.drop.dropped import Dropped
from engine.intake.preparation import Preparation
from engine.intake.sendmail import command as sendmail
from engine.model.destination import RELAY
from engine.model.message import NewMessage
from engine.model.verbs import Suspend
from engine.settings.settings import Smtp
from tests.scenarios.relaying import Relay
from tests.serving import free_port

LETTER = b"To: Bob <bob@example.org>, root\nCc: cy@example.net\nBcc: di@example.net\nSubject: hi\n\nHow are you?\n"


class Caller:
    """Somebody who calls sendmail, and looks into the drop folder afterwards."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.drop = folder / "spool" / "drop"
        self.drop.mkdir(parents=True)
        self.config = folder / "smarthost.toml"
        self.set()
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setattr("engine.intake.floor._free", lambda folder: 2**40)  # bytes; not what this machine has

    def set(self, more: str = "") -> None:
        self.config.write_text(f'hostname = "relay.example"\nspool = "{self.drop.parent}"\n{more}')

    def __call__(self, *words: str, text: bytes = LETTER) -> int:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        return sendmail.main(words, config=self.config)

    @property
    def said(self) -> str:
        return self._capsys.readouterr().err

    def dropped(self) -> NewMessage:
        """The one file in the folder, as the engine takes it."""
        (path,) = self.drop.iterdir()
        assert path.name.endswith(".eml")
        assert not path.name.startswith(".")
        content = path.read_bytes()
        path.unlink()
        return Dropped(content=content, origin="drop", key="").message(Preparation("relay.example"), Smtp(), 0)


def parsed(message: NewMessage) -> Message:
    return message_from_bytes(message.content)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["-t"],
        ["-t", "-i", "-oi", "-oem", "-odb", "-o", "em", "-bm", "-v", "-B8BITMIME", "-B", "7BIT"],
        ["-N", "failure,delay", "-R", "hdrs", "-V", "abc", "-Ac", "-L", "tag", "-G", "-U", "-ti", "-n", "-m"],
    ],
)
def test_the_recipients_are_read_from_the_message(call: Caller, words: list[str]) -> None:
    assert call(*words) == 0
    message = call.dropped()
    assert message.recipients == ("bob@example.org", "root@relay.example", "cy@example.net", "di@example.net")
    assert "Bcc" not in parsed(message)
    assert b"How are you?" in message.content


def test_recipients_may_be_arguments_and_stand_anywhere(call: Caller) -> None:
    assert call("eve@example.org", "-f", "ann@example.com", "-i", "fay") == 0
    message = call.dropped()
    assert (message.sender, message.recipients) == ("ann@example.com", ("eve@example.org", "fay@relay.example"))
    assert call("--", "eve@example.org", text=b"From: a@b.example\n\nhi\n") == 0
    assert call.dropped().recipients == ("eve@example.org",)


def test_an_argument_may_be_a_list_as_cron_gives_it(call: Caller) -> None:
    assert call("-i", "-FCronDaemon", "eve@example.org,fay@example.org", text=b"hi\n") == 0
    assert call.dropped().recipients == ("eve@example.org", "fay@example.org")
    assert call("Eve <eve@example.org>", "root, fay", '"a,b"@example.org', text=b"hi\n") == 0
    assert call.dropped().recipients == (
        "eve@example.org", "root@relay.example", "fay@relay.example", '"a,b"@example.org'
    )  # fmt: skip


@pytest.mark.parametrize(("spool", "drop", "status"), [(0o777, 0o700, 75), (0o700, 0o777, 75), (0o700, 0o1777, 0)])
def test_nothing_is_left_where_others_could_take_it(call: Caller, spool: int, drop: int, status: int) -> None:
    call.set("[intake.smtp]\nlisten = []\n")
    call.drop.parent.chmod(spool)
    call.drop.chmod(drop)
    assert call("bob@example.org") == status
    assert bool(list(call.drop.iterdir())) == (status == 0)
    assert ("others may write to" in call.said) == (status != 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to somebody else")
def test_what_root_leaves_in_the_folder_can_be_read_by_the_engines_user(call: Caller) -> None:
    os.chown(call.drop, 65534, 65533)
    assert call("bob@example.org") == 0
    (path,) = call.drop.iterdir()
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 65533, 0o600)


def test_a_closed_standard_input_is_no_crash(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert sendmail.main(["bob@example.org"], config=call.config) == 64
    assert "no standard input" in call.said


def test_what_the_message_lacks_is_added_and_what_it_has_stays(call: Caller) -> None:
    assert call("-F", "Ann Bö", "-fann@example.com", "bob@example.org", text=b"hello\n") == 0
    message = parsed(call.dropped())
    assert message["From"] == "=?utf-8?q?Ann_B=C3=B6?= <ann@example.com>"
    assert message["Message-ID"].endswith("@relay.example>")
    assert message["Date"]
    assert message.get_payload() == "hello\r\n"
    given = b"From ann Sat Jan  1\nFrom: A <a@b.example>\nDate: then\nMessage-ID: <1@x>\nSubject: s\n\nhello\n"
    assert call("bob@example.org", text=given) == 0
    message = parsed(call.dropped())
    assert (message["From"], message["Date"], message["Message-ID"]) == ("A <a@b.example>", "then", "<1@x>")
    assert message.get_all("From") == ["A <a@b.example>"]


def test_the_null_sender_is_kept_and_the_caller_is_the_sender_otherwise(call: Caller) -> None:
    for words, sender in (
        (["-f", "<>"], ""),
        (["-f", ""], ""),
        (["-r", "ann"], "ann@relay.example"),
        ([], f"{sendmail._caller()[0]}@relay.example"),
    ):
        assert call(*words, "bob@example.org") == 0
        assert call.dropped().sender == sender


def test_a_dot_alone_ends_the_message_unless_it_is_told_not_to(call: Caller) -> None:
    text = b"Subject: s\n\none\n.\ntwo\n"
    for words, body in (([], "one\r\n"), (["-i"], "one\r\n.\r\ntwo\r\n"), (["-oi"], "one\r\n.\r\ntwo\r\n")):
        assert call(*words, "bob@example.org", text=text) == 0
        assert parsed(call.dropped()).get_payload() == body


def test_no_field_of_the_message_can_add_a_recipient_or_a_sender(call: Caller) -> None:
    text = b"X-Envelope-To: spy@example.net\nX-Envelope-From: spy@example.net\nSubject: s\n\nhi\n"
    assert call("-f", "ann@example.com", "bob@example.org", text=text) == 0
    message = call.dropped()
    assert (message.sender, message.recipients) == ("ann@example.com", ("bob@example.org",))


def test_mail_that_is_sent_again_goes_to_those_of_the_resent_fields(call: Caller) -> None:
    assert call("-t", text=b"Resent-To: eve@example.org\nResent-Bcc: fay@example.org\n" + LETTER) == 0
    message = call.dropped()
    assert message.recipients == ("eve@example.org", "fay@example.org")
    assert "Resent-Bcc" not in parsed(message)


@pytest.mark.parametrize(
    ("words", "text", "status", "said"),
    [
        (["-bs"], b"", 64, "-bs: there is no SMTP on standard input"),
        (["-bp"], b"", 64, "smarthost queue"),
        (["-bi"], b"", 64, "no aliases"),
        (["-bd"], b"", 64, "smarthost serve"),
        (["-bX"], b"", 64, "no such mode"),
        (["-q"], b"", 64, "smarthost retry"),
        (["-Z"], b"", 64, "option -Z not recognized"),
        ([], b"", 64, "no recipients"),
        (["-t"], b"Subject: s\n\nhi\n", 65, "recipients: none"),
        (["a b@example.org"], b"hi\n", 67, "a b@example.org"),
        (["bob@example.org\nRCPT TO:<x@y>"], b"hi\n", 67, "cannot be shown"),
        (["bob@example.org, <eve"], b"hi\n", 67, "bob@example.org, <eve: cannot be read"),
        (["-t"], b"To: <bob\n\nhi\n", 67, "To: cannot be read"),
        (["-f", "a@b@c", "bob@example.org"], b"hi\n", 65, "sender"),
        (["bob@example.org"], b"a\0b\n", 65, "NUL"),
        (["bob@example.org"], b"x" * 70_000, 65, "line is too long"),
        (["bob@example.org"], b"x\n" * 40_000, 65, "too big"),
        (["--config", "/nowhere.toml", "bob@example.org"], b"hi\n", 78, "no such file"),
    ],
)
def test_what_cannot_be_sent_is_said_with_the_status_programs_know(
    call: Caller, words: Sequence[str], text: bytes, status: int, said: str
) -> None:
    call.set('[intake.smtp]\nmax_message_size = "75 KiB"\n')
    assert call(*words, text=text) == status
    assert said in call.said
    assert not list(call.drop.iterdir())


def test_a_disk_below_the_floor_is_a_reason_to_try_again(call: Caller) -> None:
    call.set('[intake]\nmin_free = "1000 TiB"\n')
    assert call("bob@example.org") == 75
    assert "intake stops" in call.said
    assert not list(call.drop.iterdir())


def test_it_asks_for_no_file_that_only_the_engine_may_read(call: Caller) -> None:
    call.set('[[route]]\ndomain = "*"\nhost = "up.example"\npassword_file = "/nowhere"\n[intake.submission]\nx = 1\n')
    assert call("bob@example.org") == 0
    call.dropped()


def test_without_a_folder_and_without_an_engine_it_says_to_try_again(call: Caller) -> None:
    call.drop.rmdir()
    call.set(f'[intake.smtp]\nlisten = ["127.0.0.1:{free_port()}"]\n')
    assert call("bob@example.org") == 75
    assert "try again later" in call.said
    call.set("[intake.smtp]\nlisten = []\n")
    assert call("bob@example.org") == 78


@contextmanager
def settings_for(relay: Relay, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "smtp.toml"
    door = relay.engine.smtp.addresses[0]
    path.write_text(
        f'hostname = "relay.example.net"\nspool = "{tmp_path}/none"\n'
        f'[intake.smtp]\nlisten = ["127.0.0.1:{door.port}"]\n'
    )
    yield path


async def _run(*words: str | Path, text: bytes = LETTER) -> tuple[int, str]:
    from asyncio import create_subprocess_exec
    from asyncio import subprocess as sub

    process = await create_subprocess_exec(
        *(Path(sys.executable).with_name("smarthost"), *words), stdin=sub.PIPE, stdout=sub.PIPE, stderr=sub.PIPE
    )
    _, said = await process.communicate(text)
    return process.returncode or 0, said.decode()


async def test_who_may_not_write_into_the_folder_hands_over_by_smtp(relay: Relay, tmp_path: Path) -> None:
    await relay.client.ask(Suspend(destination=RELAY, seconds=3600, note="to look at the queue"))
    with settings_for(relay, tmp_path) as config:
        status, said = await _run("sendmail", "--config", config, "-t", "-i", text=LETTER + b".\n.\n..end\n")
        assert (status, said) == (0, "")
        status, _ = await _run("--config", config, "sendmail", "-oi", "bob@nowhere.example", "-fann@example.com")
        assert status == 0
    entries = await relay.entries()
    assert {entry.recipient for entry in entries} == {
        "bob@example.org", "root@relay.example.net", "cy@example.net", "di@example.net", "bob@nowhere.example"
    }  # fmt: skip
    content = await relay.engine.queue.claims.content(entries[0].message)
    assert b"\r\n.\r\n.\r\n..end\r\n" in content
    assert b"Bcc" not in content


async def test_what_the_door_refuses_has_its_status(relay: Relay, tmp_path: Path) -> None:
    relay.engine.smtp.pause("for a test")
    with settings_for(relay, tmp_path) as config:
        status, said = await _run("sendmail", "--config", config, "bob@example.org")
        assert status == 75
        assert said == "sendmail: MAIL: 452 4.3.1 Not taking mail at the moment; try again later\n"
        relay.engine.smtp.resume()
        many = [f"u{number}@example.org" for number in range(1001)]
        status, said = await _run("sendmail", "--config", config, *many)
        assert (status, "452 4.5.3" in said) == (65, True)  # to try again would be to no avail
        relay.engine.smtp._reception.rules = Smtp(relay_networks=())
        status, said = await _run("sendmail", "--config", config, "bob@example.org")
    assert status == 77
    assert "550 5.7.1 Relaying denied" in said
    assert not await relay.entries()


def test_it_starts_without_what_draws_relays_or_parses_commands() -> None:
    script = (
        "import sys; sys.argv = ['smarthost', 'sendmail', '-bs']\n"
        "from console.entry import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 64\n"
        "heavy = {'typer', 'textual', 'aiohttp', 'uvloop', 'aiosmtplib', 'dns', 'argon2', 'smtplib', 'sqlite3'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout == "[]\n"
