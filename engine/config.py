"""The settings: one typed structure, read from TOML, every error naming its key."""

import difflib
import ipaddress
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import platformdirs
from msgspec import Struct, field

from engine import values
from engine.text import clean
from engine.values import Listen, Nameserver, Network, Tls

VARIABLE = "SMARTHOST_CONFIG"
MACHINE_WIDE = Path("/etc/smarthost/smarthost.toml")

__all__ = ["Listen", "Nameserver", "Route", "Settings", "SettingsError", "Timeouts", "find", "load"]


def find(explicit: Path | None = None) -> Path | None:
    """Give the settings file to read: `explicit`, $SMARTHOST_CONFIG, the machine's, the user's; None with none.

    Raises SettingsError when one that was named is not there.
    """
    named = [(explicit, "--config")] if explicit else []
    if from_environment := os.environ.get(VARIABLE):
        named.append((Path(from_environment), f"${VARIABLE}"))
    for path, by in named:
        if _exists(path):
            return path
        raise SettingsError(path, [f"no such file, but {by} names it"])
    user = platformdirs.user_config_path("smarthost") / "smarthost.toml"
    return next((path for path in (MACHINE_WIDE, user) if _exists(path)), None)


def load(path: Path | None) -> "Settings":
    """Read and check the settings; the defaults where `path` is None.

    Raises SettingsError with all that is wrong, each naming its key and what is allowed.
    """
    return Settings() if path is None else _settings(path, _table_in(path))


def load_for_sender(path: Path | None) -> "Settings":
    """Read what a program must know that hands us mail on this machine, as any user: spool, name and doors.

    The rest is at its default: it may name files, such as passwords, that a sender must not be able to read. Raises
    SettingsError.
    """
    if path is None:
        return Settings()
    table = _table_in(path)
    kept = {key: value for key, value in table.items() if key in {"hostname", "spool", "intake"}}
    if isinstance(intake := kept.get("intake"), dict):
        kept["intake"] = {key: value for key, value in intake.items() if key in {"min_free", "smtp", "drop"}}
    return _settings(path, kept)


class SettingsError(Exception):
    """Something in the settings is wrong. `problems` are all of them, `key: what is wrong; what is allowed`."""

    def __init__(self, file: Path, problems: list[str]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))


class Smtp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.smtp]`: who may hand us mail over SMTP. `max_message_size` is in bytes; no `listen`, no SMTP.

    `max_received`: a message with more Received fields is in a loop (RFC 5321 6.3).
    """

    listen: tuple[Listen, ...] = (Listen("127.0.0.1", 2525),)
    relay_networks: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    max_message_size: int = 25 * 1024 * 1024
    max_sessions: int = 200
    max_received: int = 50


class Drop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.drop]`: whether the folder `drop` in the spool is watched."""

    enabled: bool = True


class Submission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.submission]`: where those who log in hand us mail (RFC 6409); by default nowhere.

    On `listen` TLS comes with STARTTLS, on `listen_tls` it is there from the first octet (RFC 8314 3.3). `certificate`
    (PEM, with its chain) and `key` are needed for either; `users` is the file that `smarthost user` keeps. Whether
    these can be read is asked when the engine starts: a command that only looks at the queue need not read a key.
    """

    listen: tuple[Listen, ...] = ()
    listen_tls: tuple[Listen, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    users: Path | None = None


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.limits]`: how much one address, and one login, may ask of us.

    An IPv6 address counts by its /64. `exempt_networks` have no limits by address; a login's hold everywhere. A guess
    is a login that failed: after `guesses_before_delay` of them each answer waits, longer each time, and after
    `guesses_per_address` or `guesses_per_login` within `guess_window` seconds none is heard.
    """

    exempt_networks: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    connections_per_address: int = 50
    connections_per_login: int = 20
    messages_per_minute_per_address: int = 600
    messages_per_hour_per_address: int = 10_000
    messages_per_minute_per_login: int = 100
    messages_per_hour_per_login: int = 2_000
    guesses_before_delay: int = 3
    guesses_per_address: int = 20
    guesses_per_login: int = 10
    guess_window: float = 900.0


class Intake(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake]`: how mail comes in. With fewer than `min_free` bytes free in the spool's file system, none does."""

    min_free: int = 100 * 2**20
    smtp: Smtp = field(default_factory=Smtp)
    submission: Submission = field(default_factory=Submission)
    limits: Limits = field(default_factory=Limits)
    drop: Drop = field(default_factory=Drop)


