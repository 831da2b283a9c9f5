"""The settings' file: found, read from TOML, every error naming its key and what is allowed."""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

import msgspec
import platformdirs
from msgspec import Struct

from engine.base.permission import why_not
from engine.base.plural import plural
from engine.base.text import clean
from engine.settings import kinds, names, paths, values
from engine.settings.ourselves import routes_here
from engine.settings.settings import (
    Console,
    Control,
    Delivery,
    DestinationTls,
    DkimKey,
    DkimSigning,
    Dns,
    Drop,
    Dsn,
    Events,
    Http,
    Intake,
    Limit,
    Limits,
    Log,
    OAuth,
    QueueStore,
    Retry,
    RetryOf,
    Rewrite,
    Route,
    Settings,
    Smtp,
    Submission,
    Suppression,
    Timeouts,
    TlsRules,
)

VARIABLE = "SMARTHOST_CONFIG"
MOST_HOSTS = 20  # of a route: as many as are tried of a domain's exchanges
IMPLICIT_TLS = 465  # the port where TLS comes first (RFC 8314 3.3)
MACHINE_WIDE = Path("/etc/smarthost/smarthost.toml")


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


def load(path: Path | None) -> Settings:
    """Read and check the settings; the defaults where `path` is None.

    Raises SettingsError with all that is wrong, each naming its key and what is allowed.
    """
    return Settings() if path is None else _settings(path, _table_in(path))


def load_for_client(path: Path | None) -> Settings:
    """Read and check the settings, and none of the files they name: passwords, keys and users are the engine's alone.

    Raises SettingsError.
    """
    return Settings() if path is None else _settings(path, _table_in(path), _UNSEEN)


def load_for_sender(path: Path | None) -> Settings:
    """Read what a program must know that hands us mail on this machine, as any user: spool, name and doors.

    The rest is at its default, and no file that is named is looked at. Raises SettingsError.
    """
    if path is None:
        return Settings()
    table = _table_in(path)
    kept = {key: value for key, value in table.items() if key in {"hostname", "spool", "intake"}}
    if isinstance(intake := kept.get("intake"), dict):
        kept["intake"] = {key: value for key, value in intake.items() if key in {"min_free", "smtp", "drop"}}
    return _settings(path, kept, _UNSEEN)


class SettingsError(Exception):
    """Something in the settings is wrong. `problems` are all of them, `key: what is wrong; what is allowed`."""

    def __init__(self, file: Path, problems: list[str]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))


class SettingsUnreadable(SettingsError):
    """The settings' file cannot be read; that may be otherwise for somebody else, or later."""

    def __init__(self, file: Path, error: OSError) -> None:
        why = f"{file}: cannot be read: {error.strerror}"
        super().__init__(file, [why_not(error, file, "read") if isinstance(error, PermissionError) else why])
        self.args = (self.problems[0],)


