"""The command `doctor`: what it asks, what it says in how many columns, and the status it leaves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.cli import app
from console.commands.doctor import lines
from engine.model.event import Event
from engine.model.finding import Asked, Finding
from engine.settings.settings import Settings
from tests.unit.fake_line import FakeLine, serving_line
from tests.unit.fake_relay import NOW, short_folder

WELL = Finding(name="hostname", result="ok", text="relay.example.net is a full name")
ILL = Finding(
    name="PTR",
    result="bad",
    text="203.0.113.5 has no name",
    todo=(
        "have whoever gave it to you name it relay.example.net: many hosts take no mail from an address without a name"
    ),
)
NOT = Finding(name="DNSSEC", result="skipped", text="dns.validating is false, so there is no DANE")


class Examined:
    """What the doctor is asked, and what he finds."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.settings: list[Settings] = []
        self.found: tuple[Finding, ...] = (WELL, NOT)

    def __call__(self, settings: Settings, asked: Asked, **_: Any) -> tuple[Finding, ...]:
        self.asked.append(asked)
        self.settings.append(settings)
        return self.found


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Examined:
    examined = Examined()
    monkeypatch.setattr("engine.doctor.checkup.examine", examined)
    return examined


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder in which nothing is, and no settings of anybody's anywhere."""
    monkeypatch.delenv("SMARTHOST_CONFIG", raising=False)
    with short_folder() as name:
        monkeypatch.setenv("XDG_CONFIG_HOME", name)
        monkeypatch.setenv("XDG_STATE_HOME", name)
        yield Path(name)


@pytest.fixture
def line() -> Iterator[FakeLine]:
    with serving_line() as line:
        yield line


def test_before_the_first_start_it_goes_by_the_settings_and_makes_no_spool(folder: Path, examined: Examined) -> None:
    spool = folder / "spool"
    result = CliRunner().invoke(app, ["doctor", "--spool", str(spool)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"skipped  engine    none runs in {spool}: by the settings alone",
        "ok       hostname  relay.example.net is a full name",
        "skipped  DNSSEC    dns.validating is false, so there is no DANE",
        "1 ok, 2 skipped",
    ]
    assert examined.asked == [Asked()]
    assert examined.settings[0].spool == spool
    assert not spool.exists()


def test_what_is_bad_leaves_one_and_in_a_pipe_each_is_a_line(folder: Path, examined: Examined) -> None:
    examined.found = (WELL, ILL)
    result = CliRunner().invoke(app, ["doctor", "--spool", str(folder)])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[2] == f"bad      PTR       {ILL.text}; {ILL.todo}"


def test_a_warning_leaves_zero(folder: Path, examined: Examined) -> None:
    examined.found = (Finding(name="clock", result="warn", text="nobody keeps it right"),)
    assert CliRunner().invoke(app, ["doctor", "--spool", str(folder)]).exit_code == 0


def test_it_fits_80_columns_aligned() -> None:
    shown = list(lines((WELL, ILL, NOT), 80))
    assert shown == [
        "ok       hostname  relay.example.net is a full name",
        "bad      PTR       203.0.113.5 has no name; have whoever gave it to you name it",
        "                   relay.example.net: many hosts take no mail from an address",
        "                   without a name",
        "skipped  DNSSEC    dns.validating is false, so there is no DANE",
        "1 bad, 1 ok, 1 skipped",
    ]
    long = Finding(name="upstream", result="bad", text="x" * 500)
    assert max(map(len, lines((long,), 80))) == 80


def test_it_is_told_as_json_one_object_a_line(folder: Path, examined: Examined) -> None:
    examined.found = (ILL,)
    result = CliRunner().invoke(app, ["doctor", "--json", "--spool", str(folder)])
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert told[1] == {"name": "PTR", "result": "bad", "text": ILL.text, "todo": ILL.todo}
    assert [one["name"] for one in told] == ["engine", "PTR"]


def test_what_is_given_is_asked(folder: Path, examined: Examined) -> None:
    addresses = ["--address", "203.0.113.5", "--address", "2001:DB8::5"]
    names = ["--domain", "Shop.Example", "--probe", "bücher.example"]
    assert CliRunner().invoke(app, ["doctor", *addresses, *names, "--spool", str(folder)]).exit_code == 0
    assert examined.asked == [
        Asked(addresses=("203.0.113.5", "2001:db8::5"), domains=("shop.example",), probes=("xn--bcher-kva.example",))
    ]


@pytest.mark.parametrize(
    "given", [["--address", "relay.example.net"], ["--domain", "not a domain"], ["--probe", "a..b"]]
)
def test_what_is_given_wrong_is_refused(folder: Path, examined: Examined, given: list[str]) -> None:
    result = CliRunner().invoke(app, ["doctor", *given, "--spool", str(folder)])
    assert result.exit_code == 2
    assert examined.asked == []


def test_wrong_settings_are_told_and_nothing_is_looked_at(folder: Path) -> None:
    settings = folder / "wrong.toml"
    settings.write_text("[delivery]\nport = 99999\n")
    result = CliRunner().invoke(app, ["--config", str(settings), "doctor"])
    assert result.exit_code == 2
    assert "delivery.port" in result.stderr


def test_of_an_engine_that_runs_it_tells_how_it_is_and_asks_of_the_senders_seen(
    line: FakeLine, examined: Examined
) -> None:
    line.engine.queue.happened.extend(
        Event(seq=10 + number, at=NOW, kind="accepted", message=20 + number, sender=sender)
        for number, sender in enumerate(("a@shop.example", "b@other.example", "", "c@[192.0.2.1]", "d@shop.example"))
    )
    result = line.run("doctor")
    assert result.exit_code == 0
    assert result.stdout.startswith("ok       engine    relaying for ")
    (asked,) = examined.asked
    assert asked.domains[:2] == ("shop.example", "other.example")
    assert "" not in asked.domains
    assert not any(domain.startswith("[") for domain in asked.domains)


def test_domains_that_are_named_stand_in_place_of_those_seen(line: FakeLine, examined: Examined) -> None:
    line.run("doctor", "--domain", "named.example")
    assert examined.asked[0].domains == ("named.example",)


def test_the_trouble_of_an_engine_is_bad(line: FakeLine, examined: Examined) -> None:
    line.engine.trouble = "the disk is full"
    result = line.run("doctor")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == "bad      engine    the disk is full"