class Dns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[dns]`: whom to ask; the system's name servers where there are none.

    `validating`: they check DNSSEC, and the way to them is safe (they run on this machine, say), so that an answer
    they call authentic (AD) can be believed. Without it there is no DANE.
    """

    nameservers: tuple[Nameserver, ...] = ()
    validating: bool = False


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[delivery.timeouts]`: seconds a peer may take for each step, by default RFC 5321 4.5.3.2's minimum.

    `hello` bounds EHLO, HELO and AUTH; `block` each 64 KiB of the message; `reply` what follows the final dot, where
    impatience duplicates mail (RFC 1047); `attempt` the whole conversation with one peer.
    """

    connect: float = 30.0
    greeting: float = 300.0
    hello: float = 300.0
    tls: float = 60.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    reply: float = 600.0
    quit: float = 10.0
    attempt: float = 1800.0


class Delivery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[delivery]`: how mail goes out. Durations are in seconds."""

    port: int = 25
    max_connections: int = 20
    max_connections_per_destination: int = 5
    max_messages_per_connection: int = 100
    check_interval: float = 30.0
    bad_mx_timeout: float = 3600.0
    fallback_to_domain: bool = True
    timeouts: Timeouts = field(default_factory=Timeouts)


class RetryOf(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[retry.destination]]`: how one destination is tried; `domain` "*.example.org" means all domains below that one.

    What is not given is as in `[retry]`.
    """

    domain: str
    schedule: tuple[float, ...] | None = None
    give_up_after: float | None = None


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[retry]`: seconds between attempts, the last repeated, until `give_up_after` seconds after arrival.

    `destination` holds what is different for some: the one that names a domain itself counts, else the longest "*.".
    """

    schedule: tuple[float, ...] = (300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0)
    give_up_after: float = 432_000.0
    destination: tuple[RetryOf, ...] = ()


class Dsn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[dsn]`: what senders are told. `delay_notice` is in seconds from arrival; 0: no notice of a delay."""

    delay_notice: float = 14_400.0


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[route]]`: the host that takes a domain's mail instead of its mail exchanges; domain "*": all other mail.

    A password is given only under TLS and to a host whose certificate is right; `ca_file` holds the authorities (PEM)
    to trust instead of the system's.
    """

    domain: str
    host: str
    port: int = 25
    tls: Tls = "opportunistic"
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None


class DestinationTls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[tls.destination]]`: how mail to a domain is secured; domain "*": to all that no other names.

    An entry for the domain itself counts for routed mail too, where it asks for more than the route. `ca_file` holds
    the authorities (PEM) that "verified" trusts instead of those of [tls].
    """

    domain: str
    level: Tls
    ca_file: Path | None = None


class TlsRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tls]`: what raises the level of security above opportunistic.

    `mta_sts` (RFC 8461) and `dane` (RFC 7672, needs dns.validating) do so by themselves, except where the level is
    "none". `ca_file` holds the authorities (PEM) to trust instead of the system's, for exchanges and policy servers.
    """

    mta_sts: bool = True
    dane: bool = True
    ca_file: Path | None = None
    destination: tuple[DestinationTls, ...] = ()


