"""The commands that show."""

import json
from collections.abc import Iterator
from datetime import UTC

import pytest

from console.commands import listings
from console.format import Moment
from engine.model.destination import Mark, Suspension
from tests.unit.fake_line import FakeLine, serving_line
from tests.unit.fake_relay import NOW, entry


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLine]:
    monkeypatch.setattr(listings, "here_and_now", lambda: Moment(NOW, UTC))
    with serving_line() as line:
        yield line


def test_status_says_how_the_relay_is(line: FakeLine) -> None:
    line.engine.queue.suspended = [
        Suspension(destination="*", since=NOW, until=NOW + 600, by="ann", note="upgrade"),
        Suspension(destination="example.com", since=NOW, until=NOW + 60, by="ann", note=""),
    ]
    result = line.run("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:4] == [
        "relay.example.net  suspended",
        "  suspended until 08:10, 10m left, by ann for 10m: upgrade",
        "  queue        12,480 waiting, 310 due, 288 ready, 1 held, 14 being sent",
        "  oldest       2027-01-15 05:46:00 UTC (2h14m ago)",
    ]
    assert "  destinations 2 with mail, 3 known" in result.stdout
    assert "  connections  2 of 20" in result.stdout
    assert "  next check   0:28" in result.stdout
    assert "  example.com suspended until 08:01, 1:00 left, by ann for 1m: no note" in result.stdout


def test_status_says_why_the_relay_is_sick(line: FakeLine) -> None:
    line.engine.trouble = "the disk is full"
    assert line.run("status").stdout.startswith("relay.example.net  sick: the disk is full\n")


def test_the_queue_is_listed_in_80_columns(line: FakeLine) -> None:
    result = line.run("queue", env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ID   STATE    NEXT TRY  TRIES  RECIPIENT         LAST REPLY",
        "7.1  waiting      5:00      2  bob1@example.org  450 4.2.1 mailbox busy, try ag…",
        "7.2  waiting      5:00      2  bob2@example.org  450 4.2.1 mailbox busy, try ag…",
        "8.1  held            -      2  bob1@example.org  450 4.2.1 mailbox busy, try ag…",
    ]


def test_in_a_pipe_nothing_is_cut(line: FakeLine) -> None:
    first = line.run("queue").stdout.splitlines()[1]
    assert first.endswith("450 4.2.1 mailbox busy, try again later")
    assert "ann@example.net" in first
    assert "4.0 KiB" in first


def test_a_filter_is_all_the_words_that_remain(line: FakeLine) -> None:
    result = line.run("queue", "domain=example.org", "!state=held", "--sort", "-due", "--offset", "1", "--limit", "1")
    assert result.exit_code == 0
    assert line.engine.queue.calls == [("window", "domain=example.org !state=held", "-due", 1, 1)]
    assert result.stderr == "1 of 3 shown; --limit 0 shows all\n"


def test_no_limit_lists_the_queue_page_by_page(line: FakeLine) -> None:
    line.engine.queue.entries = [entry(number) for number in range(1, 1502)]
    rows = line.rows("queue", "--limit", "0")
    assert [row["id"] for row in rows] == [f"{number}.1" for number in range(1, 1502)]
    assert [call[3:] for call in line.engine.queue.calls] == [(0, 1000), (1000, 1000)]


def test_every_list_is_one_json_object_a_line(line: FakeLine) -> None:
    assert [row["id"] for row in line.rows("queue")] == ["7.1", "7.2", "8.1"]
    assert [row["name"] for row in line.rows("destinations")] == ["example.org", "example.com"]
    assert [row["id"] for row in line.rows("relayers", "--ended", "1")] == [5, 6, 4]
    assert [row["host"] for row in line.rows("hosts")] == ["mx1.dead.example", "mx.slow.example"]
    assert [row["kind"] for row in line.rows("events")] == ["accepted", "delivered", "deferred"]
    assert [row["number"] for row in line.rows("show", "7")] == [7]
    assert [row["state"] for row in line.rows("status")] == ["relaying"]
    assert [row["relayer"]["id"] for row in line.rows("relayers", "5")] == [5]


def test_json_has_whole_fields_and_times_in_seconds(line: FakeLine) -> None:
    row = line.rows("queue")[0]
    assert (row["due"], row["size"], row["last"]["enhanced"]) == (NOW + 300, 4096, "4.2.1")


def test_destinations_say_why_nothing_goes_to_them(line: FakeLine) -> None:
    result = line.run("destinations", "org", "--sort", "name", env={"COLUMNS": "80"})
    assert line.engine.queue.calls == [("destinations", "org", "name", 0, 100)]
    assert result.stdout.splitlines() == [
        "DESTINATION  WAITING  DUE  HELD  OLDEST  OUT/S  STATE OR LAST REPLY",
        "example.org    8,120  210     0   2h14m      0  deferred, next try in 5:00: 450…",
    ]


def test_relayers_are_listed_and_one_shows_what_was_said(line: FakeLine) -> None:
    listed = line.run("relayers", "--ended", "1", env={"COLUMNS": "80"}).stdout.splitlines()
    assert listed == [
        "ID  HOST            PHASE     TIME    DONE  TLS  DESTINATION",
        " 5  mx.example.org  DATA      0.2s  12/100  1.3  example.org",
        " 6  mx.example.org  DATA      0.2s  12/100  1.3  example.com",
        " 4  mx.example.org  ended  30s ago  12/100  1.3  example.org: sent 3 of 3",
    ]
    said = line.run("relayers", "5").stdout.splitlines()
    assert said[0] == "relayer 5 to mx.example.org [192.0.2.1]:25 for example.org, 12 of 100 done, in DATA"
    assert said[1:] == ["07:59:57 < 220 mx.example.org \\x1b[2Jready", "07:59:58 > EHLO relay.example.net"]


