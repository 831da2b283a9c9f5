"""The mail log: what its lines say, that nobody waits for it, and what becomes of lines that cannot be written."""

import json
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.maillog import records
from engine.maillog.lines import Line, lines, refused
from engine.maillog.log import AT_ONCE, MailLog
from engine.maillog.sinks import File, Journal, Sink, Syslog
from engine.model.event import Detail, Event
from engine.model.outcome import Outcome
from engine.model.refusal import Refusal
from tests.clock import FakeClock
from tests.waiting import hold_until

AT = 1_700_000_000.0
CAME = Detail(arrived=AT, size=4127, message_id="<1@shop.example>", recipients=2)
TAKEN = Outcome(
    kind="delivered", code=250, enhanced="2.0.0", text="Ok: queued as 7A1F2", host="mx.example.org", phase="reply",
    secured="TLS 1.3, certificate trusted", address="198.51.100.9:25", took=(0.2, 0.07),
)  # fmt: skip
REFUSED = Outcome(
    kind="permanent", code=550, enhanced="5.1.1", text="no such user", host="mx.example.org", phase="RCPT",
    address="198.51.100.9:25", took=(0.0, 0.01),
)  # fmt: skip


def event(kind: str, **given: object) -> Event:
    usual = {"at": AT, "message": 48213, "entry": 1, "sender": "ann@shop.example", "recipient": "bob@example.org"}
    return Event(kind=kind, **usual | given)  # type: ignore[arg-type]


def texts(*events: Event) -> list[str]:
    return [f"{line.service}: {line.text}" for each in events for line in lines(each)]


def test_an_arrival_says_whence_it_came_and_what_it_is() -> None:
    assert texts(event("accepted", text="smtp 192.0.2.7 as ann", detail=CAME)) == [
        "smtpd: 48213: client=unknown[192.0.2.7], sasl_method=LOGIN, sasl_username=ann",
        "cleanup: 48213: message-id=<1@shop.example>",
        "qmgr: 48213: from=<ann@shop.example>, size=4127, nrcpt=2 (queue active)",
    ]
    assert texts(event("accepted", entry=2, text="smtp 192.0.2.7", detail=CAME)) == []
    assert texts(event("accepted", text="http 192.0.2.7 as shop", detail=CAME))[0] == (
        "smtpd: 48213: client=unknown[192.0.2.7], sasl_method=BEARER, sasl_username=shop"
    )
    assert texts(event("accepted", text="drop a.eml", detail=CAME))[0] == (
        "pickup: 48213: uid=0 from=<ann@shop.example> source=drop a.eml"
    )
    assert texts(event("accepted", sender="", text="bounce of 12", detail=CAME))[0] == (
        "bounce: 12: sender non-delivery notification: 48213"
    )


def test_an_attempt_says_where_how_long_and_with_what_reply() -> None:
    detail = Detail(arrived=AT - 12.3)
    assert texts(event("delivered", outcome=TAKEN, detail=detail)) == [
        (
            "smtp: 48213: to=<bob@example.org>, relay=mx.example.org[198.51.100.9]:25, delay=12, delays=0/12/0.2/0.07, "
            "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 7A1F2), tls=TLSv1.3"
        )
    ]
    (said,) = texts(event("returned", outcome=REFUSED, detail=detail))
    assert said.endswith(
        "dsn=5.1.1, status=bounced (host mx.example.org[198.51.100.9] said: 550 5.1.1 no such user "
        "(in reply to RCPT TO command))"
    )
    (said,) = texts(event("delivered", outcome=replace(TAKEN, secured="clear text"), detail=detail))
    assert said.endswith(", tls=none")
    nobody = Outcome.transient("connection refused by [198.51.100.9]:25", enhanced="4.4.1", host="mx.example.org")
    (said,) = texts(event("deferred", outcome=nobody, detail=detail))
    assert "relay=none, delay=12, delays=0/12/0/0, dsn=4.4.1, status=deferred (4.4.1 connection" in said


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.001, "0"), (0.014, "0.01"), (0.126, "0.13"), (1.26, "1.3"), (99.6, "100"), (86_400, "86400")],
)
def test_delays_have_two_digits_that_count(seconds: float, shown: str) -> None:
    (said,) = texts(event("deferred", outcome=Outcome.transient("x"), detail=Detail(arrived=AT - seconds)))
    assert f"delay={shown}," in said


