"""The commands for mail to come and for connections, and what they ask of the control socket."""

import getpass
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from console import words
from console.commands import listings
from console.format import Moment
from engine.control.client import Refused
from engine.model.destination import Suspension
from engine.model.probe import ProbedAddress
from tests.unit.fake_line import FakeLine, serving_line
from tests.unit.fake_relay import NOW, FakeEngine, short_folder

ME = getpass.getuser()


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLine]:
    monkeypatch.setattr(listings, "here_and_now", lambda: Moment(NOW, UTC))
    with serving_line() as line:
        yield line


def test_explain_says_the_cause_first_then_when_then_the_facts(line: FakeLine) -> None:
    result = line.run("explain", "7.1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "7.1  bob1@example.org: not due",
        "  it is not due for another 5m; the last try: 450 4.2.1 \\x1b[31mbusy",
        "  earliest    2027-01-15 08:05:00 UTC (in 5m)",
        "  route       to its mail exchanges",
        "  host mx.example.org 192.0.2.1; TLS opportunistic",
    ]


@pytest.mark.parametrize("subject", ["bob@example.net", "example.net", "o/dd@example.net", "a%2fb@example.net"])
def test_explain_takes_addresses_and_domains_however_they_are_written(line: FakeLine, subject: str) -> None:
    (row,) = line.rows("explain", subject)
    assert row["explanations"][0]["subject"] == subject
    assert row["explanations"][0]["cause"] == "not due"


def test_explain_of_what_is_not_there_leaves_one(line: FakeLine) -> None:
    result = line.run("explain", "99")
    assert result.exit_code == 1
    assert "there is no message 99" in result.stderr


def test_probe_tells_what_came_back_and_nothing_that_steers_a_terminal(line: FakeLine) -> None:
    result = line.run("probe", "mx.example.org:2525")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:3] == [
        "mx.example.org, port 2525: 1 of 1 addresses answered as they should",
        "",
        "192.0.2.1  ok  (0.1s)",
    ]
    assert "\x1b" not in result.stdout
    assert line.engine.queue.calls == [("record", "probed", ME)]


@pytest.mark.parametrize(
    ("phase", "tls", "trouble", "said"),
    [
        ("connecting", "", "connect: connection refused", {"trouble": "connect: connection refused"}),
        ("connecting", "", "not done within 60 s", {"trouble": "not done within 60 s, at connecting"}),
        ("greeting", "", "no greeting within 10s", {"trouble": "no greeting within 10s, at greeting"}),
        ("TLS", "", "TLS handshake failed", {"trouble": "TLS handshake failed, at TLS"}),
        ("QUIT", "", "", {"TLS": "none"}),
        ("QUIT", "TLSv1.3", "", {"TLS": "1.3"}),
        ("QUIT", "TLSv1", "", {"TLS": "1.0"}),
    ],
)
def test_a_probe_tells_of_tls_as_lists_do_and_only_where_it_came_to_that(
    phase: str, tls: str, trouble: str, said: dict[str, str]
) -> None:
    one = ProbedAddress(address="192.0.2.1", port=25, phase=phase, seconds=0.1, tls=tls, trouble=trouble)
    assert {fact.name: fact.text for fact in words.probed(one, Moment(NOW, UTC))} == said


def test_a_hold_rule_is_made_listed_and_released(line: FakeLine) -> None:
    made = line.run("hold-rule", "from=x@y.example", "domain=example.org", "--for", "2h", "--note", "runaway")
    assert made.exit_code == 0, made.output
    assert made.stdout == (
        "hold rule 1: from=x@y.example domain=example.org is held when it comes in, for 2h; it holds 3 recipients now\n"
    )
    listed = line.run("overrides").stdout.splitlines()
    assert listed[0].split() == ["ENDS", "IN", "KIND", "WHAT", "DOES", "BY", "NOTE"]
    (shown,) = [row for row in listed if "hold rule 1" in row]
    assert shown.split()[-2:] == [ME, "runaway"]
    assert line.run("release-rule", "1").stdout == "hold rule 1 has ended; 3 recipients that it held go on\n"
    assert line.run("release-rule", "1").exit_code == 1


@pytest.mark.parametrize("rule", ["state=held", "!from=x@y.example", "colour=red"])
def test_a_rule_that_cannot_be_one_is_refused_with_what_is_allowed(line: FakeLine, rule: str) -> None:
    result = line.run("hold-rule", rule)
    assert result.exit_code == 1
    assert "allowed: " in result.stderr


def test_an_override_is_made_and_ended(line: FakeLine) -> None:
    made = line.run("override", "Example.ORG", "spare.example:2525", "--for", "90m", "--note", "their MX is wrong")
    assert made.stdout == (
        "mail for example.org goes to spare.example:2525 for 1h30m; 8,120 recipients that wait are due now\n"
    )
    (row,) = [row for row in line.rows("overrides") if row["kind"] == "override"]
    assert (row["name"], row["what"], row["by"], row["note"], row["until"]) == (
        "example.org", "goes to spare.example:2525", ME, "their MX is wrong", NOW + 5400,
    )  # fmt: skip
    ended = line.run("end-override", "example.org")
    assert ended.stdout == "mail for example.org goes its own way again, no longer to spare.example:2525\n"
    assert line.run("end-override", "example.org").exit_code == 1


def test_one_list_has_all_that_stands_the_first_to_end_first(line: FakeLine) -> None:
    line.engine.queue.suspended = [Suspension(destination="*", since=NOW, until=NOW + 60, by="ann", note="storm")]
    line.run("override", "example.org", "spare.example")
    rows = line.rows("overrides")
    assert [(row["kind"], row["name"], row["by"]) for row in rows] == [
        ("suspension", "*", "ann"),
        ("host mark", "mx1.dead.example", "engine"),
        ("host mark", "mx.slow.example", "oncall"),
        ("override", "example.org", ME),
    ]
    assert "the whole relay" in line.run("overrides").stdout


@pytest.mark.parametrize("lasting", ["1s", "31d", "soon"])
def test_how_long_is_bounded(line: FakeLine, lasting: str) -> None:
    assert line.run("override", "example.org", "spare.example", "--for", lasting).exit_code in (1, 2)
    assert line.run("hold-rule", "from=x@y.example", "--for", lasting).exit_code in (1, 2)
    assert line.engine.queue.overridden == []
    assert line.engine.queue.rules_kept == []


def test_a_connection_is_closed(line: FakeLine) -> None:
    result = line.run("close", "5")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"relayer 5 to mx.example.org is closed: closed by {ME}, after 12 messages")
    assert line.engine.queue.calls == [("record", "closed", ME)]
    assert "has ended already" in line.run("close", "4").stderr
    assert line.run("close", "77").exit_code == 1


async def test_a_subject_too_long_or_empty_is_refused() -> None:
    with short_folder() as folder:
        async with FakeEngine(Path(folder)).serving() as client:
            for subject in ("x" * 401, " "):
                with pytest.raises(Refused) as refused:
                    await client.explain(subject)
                assert "48213" in refused.value.refusal.allowed
