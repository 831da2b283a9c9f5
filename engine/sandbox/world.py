"""The demo's world as data: domains, their exchanges and tempers, and the faults of their DNS. Nobody real is in it."""

from itertools import pairwise

from engine.sandbox.exchanges import Temper
from engine.sandbox.names import Fault
from engine.sandbox.tempers import (
    BlackHole,
    Busy,
    Dead,
    Disconnecting,
    Encrypted,
    Greylisting,
    Healthy,
    HelloOnly,
    Hostile,
    RateLimiting,
    Refusing,
    Slow,
    Tarpit,
    TemporarilyFailing,
)

SENDERS = "workshop.example"  # where generated traffic comes from, and bounces go back to
UNKNOWN_USERS = ("old.colleague", "info.2019", "test")

_FARM = [(10, "mx1.mailfarm.example"), (10, "mx2.mailfarm.example"), (50, "backup.mailfarm.example")]

# Domain, share of the traffic, exchanges. A host's temper stands below; several domains may share one host.
DOMAINS: list[tuple[str, float, list[tuple[int, str]]]] = [
    (SENDERS, 0.0, [(10, "mx.workshop.example")]),
    # one large provider, which counts; one which encrypts
    ("bigmail.com.example", 12.0, [(5, "mx-in.bigmail.com.example"), (10, "alt1.mx-in.bigmail.com.example")]),
    ("postbox.net.example", 6.0, [(10, "mx01.postbox.net.example"), (10, "mx02.postbox.net.example")]),
    # customers of one mail provider
    ("northfield.example", 3.0, _FARM),
    ("lindenhof.example", 2.0, _FARM),
    ("harbor-books.example", 2.0, _FARM),
    ("papaya-studio.example", 1.5, _FARM),
    ("kestrel-air.example", 2.0, _FARM),
    ("tidewater.org.example", 1.0, _FARM),
    ("xn--bcher-kva.example", 1.0, _FARM),
    # small ones of their own, in good health
    ("coin-toss.example", 1.0, [(10, "heads.coin-toss.example"), (10, "tails.coin-toss.example")]),
    ("oldwave.example", 0.5, [(10, "mail.oldwave.example")]),
    ("alumni.edu.example", 1.5, [(10, "mx.alumni.edu.example")]),
    # the best exchange is gone, another one works
    ("dead.example", 3.0, [(10, "mx1.dead.example"), (20, "mx2.dead.example")]),
    ("harvest-market.example", 1.5, [(10, "mx1.dead.example"), (30, "mail.harvest-market.example")]),
    ("event-horizon.example", 1.0, [(10, "in.event-horizon.example"), (20, "out.event-horizon.example")]),
    # nothing works
    ("ghost-town.example", 1.5, [(10, "saloon.ghost-town.example"), (20, "chapel.ghost-town.example")]),
    ("void.example", 0.5, [(10, "mx.void.example")]),
    # they make one wait
    ("greyhound-travel.example", 2.0, [(10, "mx.greyhound-travel.example")]),
    ("rush-hour.example", 1.5, [(10, "mx.rush-hour.example")]),
    ("slow-food.example", 1.0, [(10, "mx.slow-food.example")]),
    ("molasses.example", 0.3, [(10, "mx.molasses.example")]),
    ("over-quota.example", 1.5, [(10, "mx.over-quota.example")]),
    # they refuse
    ("fortress.example", 0.7, [(10, "gate.fortress.example")]),
    # their TLS is not what it should be
    ("homelab.example", 1.0, [(10, "pi.homelab.example")]),
    ("wrong-badge.example", 0.7, [(10, "mx.wrong-badge.example")]),
    ("rusty-lock.example", 0.7, [(10, "mx.rusty-lock.example")]),
    # their TLS must be what it should be: by policy (MTA-STS), or by records (DANE); for two of them it is not
    ("sealed.example", 1.0, [(10, "mx.sealed.example")]),
    ("lapsed-seal.example", 0.5, [(10, "mx.lapsed-seal.example")]),
    ("fingerprint.example", 1.0, [(10, "mx.fingerprint.example")]),
    ("smudged-print.example", 0.5, [(10, "mx.smudged-print.example")]),
    # they hang up
    ("slammed-door.example", 0.5, [(10, "mx.slammed-door.example")]),
    ("hiccup.example", 0.5, [(10, "mx.hiccup.example")]),
    ("cliffhanger.example", 0.4, [(10, "mx.cliffhanger.example")]),
    ("deja-vu.example", 0.2, [(10, "mx.deja-vu.example")]),
    ("trickster.example", 0.5, [(10, "mx.trickster.example")]),
    # their DNS is at fault (see FAULTS and records)
    ("servfail.example", 0.5, []),
    ("lame-delegation.example", 0.3, []),
    ("silent-dns.example", 0.3, []),
    ("garbled-dns.example", 0.2, []),
    ("nowhere.example", 0.3, []),
    ("no-mail.example", 0.3, []),
    ("bare-host.example", 0.7, []),
    ("alias.example", 0.7, []),
    ("echo-chamber.example", 0.2, []),
    ("long-way-round.example", 0.2, []),
    ("crowded.example", 0.5, []),
    ("cut-short.example", 0.7, _FARM),
]


