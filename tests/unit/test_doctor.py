"""What the doctor says of each thing he looks at; with network, files and clock made up."""

import asyncio
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from engine.dns.lookups import resolver_for
from engine.doctor import checkup, machine, names, senders
from engine.doctor.checkup import Surroundings
from engine.model.finding import Asked, Finding
from engine.settings.settings import Listen, QueueStore, Route, Settings, Submission

MIB = 2**20


def shown(found: Finding) -> tuple[str, str]:
    return found.result, found.text


@pytest.mark.parametrize(
    ("name", "result"),
    [("relay.example.net", "ok"), ("relay", "bad"), ("relay.local", "bad"), ("localhost.localdomain", "bad")],
)
def test_the_host_name_is_to_be_a_full_one(name: str, result: str) -> None:
    found = names.hostname(name)
    assert found.result == result
    assert bool(found.todo) == (result != "ok")


# -- SPF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("v=spf1 ip4:203.0.113.5 -all", "lets"),
        ("v=spf1 ip4:203.0.113.0/24 -all", "lets"),
        ("V=SPF1 +IP4:203.0.113.0/24 -ALL", "lets"),
        ("v=spf1 ip4:203.0.113.77/24 ~all", "lets"),
        ("v=spf1 ip6:2001:db8::/32 ip4:203.0.113.5", "lets"),
        ("v=spf1 +all", "lets"),
        ("v=spf1 all", "lets"),
        ("v=spf1 include:_spf.example.com ip4:203.0.113.5 -all", "lets"),
        ("v=spf1 ip4:198.51.100.1 -all", "refuses"),
        ("v=spf1 -all", "refuses"),
        ("v=spf1 -ip4:203.0.113.5 +all", "refuses"),
        ("v=spf1 ip4:198.51.100.1 ~all", "lets not"),
        ("v=spf1 ip4:198.51.100.1 ?all", "lets not"),
        ("v=spf1 ip4:198.51.100.1", "lets not"),
        ("v=spf1", "lets not"),
        ("v=spf1 exp=explain.example.com -all", "refuses"),
        ("v=spf1 ip4:nonsense ip4: -all", "refuses"),
        ("v=spf1 include:_spf.example.com -all", "not told"),
        ("v=spf1 a mx ~all", "not told"),
        ("v=spf1 a:relay.example.com/24 -all", "not told"),
        ("v=spf1 redirect=_spf.example.com", "not told"),
        ("v=spf1 -include:bad.example.com ip4:203.0.113.5 -all", "not told"),
        ("v=spf1 exists:%{i}.spf.example.com -all", "not told"),
        ("v=spf1 redirect=_spf.example.com -all", "not told"),
    ],
)
def test_what_an_spf_record_says_of_an_address_by_its_own_words(record: str, told: str) -> None:
    assert senders.says(record, "203.0.113.5") == told


def test_what_an_spf_record_says_of_an_address_of_ipv6() -> None:
    assert senders.says("v=spf1 ip4:0.0.0.0/0 ip6:2001:db8::/32 -all", "2001:db8::5") == "lets"
    assert senders.says("v=spf1 ip4:0.0.0.0/0 -all", "2001:db8::5") == "refuses"


# -- the machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "result"), [(True, "ok"), (False, "warn"), (None, "skipped")])
def test_the_clock_is_as_the_kernel_says(said: bool | None, result: str) -> None:
    assert machine.clock(lambda: said).result == result


def test_the_kernel_is_asked_of_its_clock_and_not_told() -> None:
    assert machine.is_synchronised() in (True, False, None)


@pytest.mark.parametrize(("apart", "result"), [(0.0, "ok"), (4.0, "ok"), (-4.0, "ok"), (60.0, "warn"), (-60.0, "warn")])
async def test_the_databases_clock_is_to_go_with_ours(apart: float, result: str) -> None:
    async def time_there() -> float:
        return 1000.0 + apart

    found = await machine.database_clock(time_there, lambda: 1000.0)
    assert found.result == result
    if apart == -60.0:
        assert found.text == "the database's clock is 60 s behind this machine's"