def test_what_was_refused_has_the_client_and_the_reply() -> None:
    denied = Refusal(
        peer="smtp 192.0.2.66", why="relaying denied", sender="eve@x.example", recipient="<bob@example.org>",
        reply="550 5.7.1",
    )  # fmt: skip
    assert refused(denied, AT) == Line(
        AT,
        "smtpd",
        "NOQUEUE: reject: RCPT from unknown[192.0.2.66]: 550 5.7.1 <bob@example.org>: Relay access denied; "
        "from=<eve@x.example> to=<bob@example.org> proto=ESMTP",
    )
    posted = Refusal(peer="http 192.0.2.66 as shop", why="no sender of the login", detail="shop")
    assert refused(posted, AT).text.startswith(
        "NOQUEUE: reject: CONNECT from unknown[192.0.2.66]: no sender of the login"
    )
    guess = Refusal(peer="smtp 192.0.2.66", why="login failed", detail="ann")
    assert refused(guess, AT).text == (
        "warning: unknown[192.0.2.66]: SASL LOGIN authentication failed: sasl_username=ann"
    )


def test_orders_and_what_befalls_the_relay_are_told_too() -> None:
    assert texts(event("held", by="root", text="", outcome=None)) == [
        "engine: 48213.1: held to=<bob@example.org> by=root"
    ]
    assert texts(Event(at=AT, kind="marked bad", host="mx.example.org", by="root", text="their request")) == [
        "engine: marked bad host=mx.example.org by=root (their request)"
    ]


HOSTILE = "a\nNov 23 x smtp: 1: to=<x>, status=sent\x1b]0;x\x07\u202e\udcff"


def test_no_strangers_text_begins_a_line_or_steers_a_terminal() -> None:
    outcome = Outcome(kind="transient", text=HOSTILE, code=450, host=HOSTILE, phase="RCPT", address="1.2.3.4:25")
    detail = Detail(arrived=AT, message_id=HOSTILE, size=1, recipients=1)
    of_strangers = {"sender": HOSTILE, "recipient": HOSTILE, "text": f"smtp {HOSTILE}", "outcome": outcome}
    refusal = Refusal(peer=f"smtp {HOSTILE}", why=HOSTILE, detail=HOSTILE, sender=HOSTILE, recipient=HOSTILE)
    for kind in ("accepted", "deferred", "notified", "held", "unreachable"):
        told = event(kind, detail=detail, **of_strangers)
        for line in (*lines(told), refused(refusal, AT), *records.records(told), records.refused(refusal, AT)):
            assert line.text.isprintable()


def test_a_record_has_what_the_line_has() -> None:
    (line,) = records.records(event("delivered", outcome=TAKEN, detail=Detail(arrived=AT - 0.29)))
    found = json.loads(line.text)
    assert found.pop("at").startswith("2023-11-1")
    assert found == {
        "event": "delivered", "id": "48213.1", "by": "engine", "from": "ann@shop.example", "to": "bob@example.org",
        "host": "mx.example.org", "relay": "198.51.100.9:25", "code": 250, "dsn": "2.0.0",
        "reply": "Ok: queued as 7A1F2", "phase": "reply", "tls": "TLS 1.3, certificate trusted", "connecting": 0.2,
        "sending": 0.07, "delay": 0.29,
    }  # fmt: skip
    (line,) = records.records(event("accepted", sender="", text="bounce of 12", detail=CAME))
    assert json.loads(line.text)["from"] == ""


# -- writing -----------------------------------------------------------------------------------------------------------


class Taking(Sink):
    """Keeps what it is given, once it is let."""

    def __init__(self) -> None:
        self.taken: list[Line] = []
        self.may = threading.Event()
        self.fails = False

    def write(self, lines: Sequence[Line]) -> None:
        self.may.wait(30)
        if self.fails:
            raise OSError(28, "No space left on device")
        self.taken += lines

    def close(self) -> None:
        pass

    def __str__(self) -> str:
        return "a test"


@pytest.fixture
def sink() -> Iterator[Taking]:
    taking = Taking()
    yield taking
    taking.may.set()


