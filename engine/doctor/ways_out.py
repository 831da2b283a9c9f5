"""The ways out: whether port 25 is open to the internet, or each upstream host takes us and our login. No mail is sent.

A conversation ends with QUIT before anything is said of mail.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.base.clock import Clock
from engine.delivery.remedy import named, remedy
from engine.delivery.routes import Router
from engine.dns.lookups import MXError
from engine.dns.mx import Exchange, MXCalculator
from engine.model.finding import Finding
from engine.model.outcome import Outcome
from engine.settings.settings import Route, Timeouts
from engine.smtpclient.blame import family_of
from engine.smtpclient.dialler import Dialler
from engine.smtpclient.failures import SessionError
from engine.smtpclient.session import Session
from engine.smtpclient.transcript import Transcript
from engine.smtpclient.wire import Wire, WireError

WELL_KNOWN = ("gmail.com", "outlook.com", "icloud.com")  # domains whose exchanges are always there
MOST_PROBES = 5  # domains
MOST_ADDRESSES = 4  # tried of one upstream host
CONNECT_SECONDS = 10.0
STEP_SECONDS = 10.0  # for a peer's answer
QUICK = Timeouts(
    connect=CONNECT_SECONDS, greeting=STEP_SECONDS, hello=STEP_SECONDS, tls=STEP_SECONDS, quit=3.0, attempt=40.0
)
FAMILIES = ("IPv4", "IPv6")


class _Met(Struct, frozen=True):
    """What came of one connection: `is_open`, somebody took it; `refusal` is a greeting that sends us away."""

    family: str
    host: str
    is_open: bool
    why: str = ""
    refusal: str = ""


async def port_25(
    probes: Sequence[str],
    mx: MXCalculator,
    dialler: Dialler,
    clock: Clock,
    *,
    port: int,
    has_family: Callable[[str], bool],
) -> Finding:
    """Whether connections at the port for mail get out, over each family of addresses that this machine has."""
    name = f"port {port}"
    families = [family for family in FAMILIES if has_family(family)]
    if not families:
        todo = "look at its network: neither IPv4 nor IPv6 has a route"
        return Finding(name=name, result="bad", text="this machine knows no way to the internet", todo=todo)
    asked = list(dict.fromkeys(probes or WELL_KNOWN))[:MOST_PROBES]
    found = await asyncio.gather(*(_exchange(domain, mx) for domain in asked))
    # One address of each family of each domain's best exchange.
    targets = {
        (family_of(address), host): address
        for host, addresses in found
        for address in reversed(addresses)
        if family_of(address) in families
    }
    if not targets:
        return Finding(name=name, result="skipped", text=f"the DNS gives no exchange of {', '.join(asked)}")
    met = await asyncio.gather(
        *(_meet(family, host, address, port, dialler, clock) for (family, host), address in targets.items())
    )
    return _judged(name, met)


def _judged(name: str, met: Sequence[_Met]) -> Finding:
    by_family: dict[str, list[_Met]] = defaultdict(list)
    for one in met:
        by_family[one.family].append(one)
    is_open = [family for family, all_met in by_family.items() if any(one.is_open for one in all_met)]
    shut = [family for family in by_family if family not in is_open]
    if not is_open:
        text = f"nobody answers at {name}: {met[0].host}: {met[0].why}"
        todo = 'have your provider or firewall open it, or send through a provider at port 587 ([[route]] domain = "*")'
        return Finding(name=name, result="bad", text=text, todo=todo)
    if shut:
        text = f"open over {is_open[0]}; over {shut[0]} nobody answers"
        todo = f"have it opened, or take {shut[0]} from this machine: each attempt there costs time"
        return Finding(name=name, result="warn", text=text, todo=todo)
    refused = [one for one in met if one.refusal]
    if refused:
        text = f"open, but {refused[0].host} greets with {refused[0].refusal}"
        return Finding(name=name, result="warn", text=text, todo="see what it says of the address that you send from")
    hosts = ", ".join(dict.fromkeys(one.host for one in met if one.is_open))
    return Finding(name=name, result="ok", text=f"open over {' and '.join(is_open)}, to {hosts}")


async def _exchange(domain: str, mx: MXCalculator) -> tuple[str, list[str]]:
    """The best exchange of a domain, and its addresses; none where the DNS has none."""
    try:
        best = (await mx.candidates(domain))[0].host
        return best, await mx.addresses(best)
    except MXError:
        return domain, []


async def _meet(family: str, host: str, address: str, port: int, dialler: Dialler, clock: Clock) -> _Met:
    wire = Wire(Transcript(clock))
    try:
        sock = await dialler.dial(address, port, CONNECT_SECONDS)
    except TimeoutError:
        return _Met(family, host, False, f"no connection within {CONNECT_SECONDS:.0f} s")
    except OSError as error:
        return _Met(family, host, False, (error.strerror or str(error)).lower())
    try:
        await wire.open(sock, STEP_SECONDS)
        greeting = await wire.greeting(STEP_SECONDS)
        refusal = "" if greeting.code == 220 else Outcome.of_reply(greeting.code, greeting.text).line
        if wire.is_open:
            await wire.command(b"QUIT", timeout=QUICK.quit)
    except WireError:
        refusal = ""  # it took the connection: the way is open
    finally:
        wire.close()
    return _Met(family, host, True, refusal=refusal)


async def upstream(
    route: Route, host: str, router: Router, dialler: Dialler, clock: Clock, *, hostname: str
) -> Finding:
    """Whether an upstream host of a route can be had as the route says: connected to, with TLS, and logged in."""
    name, where = "upstream", f"{host}:{route.port}"
    exchange = Exchange(host=host, preference=0)
    try:
        way = await router.way(route.domain)
        targets = [target async for target in router.targets(way, exchange)][:MOST_ADDRESSES]
    except MXError as error:
        return Finding(name=name, result="bad", text=f"{where}: {error.outcome.text}", todo=f"see {named(route)}.host")
    last: SessionError | None = None
    for target in targets:
        session = Session(
            target, hostname=hostname, timeouts=QUICK, transcript=Transcript(clock), on_phase=lambda _: None
        )
        try:
            await session.open(dialler)
        except SessionError as error:
            last = error
            if error.outcome.cause != "connect":
                break  # another address of it would say the same
            continue
        secured = session.secured.line
        await session.quit()
        session.close()
        done = f"logged in as {route.username}" if route.username else "it takes us without a login"
        return Finding(name=name, result="ok", text=f"{where}: {secured}; {done}")
    assert last is not None, "a host has addresses, or the router says why not"
    todo = remedy(route, last.outcome) or f"see {named(route)}, or ask whoever has the host"
    return Finding(name=name, result="bad", text=f"{where}: {last.outcome.line}", todo=todo)
