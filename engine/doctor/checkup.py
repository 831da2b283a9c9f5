"""All checks of the doctor, side by side, each bounded in time; what fails in one is no other's matter.

Nothing is started, made or changed by them, and whether an engine runs makes no difference. To add one: a small
function beside those of its kind, which gives a Finding and has all it needs passed in; and a line in `_checks`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import uvloop
from dns.asyncresolver import Resolver
from msgspec import Struct
from msgspec.structs import replace

from engine.base.clock import Clock, SystemClock
from engine.base.lookout import Lookout
from engine.base.permission import why_not
from engine.base.text import clean
from engine.delivery.routes import Router
from engine.dns.lookups import Lookups, resolver_for
from engine.dns.mx import MXCalculator
from engine.doctor import machine, name_servers, names, senders, ways_out
from engine.login.login import Login
from engine.login.logins import logins
from engine.model.destination import Mark
from engine.model.finding import Asked, Finding
from engine.model.order import Touched
from engine.queue.contract import Marks
from engine.settings.ourselves import Ourselves, address_in, listening_by
from engine.settings.settings import Route, Settings
from engine.smtpclient import blame
from engine.smtpclient.dialler import Dialler, TcpDialler
from engine.tls.policy import TlsPolicy
from engine.tls.tlsa import TlsaLookup

SECONDS = 50.0  # that any check may take
DNS_TIMEOUT = 3.0  # seconds for one question to one name server
DNS_LIFETIME = 8.0  # seconds for an answer, whoever gives it
MOST_SOURCES = 8  # addresses that connections go out from
MOST_UPSTREAM = 20  # hosts of routes

T = TypeVar("T")

Check = Callable[[], Awaitable[Finding | list[Finding]]]
Named = tuple[str, Check]


class Surroundings(Struct, frozen=True, kw_only=True):
    """What the doctor looks with: the network, the file system and the clock, which tests stand in for.

    `unsafe` says of a folder on which kind of file system it is, where the queue is not safe there; `time_there` what
    time it is in the database, by its address and password. `source` gives the address that connections go out from
    over a family of addresses.
    """

    resolver: Resolver
    unsafe: Callable[[Path], str]
    time_there: Callable[[str, str], Awaitable[float]]
    dialler: Dialler = TcpDialler()
    clock: Clock = SystemClock()
    source: Callable[[str], str] = blame.source
    has_family: Callable[[str], bool] = blame.has_family
    synchronised: Callable[[], bool | None] = machine.is_synchronised
    free: Callable[[Path], int] = machine.free_in
    signed: str = name_servers.SIGNED
    bogus: str = name_servers.BOGUS


def examine(
    settings: Settings,
    asked: Asked,
    *,
    unsafe: Callable[[Path], str],
    time_there: Callable[[str, str], Awaitable[float]],
) -> tuple[Finding, ...]:
    """Look at everything, from this machine as it is. Takes about a minute at the most."""
    found = resolver_for(
        [str(each) for each in settings.dns.nameservers],
        timeout=DNS_TIMEOUT,
        lifetime=DNS_LIFETIME,
        validating=settings.dns.validating,
    )
    return uvloop.run(checkup(settings, asked, Surroundings(resolver=found, unsafe=unsafe, time_there=time_there)))


async def checkup(settings: Settings, asked: Asked, around: Surroundings) -> tuple[Finding, ...]:
    """The same, in whatever surroundings. What is found stands in the order of the checks."""
    found = await asyncio.gather(*(_bounded(*named) for named in _checks(settings, asked, around)))
    return tuple(one for several in found for one in several)


def _checks(settings: Settings, asked: Asked, around: Surroundings) -> Iterator[Named]:
    """Each check with its name, in the order in which they are told."""
    lookups = Lookups(around.resolver)
    mx = MXCalculator(around.resolver, clock=around.clock, marks=_NoMarks(), own_names=(settings.hostname,))
    yield "hostname", _at_once(names.hostname(settings.hostname))
    yield _of_our_name(settings, asked, mx)
    yield from _of_sources(settings, asked, around, mx, lookups)
    yield from _of_name_servers(settings, around, lookups)
    yield from _of_ways_out(settings, asked, around, mx)
    yield from _of_senders(settings, asked, around, lookups)
    yield "clock", _in_a_thread(partial(machine.clock, around.synchronised))
    if settings.queue.store:
        yield "database", partial(_database, settings, around)
    else:
        taken = settings.spool_on_any_file_system
        yield "disk", _in_a_thread(partial(machine.disk, settings.spool, around.unsafe, is_taken=taken))
    yield "space", _in_a_thread(partial(machine.space, settings.spool, settings.intake.min_free, around.free))
    yield "certificate", _in_a_thread(partial(machine.certificate, settings.intake.submission, around.clock.now))
    yield "settings", _in_a_thread(lambda: machine.files(settings.notes))


def _of_our_name(settings: Settings, asked: Asked, mx: MXCalculator) -> Named:
    """A check whether our name has an address, where it is for us to have one."""
    smarthost = _smarthost(settings)
    if smarthost is not None and not asked.addresses:
        return _skipped("address", f"mail goes out through {smarthost.hosts[0]}, whose name counts, not ours")
    return "address", partial(names.address, settings.hostname, mx)


def _of_sources(
    settings: Settings, asked: Asked, around: Surroundings, mx: MXCalculator, lookups: Lookups
) -> Iterator[Named]:
    """A check for each address that connections go out from, as far as that is known."""
    smarthost = _smarthost(settings)
    for address in _sources(settings, asked, around):
        yield "PTR", partial(names.back, settings.hostname, address, mx, lookups)
    if asked.addresses:
        return
    if smarthost is not None:
        yield _skipped("PTR", f"mail goes out through {smarthost.hosts[0]}, whose address counts, not ours")
        return
    for address in map(around.source, ways_out.FAMILIES):
        if address and not _is_outside(address):
            yield _skipped("PTR", f"{address} is no address of the internet; give the one others see: --address")


def _sources(settings: Settings, asked: Asked, around: Surroundings) -> list[str]:
    """The addresses that mail comes from, as others see them: those given, else what this machine knows of itself."""
    if asked.addresses or _smarthost(settings) is not None:
        return list(asked.addresses[:MOST_SOURCES])
    return [address for address in map(around.source, ways_out.FAMILIES) if address and _is_outside(address)]


def _is_outside(address: str) -> bool:
    found = address_in(address)
    return found is not None and found.is_global


def _of_name_servers(settings: Settings, around: Surroundings, lookups: Lookups) -> Iterator[Named]:
    yield "resolver", partial(name_servers.answers, lookups, around.signed)
    if settings.dns.validating:
        yield "DNSSEC", partial(name_servers.validates, lookups, signed=around.signed, bogus=around.bogus)
    else:
        yield _skipped("DNSSEC", "dns.validating is false, so there is no DANE")


def _of_ways_out(settings: Settings, asked: Asked, around: Surroundings, mx: MXCalculator) -> Iterator[Named]:
    port = settings.delivery.port
    if _smarthost(settings) is None:
        look = partial(ways_out.port_25, asked.probes, mx, around.dialler, around.clock)
        yield f"port {port}", partial(look, port=port, has_family=around.has_family)
    hosts = [(route, host) for route in settings.route for host in route.hosts]
    for route, host in hosts[:MOST_UPSTREAM]:
        yield "upstream", partial(_upstream, route, host, settings, around, mx)
    if len(hosts) > MOST_UPSTREAM:
        yield _skipped("upstream", f"{len(hosts) - MOST_UPSTREAM} more hosts of routes")


def _of_senders(settings: Settings, asked: Asked, around: Surroundings, lookups: Lookups) -> Iterator[Named]:
    """What the DNS of senders' domains says. DKIM of each has its place here: `senders.dkim`, beside SPF."""
    domains = list(dict.fromkeys(asked.domains))[: senders.MOST_DOMAINS]
    if not domains:
        yield _skipped("SPF", "no senders were seen; name their domains: --domain")
    for domain in domains:
        yield "SPF", partial(senders.spf, domain, _sources(settings, asked, around), lookups)