def test_hosts_say_until_when_by_whom_and_why(line: FakeLine) -> None:
    assert line.run("hosts", env={"COLUMNS": "80"}).stdout.splitlines() == [
        "HOST              BACK IN  WAITING  BY      WHY",
        "mx1.dead.example      12m    2,204  engine  cannot be reached: connect: refused",
        "mx.slow.example       48m    2,204  oncall  maintenance",
    ]


def test_a_message_is_shown_with_all_that_happened_to_it(line: FakeLine) -> None:
    result = line.run("show", "7.2")
    assert result.exit_code == 0
    for expected in (
        "message 7",
        "  from        ann@example.net",
        "  arrived     2027-01-15 07:00:00 UTC (1h00m ago)",
        "  subject     hello \\x1b]0;title\\x07",
        "  7.2  bob2@example.org  waiting, 2 tries, next try 08:05:00 (in 5m)",
        "      450 4.2.1 mailbox busy, try again later (mx.example.org)",
        "  07:54:50  7.1  relayer 4  interrupted: the engine ended in the middle of it",
        "  Subject: hello \\x1b[31mred",
    ):
        assert expected in result.stdout.splitlines()


def test_a_message_that_has_left_says_so(line: FakeLine) -> None:
    result = line.run("show", "6")
    assert result.stdout.splitlines()[0] == "message 6, which has left the queue: delivered"
    assert "delivered" in result.stdout


def test_events_are_listed_and_narrowed(line: FakeLine) -> None:
    result = line.run("events", "--message", "7", "--match", "mx", "--limit", "5")
    assert result.exit_code == 0
    assert line.engine.queue.calls[-1] == ("events", 4, None, 7, "mx", 5)
    assert result.stdout == "07:55:00  deferred     7.1  mx.example.org  450 4.2.1 mailbox busy, try again later\n"


@pytest.mark.parametrize("words", [("queue", "to=nobody"), ("destinations", "nowhere")])
def test_what_matches_nothing_is_said_and_leaves_one(line: FakeLine, words: tuple[str, ...]) -> None:
    line.engine.queue.entries = []
    result = line.run(*words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("nothing matches: no ")


def test_an_empty_list_is_no_failure(line: FakeLine) -> None:
    line.engine.queue.entries = []
    line.engine.mx.marks = []
    for words, said in ((("queue",), "no recipient in the queue\n"), (("hosts",), "no host marked bad\n")):
        result = line.run(*words)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", said)


def test_a_wrong_filter_is_refused_with_what_is_allowed(line: FakeLine) -> None:
    result = line.run("queue", "state=lost")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "filter: state=lost: no such state",
        "allowed: state=waiting or relaying or held or due",
    ]


@pytest.mark.parametrize("id", ["x", "7.", "7.x", "-7", "7.1.2"])
def test_what_is_no_message_number_is_wrong_usage(line: FakeLine, id: str) -> None:
    assert line.run("show", "--", id).exit_code == 2


def test_a_message_that_nothing_is_known_of_leaves_one(line: FakeLine) -> None:
    result = line.run("show", "99")
    assert result.exit_code == 1
    assert "there is no message 99" in result.stderr


def test_the_reasons_are_listed_with_how_much_waits_for_them(line: FakeLine) -> None:
    result = line.run("reasons", env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "RECIPIENTS  MESSAGES  DESTINATIONS  OLDEST  REASON",
        "    12,480    12,000             2   2h14m  450 4.2.1 mailbox busy, try again later",
    ]
    assert "example.org, example.com  450 4.2.1 mailbox busy, try again later" in line.run("reasons").stdout


def test_the_reasons_are_given_to_programs_whole(line: FakeLine) -> None:
    one = json.loads(line.run("reasons", "--json").stdout)
    assert (one["group"], one["entries"], one["busiest"]) == (
        "450 4.2.1 mailbox busy, try again later",
        12_480,
        ["example.org", "example.com"],
    )
    assert one["example"]["code"] == 450


def test_no_reason_is_said_beside_the_listing(line: FakeLine) -> None:
    line.engine.queue.reasons_known = ()
    result = line.run("reasons")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no mail waits" in result.stderr


def test_status_tells_the_notes_of_the_engine(line: FakeLine) -> None:
    line.engine.notes = (
        "10,000 hosts are marked bad by the engine\x1b[2J",
        "route[0].password_file: may be read by all",
    )
    told = line.run("status").stdout.splitlines()
    assert told[-2:] == [
        "  note         10,000 hosts are marked bad by the engine\\x1b[2J",
        "  note         route[0].password_file: may be read by all",
    ]


def test_hosts_are_listed_by_page_matched_and_sorted_by_the_engine(line: FakeLine) -> None:
    line.engine.mx.marks = [
        Mark(host=f"mx{n:04}.example", since=NOW, until=NOW + 60 + n, by="oncall" if n % 2 else "engine", note="why")
        for n in range(1100)
    ]
    assert len(line.rows("hosts", "--limit", "0")) == 1100
    limited = line.run("hosts", "--limit", "3")
    assert "mx0002.example" in limited.stdout
    assert limited.stderr == "3 of 1,100 shown; --limit 0 shows all\n"
    assert [row["host"] for row in line.rows("hosts", "oncall", "--sort", "-host", "--limit", "2")] == [
        "mx1099.example",
        "mx1097.example",
    ]
    assert line.run("hosts", "nothing of the kind").exit_code == 1
    assert len(line.rows("overrides")) == 1100