@pytest.mark.parametrize(
    ("kind", "is_taken", "result"), [("", False, "ok"), ("nfs4", False, "bad"), ("nfs4", True, "warn")]
)
def test_the_disk_is_to_be_one_of_this_machine(tmp_path: Path, kind: str, is_taken: bool, result: str) -> None:
    looked: list[Path] = []

    def unsafe(folder: Path) -> str:
        looked.append(folder)
        return kind

    assert machine.disk(tmp_path / "yet" / "to be made", unsafe, is_taken=is_taken).result == result
    assert looked == [tmp_path]  # the folder above it that is there


@pytest.mark.parametrize(("free", "result"), [(50, "bad"), (150, "warn"), (500, "ok")])
def test_there_is_to_be_room_for_mail(tmp_path: Path, free: int, result: str) -> None:
    found = machine.space(tmp_path / "spool", 100 * MIB, lambda _: free * MIB)
    assert shown(found) == (result, f"{free} MiB free in {tmp_path}, intake.min_free is 100 MiB")
    assert not (tmp_path / "spool").exists()


@pytest.fixture
def submission(tmp_path: Path) -> Callable[[float], Submission]:
    """What is set for submission, with a certificate that ends in so many days."""

    def make(days: float) -> Submission:
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        made = trustme.CA().issue_cert("relay.example.net", not_after=ends)
        certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return Submission(listen=(Listen("127.0.0.1", 587),), certificate=certificate, key=key)

    return make


@pytest.mark.parametrize(
    ("days", "result", "said"), [(90, "ok", "ends on "), (20, "warn", "ends on "), (-1, "bad", "ended on ")]
)
def test_a_certificate_is_told_of_before_its_end(
    submission: Callable[[float], Submission], days: float, result: str, said: str
) -> None:
    found = machine.certificate(submission(days))
    assert found.result == result
    assert said in found.text
    assert bool(found.todo) == (result != "ok")


def test_a_certificate_that_is_of_no_use_is_bad_and_none_is_needed_where_nobody_logs_in(
    submission: Callable[[float], Submission], tmp_path: Path
) -> None:
    assert machine.certificate(Submission()).result == "skipped"
    made = submission(90)
    (tmp_path / "key.pem").write_bytes(trustme.CA().issue_cert("other.example.net").private_key_pem.bytes())
    found = machine.certificate(made)
    assert found.result == "bad"
    assert "are of no use together" in found.text


def test_what_the_settings_note_is_told_but_for_what_is_looked_at_by_itself() -> None:
    assert [one.result for one in machine.files(())] == ["ok"]
    noted = machine.files(("hostname: not full", "spool: others may write", "intake.submission.key: open"))
    assert [shown(one) for one in noted] == [
        ("bad", "spool: others may write"),
        ("warn", "intake.submission.key: open"),
    ]


# -- all of it --------------------------------------------------------------------------------------------------------


async def _nobody(store: str, password: str) -> float:
    raise OSError("the database cannot be reached")


def around(**fields: Any) -> Surroundings:
    """Surroundings in which nobody answers, and all that is of this machine is well."""
    values: dict[str, Any] = {
        "resolver": resolver_for(["127.0.0.1:9"], timeout=0.2, lifetime=0.2),
        "unsafe": lambda _: "",
        "time_there": _nobody,
        "source": lambda _: "",
        "has_family": lambda _: False,
        "synchronised": lambda: True,
        "free": lambda _: 2**40,
    }
    return Surroundings(**(values | fields))


def by_name(found: tuple[Finding, ...]) -> dict[str, list[str]]:
    results: dict[str, list[str]] = {}
    for one in found:
        results.setdefault(one.name, []).append(one.result)
    return results


async def test_where_nobody_answers_all_is_told_all_the_same_and_nothing_is_made(tmp_path: Path) -> None:
    settings = Settings(hostname="relay.example.net", spool=tmp_path / "spool")
    found = await checkup.checkup(settings, Asked(addresses=("203.0.113.5",), domains=("shop.example",)), around())
    assert by_name(found) == {
        "hostname": ["ok"],
        "address": ["warn"],
        "PTR": ["warn"],
        "resolver": ["bad"],
        "DNSSEC": ["skipped"],
        "port 25": ["bad"],
        "SPF": ["warn"],
        "clock": ["ok"],
        "disk": ["ok"],
        "space": ["ok"],
        "certificate": ["skipped"],
        "settings": ["warn"],  # nobody is the postmaster
    }
    assert list(tmp_path.iterdir()) == []