def _smarthost(settings: Settings) -> Route | None:
    """The route that all other mail has, where there is one."""
    return next((route for route in settings.route if route.domain == "*"), None)


# -- an upstream host -------------------------------------------------------------------------------------------------


async def _upstream(route: Route, host: str, settings: Settings, around: Surroundings, mx: MXCalculator) -> Finding:
    lookups, where = Lookups(around.resolver), f"{host}:{route.port}"
    try:
        login = await _aside(partial(_login, route, settings, around.clock, lookups))
    except _Unreadable as error:
        return Finding(name="upstream", result="bad", text=f"{where}: {error}", todo="let the relay's user read it")
    except _NotOurs as error:
        return Finding(name="upstream", result="skipped", text=f"{where}: {error}")
    tlsa = TlsaLookup(lookups) if settings.tls.dane is not False and settings.dns.validating else None
    delivery = settings.delivery
    ourselves = Ourselves(
        names=(settings.hostname,),
        listening=lambda: listening_by(settings),
        loopback_exchanges=delivery.loopback_exchanges,
    )
    router = Router(
        mx,
        delivery=delivery,
        clock=around.clock,
        tls=TlsPolicy(settings.tls, around.clock, tlsa=tlsa),
        ourselves=ourselves,
        routes=(route,),
        logins=login,
    )
    return await ways_out.upstream(route, host, router, around.dialler, around.clock, hostname=settings.hostname)