# How each key is read, where its name alone does not say it.
_Readers = Mapping[type[Struct], Mapping[str, values.Reader]]
READERS: _Readers = {
    Settings: {"hostname": names.host, "spool": paths.folder, "spool_on_any_file_system": values.flag},
    Smtp: {
        "listen": values.each(names.listen_anyhow),
        "socket_group": paths.group_or_everybody,
        "relay_networks": values.each(names.network),
        "proxy_networks": values.each(names.proxy_network),
        "max_message_size": values.size,
        "max_sessions": values.count,
        "max_received": values.count,
    },
    Submission: {
        "listen": values.each(names.listen),
        "listen_tls": values.each(names.listen),
        "proxy_networks": values.each(names.proxy_network),
        "certificate": paths.file,
        "key": paths.file,
        "users": paths.file,
    },
    Http: {
        "listen": values.each(names.listen),
        "networks": values.each(names.network),
        "certificate": paths.file,
        "key": paths.file,
        "tokens": paths.file,
    },
    Limits: {
        **dict.fromkeys(Limits.__struct_fields__, values.count),
        "exempt_networks": values.each(names.network),
        "guess_window": values.duration,
        "least_data_rate": values.space,
    },
    Intake: {"min_free": values.space, "complete": values.one_of(kinds.Complete)},
    Drop: {"enabled": values.flag},
    Dns: {"nameservers": values.each(names.nameserver), "validating": values.flag},
    Timeouts: dict.fromkeys(Timeouts.__struct_fields__, values.duration),
    Delivery: {
        "port": values.port,
        "max_connections": values.count,
        "max_connections_per_destination": values.count,
        "max_lookups": values.count,
        "max_messages_per_connection": values.count,
        "initial_connections": values.count,
        "idle": values.duration_or_none,
        "connection_lifetime": values.duration,
        "max_addresses": values.few,
        "max_sessions": values.few,
        "check_interval": values.duration,
        "bad_mx_timeout": values.duration,
        "bad_mx_timeout_max": values.duration,
        "fallback_to_domain": values.flag,
        "refuse_networks": values.each(names.network),
        "loopback_exchanges": values.flag,
        "family": values.one_of(kinds.Family),
        "prefer": values.one_of(kinds.Prefer),
        "source_address": names.sources,
        "hello": names.host_or_none,
        "chunking": values.one_of(kinds.Chunking),
    },
    Retry: {"schedule": values.each(values.duration, at_least=1), "give_up_after": values.duration},
    RetryOf: {
        "domain": names.destinations,
        "schedule": values.each(values.duration, at_least=1),
        "give_up_after": values.duration,
    },
    Dsn: {
        "delay_notice": values.duration_or_never,
        "gather": values.gathering,
        "content_returned": values.returned,
        "postmaster": names.mailbox,
    },
    OAuth: {
        "token_endpoint": names.https_url,
        "client_id": values.text,
        "client_secret_file": paths.readable_file,
        "refresh_token_file": paths.readable_file,
        "scope": values.text,
        "ca_file": paths.readable_file,
    },
    Route: {
        "domain": names.route_domain,
        "host": values.one_or_each(names.host_or_address),
        "weights": values.each(values.weight),
        "port": values.port,
        "tls": values.one_of(kinds.RouteTls),
        "form": values.one_of(kinds.Form),
        "username": values.text,
        "password_file": paths.readable_file,
        "token_command": paths.program,
        "ca_file": paths.readable_file,
        "family": values.one_of(kinds.Family),
        "prefer": values.one_of(kinds.Prefer),
        "source_address": names.sources,
        "hello": names.host_or_none,
        "chunking": values.one_of(kinds.Chunking),
    },
    Rewrite: {
        "match": names.rewritten,
        "to": names.rewrites_to,
        "of": values.one_of(kinds.RewriteOf),
        "keep_original": values.flag,
    },
    Limit: {
        "destination": names.limited,
        "connections": values.count,
        "messages_per_connection": values.count,
        "messages_per_minute": values.count,
        "connections_per_minute": values.count,
    },
    DestinationTls: {
        "domain": names.domain_or_all,
        "level": values.one_of(kinds.Tls),
        "ca_file": paths.readable_file,
    },
    DkimKey: {"domain": names.signing_domain, "selector": names.selector, "key": paths.key_file},
    DkimSigning: {"unsigned": values.one_of(kinds.Unsigned)},
    TlsRules: {"mta_sts": values.flag, "dane": values.flag, "ca_file": paths.readable_file},
    QueueStore: {
        "store": names.database,
        "password_file": paths.readable_file,
        "node": names.node,
        "heartbeat": values.duration,
        "takeover": values.duration,
    },
    Suppression: {
        "enabled": values.flag,
        "codes": values.each(values.address_code),
        "keep": values.suppressed_for,
        "most": values.most_suppressed,
    },
    Events: {"kept": values.count},
    Log: {
        "level": values.one_of(kinds.LogLevel),
        "mail": paths.mail_log,
        "format": values.one_of(kinds.LogFormat),
    },
    Control: {"group": paths.group, "view_group": paths.group},
    Console: {"undo": values.duration, "confirm_typed_over": values.count},
}