async def test_an_address_that_is_not_of_the_internet_says_nothing_of_how_others_see_us(tmp_path: Path) -> None:
    settings = Settings(hostname="relay.example.net", spool=tmp_path)
    inside = around(source=lambda family: "10.0.0.5" if family == "IPv4" else "2a00::5")
    found = await checkup.checkup(settings, Asked(), inside)
    assert sorted(by_name(found)["PTR"]) == ["skipped", "warn"]
    (skipped,) = [one for one in found if one.name == "PTR" and one.result == "skipped"]
    assert "10.0.0.5" in skipped.text
    assert "--address" in skipped.text


async def test_with_a_route_for_all_mail_the_upstream_host_is_what_counts(tmp_path: Path) -> None:
    route = Route(domain="*", host="127.0.0.1", port=9)
    settings = Settings(hostname="relay.example.net", spool=tmp_path, route=(route,))
    found = await checkup.checkup(settings, Asked(), around(source=lambda _: "203.0.113.5"))
    results = by_name(found)
    assert "port 25" not in results
    assert results["address"] == results["PTR"] == ["skipped"]
    assert results["upstream"] == ["bad"]
    (upstream,) = [one for one in found if one.name == "upstream"]
    assert upstream.text.startswith("127.0.0.1:9: ")
    assert '[[route]] "*"' in upstream.todo
    named = await checkup.checkup(settings, Asked(addresses=("203.0.113.5",)), around())
    assert by_name(named)["address"] == by_name(named)["PTR"] == ["warn"]  # whoever asks of one is told


async def test_of_very_many_hosts_of_routes_some_are_tried(tmp_path: Path) -> None:
    hosts = tuple(f"127.0.0.{number}" for number in range(1, checkup.MOST_UPSTREAM + 4))
    settings = Settings(hostname="relay", spool=tmp_path, route=(Route(domain="*", host=hosts, port=9),))
    found = by_name(await checkup.checkup(settings, Asked(), around()))
    assert found["upstream"] == ["bad"] * checkup.MOST_UPSTREAM + ["skipped"]
    assert found["address"] == ["skipped"]


async def test_a_password_that_cannot_be_read_is_told_and_nobody_is_dialled(tmp_path: Path) -> None:
    route = Route(
        domain="*", host="127.0.0.1", port=9, tls="required", username="relay", password_file=tmp_path / "none"
    )
    settings = Settings(hostname="relay.example.net", spool=tmp_path, route=(route,))
    (found,) = [one for one in await checkup.checkup(settings, Asked(), around()) if one.name == "upstream"]
    assert found.result == "bad"
    assert f"{tmp_path / 'none'} cannot be read" in found.text


async def test_the_queue_in_a_database_is_asked_for_the_time(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    asked: list[tuple[str, str]] = []

    async def there(store: str, password: str) -> float:
        asked.append((store, password))
        return time.time()

    store = QueueStore(store="postgresql://relay@db/relay", password_file=secret)
    settings = Settings(hostname="relay.example.net", spool=tmp_path, queue=store)
    found = by_name(await checkup.checkup(settings, Asked(), around(time_there=there)))
    assert (found["database"], asked) == (["ok"], [("postgresql://relay@db/relay", "s3cret")])
    assert "disk" not in found  # what is there now may be lost
    (bad,) = [one for one in await checkup.checkup(settings, Asked(), around()) if one.name == "database"]
    assert shown(bad) == ("bad", "the database cannot be reached")


async def test_a_fault_in_one_check_and_one_that_hangs_end_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "SECONDS", 0.2)
    ends = asyncio.Event()
    settings = Settings(hostname="relay.example.net", spool=tmp_path)

    def broken() -> bool | None:
        raise ValueError("odd")

    def hangs(_: Path) -> int:
        while not ends.is_set():
            time.sleep(0.01)
        return 0

    try:
        found = await checkup.checkup(settings, Asked(), around(synchronised=broken, free=hangs))
    finally:
        ends.set()
    told = {one.name: shown(one) for one in found}
    assert told["clock"] == ("warn", "a fault in the check: ValueError: odd")
    assert told["space"] == ("bad", "not done within 0 s")
    assert told["disk"][0] == "ok"