class _Unreadable(Exception):
    """A file that holds a secret cannot be read; the text says why."""


class _NotOurs(Exception):
    """What may come of logging in could not be kept for the relay; the text says why."""


def _login(route: Route, settings: Settings, clock: Clock, lookups: Lookups) -> dict[str, Login]:
    """The login of a route, if it has one. Raises _Unreadable, _NotOurs."""
    may_be_used_up = route.oauth is not None and route.oauth.refresh_token_file is not None
    # The endpoint may give another refresh token, with which the one before is over: the relay must find it.
    if may_be_used_up and not machine.is_ours(settings.spool):
        raise _NotOurs("its refresh token may be used up by this: do it as the spool's user, once there is a spool")
    return logins(replace(settings, route=(route,)), lookups, clock, _password)


def _password(_: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = why_not(error, file, "read") if isinstance(error, OSError) else f"{file} is not UTF-8"
        raise _Unreadable(why) from error


async def _database(settings: Settings, around: Surroundings) -> Finding:
    store = settings.queue
    todo = "see queue.store and queue.password_file, and whether the database runs"
    try:
        password = "" if store.password_file is None else await _aside(partial(_password, "", store.password_file))
        return await machine.database_clock(lambda: around.time_there(store.store, password), around.clock.now)
    except TimeoutError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever its driver raises, it says why
        text = clean(str(error), 300) or type(error).__name__
        return Finding(name="database", result="bad", text=text, todo=todo)


# -- how checks are run -----------------------------------------------------------------------------------------------


def _at_once(found: Finding) -> Check:
    async def check() -> Finding:
        return found

    return check


def _skipped(name: str, why: str) -> Named:
    return name, _at_once(Finding(name=name, result="skipped", text=why))


def _in_a_thread(look: Callable[[], Finding | list[Finding]]) -> Check:
    """A check that asks the file system."""

    async def check() -> Finding | list[Finding]:
        return await _aside(look)

    return check


async def _aside(look: Callable[[], T]) -> T:
    """What `look` finds in the file system, which may hang: that holds up neither others nor the end of the process."""
    lookout = Lookout[tuple[T, ...]](lambda: (look(),), (), "check")
    await lookout.again(SECONDS)
    if not lookout.seen:
        raise TimeoutError
    return lookout.seen[0]


async def _bounded(name: str, check: Check) -> list[Finding]:
    """What a check finds, within its time; a fault in it is said, and ends no other."""
    try:
        async with asyncio.timeout(SECONDS):
            found = await check()
    except TimeoutError:
        return [Finding(name=name, result="bad", text=f"not done within {SECONDS:.0f} s")]
    except Exception as error:  # noqa: BLE001 - it is told
        text = f"a fault in the check: {type(error).__name__}: {clean(str(error), 200)}"
        return [Finding(name=name, result="warn", text=text)]
    return found if isinstance(found, list) else [found]


class _NoMarks(Marks):
    """Where no host is marked."""

    async def all(self) -> tuple[Mark, ...]:
        return ()

    async def save(self, mark: Mark) -> None: ...

    async def remove(self, host: str, by: str, touched: Touched | None = None) -> int:  # noqa: ARG002
        return 0

    async def forget(self, hosts: Sequence[str]) -> None: ...

    async def take_back(self, marks: Sequence[Mark], note: str) -> None: ...