class Events(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[events]`: how many of what happened are kept in the spool."""

    kept: int = 100_000


class Control(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control]`: the group that may use control.sock besides its owner; "" for none."""

    group: str = ""


class Console(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[console]`: seconds in which bounce and drop can be undone; what touches more messages must be typed out."""

    undo: float = 10.0
    confirm_typed_over: int = 1000


def default_hostname() -> str:
    """This machine's name as it knows it; no DNS is asked, which could take long."""
    try:
        return values.host(socket.gethostname())
    except ValueError:
        return "localhost"


def default_spool() -> Path:
    """The user's state folder."""
    return platformdirs.user_state_path("smarthost")


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. `Settings()` are the defaults."""

    hostname: str = field(default_factory=default_hostname)
    spool: Path = field(default_factory=default_spool)
    intake: Intake = field(default_factory=Intake)
    dns: Dns = field(default_factory=Dns)
    delivery: Delivery = field(default_factory=Delivery)
    retry: Retry = field(default_factory=Retry)
    dsn: Dsn = field(default_factory=Dsn)
    route: tuple[Route, ...] = ()
    tls: TlsRules = field(default_factory=TlsRules)
    events: Events = field(default_factory=Events)
    control: Control = field(default_factory=Control)
    console: Console = field(default_factory=Console)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is asked for but cannot be had with these settings, in sentences."""
        if self.tls.dane and not self.dns.validating:
            return ("DANE is off: dns.validating is false, so no answer of the DNS counts as secure",)
        return ()


# How each key is read, where its name alone does not say it.
_READERS: Mapping[type[Struct], Mapping[str, values.Reader]] = {
    Settings: {"hostname": values.host, "spool": values.folder},
    Smtp: {
        "listen": values.each(values.listen),
        "relay_networks": values.each(values.network),
        "max_message_size": values.size,
        "max_sessions": values.count,
        "max_received": values.count,
    },
    Submission: {
        "listen": values.each(values.listen),
        "listen_tls": values.each(values.listen),
        "certificate": values.file,
        "key": values.file,
        "users": values.file,
    },
    Limits: {
        **dict.fromkeys(Limits.__struct_fields__, values.count),
        "exempt_networks": values.each(values.network),
        "guess_window": values.duration,
    },
    Intake: {"min_free": values.space},
    Drop: {"enabled": values.flag},
    Dns: {"nameservers": values.each(values.nameserver), "validating": values.flag},
    Timeouts: dict.fromkeys(Timeouts.__struct_fields__, values.duration),
    Delivery: {
        "port": values.port,
        "max_connections": values.count,
        "max_connections_per_destination": values.count,
        "max_messages_per_connection": values.count,
        "check_interval": values.duration,
        "bad_mx_timeout": values.duration,
        "fallback_to_domain": values.flag,
    },
    Retry: {"schedule": values.each(values.duration, at_least=1), "give_up_after": values.duration},
    RetryOf: {
        "domain": values.destinations,
        "schedule": values.each(values.duration, at_least=1),
        "give_up_after": values.duration,
    },
    Dsn: {"delay_notice": values.duration_or_never},
    Route: {
        "domain": values.route_domain,
        "host": values.host_or_address,
        "port": values.port,
        "tls": values.tls,
        "username": values.text,
        "password_file": values.readable_file,
        "ca_file": values.readable_file,
    },
    DestinationTls: {"domain": values.route_domain, "level": values.tls, "ca_file": values.readable_file},
    TlsRules: {"mta_sts": values.flag, "dane": values.flag, "ca_file": values.readable_file},
    Events: {"kept": values.count},
    Control: {"group": values.group},
    Console: {"undo": values.duration, "confirm_typed_over": values.count},
}

_Table = TypeVar("_Table", bound=Struct)


def _table_in(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(path, [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError(path, [f"is not UTF-8: {error.reason} at byte {error.start}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(path, [f"is not TOML: {error}"]) from error


def _settings(path: Path, table: dict[str, Any]) -> "Settings":
    problems: list[str] = []
    settings = _read(Settings, table, "", problems)
    if settings is None or problems:
        raise SettingsError(path, problems)
    return settings


def _read(into: type[_Table], table: object, at: str, problems: list[str]) -> _Table | None:
    """Read one table and those inside it; add to `problems` all that is wrong, and give None if anything is."""
    if not isinstance(table, dict):
        problems.append(f"{at}: not a table; write [{at}] and its keys below it")
        return None
    before = len(problems)
    fields = {known.name: known for known in msgspec.structs.fields(into)}
    problems.extend(_unknown(key, at, fields) for key in table if key not in fields)
    read: dict[str, Any] = {}
    for name, known in fields.items():
        dotted = f"{at}.{name}" if at else name
        if name in table:
            read[name] = _value(into, known, table[name], dotted, problems)
        elif known.required:
            problems.append(f"{dotted}: missing; it has no default")
    if len(problems) > before:
        return None
    settings = into(**read)
    if isinstance(settings, Route):
        problems.extend(f"{at}.{problem}" for problem in _unsafe(settings))
    if isinstance(settings, Submission) and (settings.listen or settings.listen_tls):
        needed = {"certificate": settings.certificate, "key": settings.key, "users": settings.users}
        problems.extend(
            f"{at}.{name}: missing; whoever listens for submission needs certificate, key and users"
            for name, given in needed.items()
            if given is None
        )
    return settings


def _value(into: type[Struct], known: Any, value: object, dotted: str, problems: list[str]) -> Any:
    if into is Settings and known.name == "route":
        return _each_domain(Route, value, dotted, problems)
    if into is TlsRules and known.name == "destination":
        return _each_domain(DestinationTls, value, dotted, problems)
    if into is Retry and known.name == "destination":
        return _each_domain(RetryOf, value, dotted, problems)
    if isinstance(known.type, type) and issubclass(known.type, Struct):
        return _read(known.type, value, dotted, problems)
    try:
        return _READERS[into][known.name](value)
    except ValueError as error:
        problem = str(error)
        problems.append(f"{dotted}{problem}" if problem.startswith("[") else f"{dotted}: {problem}")
        return None


_PerDomain = TypeVar("_PerDomain", Route, DestinationTls, RetryOf)


def _each_domain(into: type[_PerDomain], value: object, at: str, problems: list[str]) -> tuple[_PerDomain, ...]:
    """Read a list of tables that each say something of a domain; one domain has one of them."""
    what = at.rpartition(".")[2]
    if not isinstance(value, list):
        problems.append(f"{at}: not a list of tables; write [[{at}]] before each {what}'s keys")
        return ()
    positions: dict[str, int] = {}
    read: list[_PerDomain] = []
    for position, table in enumerate(value):
        one = _read(into, table, f"{at}[{position}]", problems)
        if one is None:
            continue
        first = positions.setdefault(one.domain, position)
        if first != position:
            problems.append(f"{at}[{position}].domain: {at}[{first}] has {one.domain} already; one {what} for each")
        read.append(one)
    return tuple(read)


def _unsafe(route: Route) -> list[str]:
    """What is wrong with a route whose keys are right each by itself."""
    problems = []
    if route.username and route.password_file is None:
        problems.append("password_file: missing; a username needs the file that holds its password")
    if route.password_file is not None and not route.username:
        problems.append("username: missing; a password_file needs the user it belongs to")
    if route.username and route.tls not in ("required", "verified"):
        problems.append(
            f'tls: "{route.tls}" with a username; only "required" and "verified" are allowed: '
            "no password goes in the clear"
        )
    return problems


def _unknown(key: str, at: str, fields: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, fields, n=1)
    dotted = clean(f"{at}.{key}" if at else key, 200)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{dotted}: no such key; {hint}allowed here: {', '.join(sorted(fields))}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it may be there, but we may not look: reading it says why
        return True