def test_nobody_waits_for_a_log_that_is_not_taken_and_what_is_left_out_is_counted(
    sink: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.maillog.log.MOST_WAITING", 10)
    log = MailLog(sink, FakeClock())
    log.start()
    held = event("held", by="root")
    log.publish([held])
    hold_until(lambda: not log._waiting)  # the thread has it in hand, and writes
    for _ in range(15):
        log.publish([held])
    sink.may.set()
    hold_until(lambda: len(sink.taken) == 11)
    log.publish([held])
    hold_until(lambda: len(sink.taken) == 13)
    assert sink.taken[11].text == "5 lines were left out: they could not be written in time"
    log.close()


def test_what_cannot_be_written_is_told_of_and_written_later(sink: Taking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.maillog.log.RETRY_SECONDS", 0.01)
    sink.may.set()
    sink.fails = True
    log = MailLog(sink, FakeClock())
    log.start()
    log.publish([event("held", by="root")])
    hold_until(lambda: bool(log.trouble))
    assert log.trouble == "the mail log cannot be written: a test: No space left on device"
    sink.fails = False
    hold_until(lambda: len(sink.taken) == 1)
    hold_until(lambda: not log.trouble)
    log.close()


def test_all_that_was_told_is_written_when_the_engine_stops(sink: Taking) -> None:
    sink.may.set()
    log = MailLog(sink, FakeClock())
    log.publish([event("held", by="root")] * (2 * AT_ONCE + 1))
    log.start()
    log.close()
    assert len(sink.taken) == 2 * AT_ONCE + 1


LINES = (Line(AT, "smtp", "48213: to=<bob@example.org>"), Line(AT, "qmgr", "one"))


def test_a_file_has_whole_lines_and_follows_who_turns_it_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.maillog.sinks.LOOK_SECONDS", 0.0)
    path = tmp_path / "mail.log"
    file = File(path, "relay")
    file.write(LINES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.rename(tmp_path / "mail.log.1")
    file.write(LINES[:1])
    file.close()
    at = r"2023-11-1\dT\d\d:13:20\.000000[+-]\d\d:\d\d"
    pattern = rf"{at} relay smarthost/smtp\[{os.getpid()}\]: 48213: to=<bob@example.org>"
    assert re.fullmatch(pattern, path.read_text().rstrip())
    assert len((tmp_path / "mail.log.1").read_text().splitlines()) == 2


def test_a_file_of_ours_is_turned_over_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.maillog.sinks.LOOK_SECONDS", 0.0)
    path = tmp_path / "mail.log"
    file = File(path, "relay", largest=200)
    for _ in range(5):
        file.write(LINES)
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().splitlines()) == 2
    assert len((tmp_path / "mail.log.1").read_text().splitlines()) == 4


def test_a_file_that_leads_elsewhere_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "mail.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        File(tmp_path / "mail.log", "relay").write(LINES)
    assert not (tmp_path / "victim").exists()


@pytest.fixture
def place() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sh-") as folder:  # short: the path of a socket has few characters
        yield Path(folder) / "log"


def listening(place: Path) -> socket.socket:
    place.unlink(missing_ok=True)
    taking = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    taking.bind(str(place))
    taking.settimeout(10)
    return taking


def test_the_syslog_has_each_line_also_when_it_is_started_anew(place: Path) -> None:
    sink = Syslog(place)
    with listening(place) as taking:
        sink.write(LINES)
        first = taking.recv(1000).decode()
        assert re.fullmatch(
            rf"<22>Nov 1\d \d\d:13:20 smarthost/smtp\[{os.getpid()}\]: 48213: to=<bob@example.org>", first
        )
        assert b"smarthost/qmgr" in taking.recv(1000)
    with listening(place) as taking:
        sink.write(LINES[:1])
        assert b"48213" in taking.recv(1000)
    with pytest.raises(OSError, match=r"refused|No such"):
        sink.write(LINES)
    sink.close()


def test_the_journal_has_each_line_under_its_service(place: Path) -> None:
    sink = Journal(place)
    with listening(place) as taking:
        sink.write(LINES[:1])
        fields = dict(line.split("=", 1) for line in taking.recv(1000).decode().splitlines())
    assert fields == {
        "MESSAGE": "48213: to=<bob@example.org>", "PRIORITY": "6", "SYSLOG_FACILITY": "2",
        "SYSLOG_IDENTIFIER": "smarthost/smtp", "SYSLOG_PID": str(os.getpid()),
    }  # fmt: skip
    sink.close()