def tempers() -> dict[str, Temper]:
    """Every host with its temper, made anew: some tempers remember."""
    return {host: Healthy() for _, _, mx in DOMAINS for _, host in mx} | _odd_ones()


def _odd_ones() -> dict[str, Temper]:
    """The hosts that are anything but healthy, and one that no MX names."""
    return {
        "bare-host.example": Healthy(),
        "mx-in.bigmail.com.example": RateLimiting(messages=60, seconds=30.0),
        "alt1.mx-in.bigmail.com.example": RateLimiting(messages=60, seconds=30.0),
        "mx01.postbox.net.example": Encrypted(),
        "mx02.postbox.net.example": Encrypted(),
        "mail.oldwave.example": HelloOnly(),
        "mx.alumni.edu.example": Refusing(UNKNOWN_USERS),
        "mx1.dead.example": Dead(),
        "in.event-horizon.example": BlackHole(),
        "saloon.ghost-town.example": Dead(),
        "chapel.ghost-town.example": Dead(),
        "mx.void.example": BlackHole(),
        "mx.greyhound-travel.example": Greylisting(90.0),
        "mx.rush-hour.example": Busy(),
        "mx.slow-food.example": Slow(1.5),
        "mx.molasses.example": Tarpit(10.0),
        "mx.over-quota.example": TemporarilyFailing(0.6),
        "gate.fortress.example": Refusing(),
        "pi.homelab.example": Encrypted("self-signed"),
        "mx.wrong-badge.example": Encrypted("wrong name"),
        "mx.rusty-lock.example": Encrypted("broken"),
        "mx.sealed.example": Encrypted(),
        "mx.lapsed-seal.example": Encrypted("expired"),
        "mx.fingerprint.example": Encrypted("self-signed"),
        "mx.smudged-print.example": Encrypted("self-signed"),
        "mx.slammed-door.example": Disconnecting("connect"),
        "mx.hiccup.example": Disconnecting("MAIL"),
        "mx.cliffhanger.example": Disconnecting("content"),
        "mx.deja-vu.example": Disconnecting("content", delivers=True),
        "mx.trickster.example": Hostile(),
    }


def records() -> list[tuple[str, str, str]]:
    """Name, type and text of the records that are not simply a domain's MX."""
    steps = ["long-way-round.example", *(f"{step}.long-way-round.example" for step in range(1, 12))]
    return [
        ("no-mail.example", "MX", "0 ."),
        ("alias.example", "CNAME", "northfield.example."),
        ("echo-chamber.example", "CNAME", "echo.echo-chamber.example."),
        ("echo.echo-chamber.example", "CNAME", "echo-chamber.example."),
        *((name, "CNAME", f"{following}.") for name, following in pairwise(steps)),
        (steps[-1], "MX", "10 mx1.mailfarm.example."),
        *(("crowded.example", "MX", f"{number} mx{number}.crowded.example.") for number in range(1, 101)),
    ]


# Domains whose MTA-STS policy is enforced.
POLICIES = {
    domain: f"version: STSv1\nmode: enforce\nmx: *.{domain}\nmax_age: 86400\n"
    for domain in ("sealed.example", "lapsed-seal.example")
}

# Hosts with a TLSA record, and whether it is that of their certificate.
FINGERPRINTS = {"mx.fingerprint.example": True, "mx.smudged-print.example": False}

FAULTS = {
    "servfail.example": Fault.SERVFAIL,
    "lame-delegation.example": Fault.REFUSED,
    "silent-dns.example": Fault.SILENT,
    "garbled-dns.example": Fault.GARBAGE,
    "nowhere.example": Fault.NXDOMAIN,
    "cut-short.example": Fault.TRUNCATED,
}

# Names with the address of another host.
SHARED_ADDRESSES = {f"mx{number}.crowded.example": "mx1.mailfarm.example" for number in range(1, 101)}