# For whoever does not use the files and folders that are named: they are not looked at.
_INSTEAD: Mapping[values.Reader, values.Reader] = {
    paths.readable_file: paths.file,
    paths.key_file: paths.key_file_unseen,
    paths.folder: paths.folder_unseen,
}
_UNSEEN: _Readers = {
    table: {key: _INSTEAD.get(reader, reader) for key, reader in readers.items()} for table, readers in READERS.items()
}

_LIMITS = tuple(READERS[Limit])[1:]

_Table = TypeVar("_Table", bound=Struct)


def _table_in(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsUnreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise SettingsError(path, [f"is not UTF-8: {error.reason} at byte {error.start}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(path, [f"is not TOML: {error}"]) from error


def _settings(path: Path, table: dict[str, Any], readers: _Readers = READERS) -> Settings:
    problems: list[str] = []
    settings = _read(Settings, table, "", problems, readers)
    if settings is not None:
        problems.extend(routes_here(settings))
    if settings is None or problems:
        raise SettingsError(path, problems)
    return settings


def _read(into: type[_Table], table: object, at: str, problems: list[str], readers: _Readers) -> _Table | None:
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
            read[name] = _value(into, known, table[name], dotted, problems, readers)
        elif known.required:
            problems.append(f"{dotted}: missing; it has no default")
    if len(problems) > before:
        return None
    if into is Route and read.get("tls") == "implicit":
        read.setdefault("port", IMPLICIT_TLS)
    settings = into(**read)
    if isinstance(settings, Route):
        problems.extend(f"{at}.{problem}" for problem in _unsafe(settings))
    if isinstance(settings, QueueStore) and settings.password_file is not None and not settings.store:
        problems.append(f"{at}.store: missing; a password_file needs the database it belongs to")
    if isinstance(settings, QueueStore) and settings.takeover < 3 * settings.heartbeat:
        problems.append(
            f"{at}.takeover: {settings.takeover:g} s is less than three heartbeats, and one late one has others "
            f"take over; allowed is {3 * settings.heartbeat:g} s or more"
        )
    if isinstance(settings, Delivery) and settings.bad_mx_timeout_max < settings.bad_mx_timeout:
        problems.append(
            f"{at}.bad_mx_timeout_max: {settings.bad_mx_timeout_max:.0f} s is shorter than a mark lasts at first; "
            f"allowed is bad_mx_timeout ({settings.bad_mx_timeout:.0f} s) or more"
        )
    if isinstance(settings, Limit) and not any(getattr(settings, key) for key in _LIMITS):
        problems.append(f"{at}: it limits nothing; set one or more of {', '.join(_LIMITS)}")
    if isinstance(settings, Submission) and (settings.listen or settings.listen_tls):
        needed = {"certificate": settings.certificate, "key": settings.key, "users": settings.users}
        problems.extend(
            f"{at}.{name}: missing; whoever listens for submission needs certificate, key and users"
            for name, given in needed.items()
            if given is None
        )
    if isinstance(settings, Http):
        problems.extend(f"{at}.{problem}" for problem in _open_to_listeners(settings))
    return settings


def _open_to_listeners(http: Http) -> Iterator[str]:
    """What is missing where tokens would else go over the network for everybody to read, or nobody would have one."""
    if http.listen and http.tokens is None:
        yield "tokens: missing; whoever posts over the network needs a token, and the relay the file of them"
    if (http.certificate is None) != (http.key is None):
        yield f"{'key' if http.key is None else 'certificate'}: missing; a certificate and its key belong together"
    if http.certificate is None:
        for position, place in enumerate(http.listen):
            if not _is_loopback(place.host):
                yield (
                    f"listen[{position}]: {place} without TLS; set certificate and key, or listen at 127.0.0.1 or [::1]"
                )


def _is_loopback(host: str) -> bool:
    """Whether this is an address of this machine alone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _value(into: type[Struct], known: Any, value: object, dotted: str, problems: list[str], readers: _Readers) -> Any:
    if into is Settings and known.name == "route":
        return _each_domain(Route, value, dotted, problems, readers)
    if into is Settings and known.name == "limit":
        return _each_domain(Limit, value, dotted, problems, readers, key="destination")
    if into is Settings and known.name == "rewrite":
        return _each_domain(Rewrite, value, dotted, problems, readers, key="match", name="rule")
    if into is Settings and known.name == "dkim":
        return _each_domain(DkimKey, value, dotted, problems, readers, key="selector", name="record")
    if into is TlsRules and known.name == "destination":
        return _each_domain(DestinationTls, value, dotted, problems, readers)
    if into is Retry and known.name == "destination":
        return _each_domain(RetryOf, value, dotted, problems, readers)
    if (table := _table_of(known.type)) is not None:
        return _read(table, value, dotted, problems, readers)
    try:
        return readers[into][known.name](value)
    except ValueError as error:
        problem = str(error)
        problems.append(f"{dotted}{problem}" if problem.startswith("[") else f"{dotted}: {problem}")
        return None


def _table_of(kind: Any) -> type[Struct] | None:
    """The structure of a key that is a table, which may be one that need not be there; None for any other key."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return next((each for each in kinds if isinstance(each, type) and issubclass(each, Struct)), None)


_PerDomain = TypeVar("_PerDomain", Route, Limit, Rewrite, DestinationTls, DkimKey, RetryOf)


def _each_domain(
    into: type[_PerDomain],
    value: object,
    at: str,
    problems: list[str],
    readers: _Readers,
    *,
    key: str = "domain",
    name: str = "",
) -> tuple[_PerDomain, ...]:
    """Read a list of tables that each say something of a domain, their `key`; one domain has one of them.

    `name`: what of a table there may be once, where that is more than its key.
    """
    what = at.rpartition(".")[2]
    if not isinstance(value, list):
        problems.append(f"{at}: not a list of tables; write [[{at}]] before each {what}'s keys")
        return ()
    positions: dict[str, int] = {}
    read: list[_PerDomain] = []
    for position, table in enumerate(value):
        one = _read(into, table, f"{at}[{position}]", problems, readers)
        if one is None:
            continue
        named = getattr(one, name or key)
        first = positions.setdefault(named, position)
        if first != position:
            problems.append(f"{at}[{position}].{key}: {at}[{first}] has {named} already; one {what} for each")
        read.append(one)
    return tuple(read)


def _unsafe(route: Route) -> list[str]:
    """What is wrong with a route whose keys are right each by itself."""
    problems = []
    given = [key for key in ("password_file", "token_command", "oauth") if getattr(route, key)]
    if route.username and not given:
        problems.append(
            "password_file: missing; a username needs the file that holds its password, or token_command, or oauth"
        )
    if given and not route.username:
        problems.append(f"username: missing; {given[0]} needs the user it belongs to")
    if len(given) > 1:
        problems.append(f"{given[1]}: there is {given[0]} already; one of them is allowed")
    if route.username and route.tls not in ("required", "verified", "implicit"):
        problems.append(
            f'tls: "{route.tls}" with a username; only "required", "verified" and "implicit" are allowed: '
            "no password goes in the clear"
        )
    if route.weights and len(route.weights) != len(route.hosts):
        hosts = plural(len(route.hosts), "host")
        problems.append(f"weights: {len(route.weights)} for {hosts}; allowed is one for each")
    if route.weights and not any(route.weights):
        problems.append("weights: all are 0; one at least must be more")
    if len(route.hosts) > MOST_HOSTS:
        problems.append(f"host: {len(route.hosts)} are named; allowed are up to {MOST_HOSTS}")
    if len(set(route.hosts)) < len(route.hosts):
        problems.append("host: one is named twice; each is allowed once")
    if route.form == "smtp" and route.username:
        problems.append('form: "smtp" with a username; a login needs EHLO, so only "esmtp" is allowed')
    if route.form == "smtp" and route.chunking == "offered":
        problems.append(
            'form: "smtp" with chunking = "offered"; nothing is offered without EHLO, so allowed is "never"'
        )
    if route.form == "smtp" and route.tls in ("required", "verified"):
        problems.append(
            f'form: "smtp" with tls = "{route.tls}"; STARTTLS needs EHLO, so allowed are "none", "opportunistic" and'
            ' "implicit"'
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
