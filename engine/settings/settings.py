"""The settings: one typed structure with its defaults. configfile.py reads it."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs
from msgspec import Struct, field

from engine.base.permission import open_to_all, others_may_write
from engine.settings import names
from engine.settings.kinds import (
    Chunking,
    Complete,
    Family,
    Form,
    Listen,
    LogFormat,
    LogLevel,
    Nameserver,
    Network,
    Prefer,
    RewriteOf,
    RouteTls,
    Tls,
    UnixSocket,
    Unsigned,
)

__all__ = ["Limit", "Listen", "Nameserver", "Route", "Settings", "Timeouts", "UnixSocket"]


class Smtp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.smtp]`: who may hand us mail over SMTP. `max_message_size` is in bytes; no `listen`, no SMTP.

    `listen` may name Unix sockets, which `socket_group` may use besides their owner, or everybody where it is "*"; who
    comes over one is trusted as one from loopback is. Who comes from `proxy_networks` is a proxy, and must say first
    whom it brings (the PROXY protocol of HAProxy). `max_received`: a message with more Received fields is in a loop
    (RFC 5321 6.3).
    """

    listen: tuple[Listen | UnixSocket, ...] = (Listen("127.0.0.1", 2525),)
    socket_group: str = ""
    relay_networks: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    proxy_networks: tuple[Network, ...] = ()
    max_message_size: int = 25 * 1024 * 1024
    max_sessions: int = 200
    max_received: int = 50


class Drop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.drop]`: whether the folder `drop` in the spool is watched."""

    enabled: bool = True


class Submission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.submission]`: where those who log in hand us mail (RFC 6409); by default nowhere.

    On `listen` TLS comes with STARTTLS, on `listen_tls` it is there from the first octet (RFC 8314 3.3). Who comes from
    `proxy_networks` is a proxy, and must say before all else whom it brings. `certificate` (PEM, with its chain) and
    `key` are needed for either; `users` is the file that `smarthost user` keeps. Whether these can be read is asked
    when the engine starts: a command that only looks at the queue need not read a key.
    """

    listen: tuple[Listen, ...] = ()
    listen_tls: tuple[Listen, ...] = ()
    proxy_networks: tuple[Network, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    users: Path | None = None


class Http(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.http]`: where programs post mail over HTTP; by default nowhere but at the control socket.

    Who posts is in `networks`, and has a token of the file `tokens`, which nobody but the relay may read. With
    `certificate` (PEM, with its chain) and `key` it is HTTPS; without them `listen` names addresses of loopback alone.
    """

    listen: tuple[Listen, ...] = ()
    networks: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    certificate: Path | None = None
    key: Path | None = None
    tokens: Path | None = None


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake.limits]`: how much one address, and one login, may ask of us.

    An IPv6 address counts by its /64. `exempt_networks` have no limits by address; a login's hold everywhere.
    Recipients are counted besides messages, since each may cost an attempt and its part of a notification. A guess is a
    login that failed: after `guesses_before_delay` of them each answer waits, longer each time, and after
    `guesses_per_address`, or `guesses_per_login` from one network, within `guess_window` seconds none is heard; what is
    guessed at a login from everywhere only slows. After the first minute of a message a client must have sent at least
    `least_data_rate` octets a second, on average; 0 asks for none.
    """

    exempt_networks: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    connections_per_address: int = 50
    connections_per_login: int = 20
    messages_per_minute_per_address: int = 600
    messages_per_hour_per_address: int = 10_000
    messages_per_minute_per_login: int = 100
    messages_per_hour_per_login: int = 2_000
    recipients_per_minute_per_address: int = 6_000
    recipients_per_hour_per_address: int = 100_000
    recipients_per_minute_per_login: int = 1_000
    recipients_per_hour_per_login: int = 10_000
    guesses_before_delay: int = 3
    guesses_per_address: int = 20
    guesses_per_login: int = 10
    guess_window: float = 900.0
    least_data_rate: int = 10 * 1024


class Intake(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[intake]`: how mail comes in. With fewer than `min_free` bytes free in the spool's file system, none does.

    `complete`: whose mail gets a Date, a Message-ID and a From where it has none: that of "logins" (RFC 6409 8), or
    "all", that of relay networks and of the drop folder as well.
    """

    min_free: int = 100 * 2**20
    complete: Complete = "logins"
    smtp: Smtp = field(default_factory=Smtp)
    submission: Submission = field(default_factory=Submission)
    http: Http = field(default_factory=Http)
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
    """`[delivery]`: how mail goes out. Durations are in seconds.

    `max_connections_per_destination` bounds those of all destinations with the same exchanges together; they begin
    with `initial_connections`. A connection waits `idle` for more mail and lives for `connection_lifetime`. One
    attempt tries `max_addresses` and has `max_sessions`. Up to `max_lookups` look for the way of a destination, which
    takes no connection. Half of the connections and of the look-ups are for destinations that have not proved
    themselves, having taken no mail for a week. A mark lasts `bad_mx_timeout`, and twice as long each time it is
    repeated, up to `bad_mx_timeout_max`. Connections go over the addresses of `family`, those that it `prefer`s first;
    `source_address` are addresses of this machine to connect from, one for each family, and `hello` is what it is
    called there ("": hostname). `chunking` "offered": a message goes with BDAT where the host offers that (RFC 3030);
    "never": with DATA. To addresses in `refuse_networks` no mail goes that the DNS or a recipient's
    address literal sends there. `loopback_exchanges`: exchanges on loopback are others than this relay, as in a
    sandbox; else they are taken for it.
    """

    port: int = 25
    max_connections: int = 100
    max_connections_per_destination: int = 20
    max_lookups: int = 100
    max_messages_per_connection: int = 100
    initial_connections: int = 2
    idle: float = 2.0
    connection_lifetime: float = 300.0
    max_addresses: int = 5
    max_sessions: int = 2
    check_interval: float = 30.0
    bad_mx_timeout: float = 3600.0
    bad_mx_timeout_max: float = 28_800.0
    fallback_to_domain: bool = True
    refuse_networks: tuple[Network, ...] = ()
    loopback_exchanges: bool = False
    family: Family = "both"
    prefer: Prefer = "ipv6"
    source_address: tuple[str, ...] = ()
    hello: str = ""
    chunking: Chunking = "never"
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
    """`[dsn]`: what senders are told. `delay_notice` is in seconds from arrival; 0: no notice of a delay.

    `gather` is for how many seconds what fails of a message is gathered for one notification; what fails later for
    longer. `content_returned` is in bytes: a larger message goes back as its headers, and any only once.
    `postmaster` has what could be returned to nobody; "": nobody has it, for a mailbox that one could guess may not
    exist. Either way it is in the log and among the events.
    """

    delay_notice: float = 14_400.0
    gather: float = 15.0
    content_returned: int = 51_200
    postmaster: str = ""


class OAuth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[route.oauth]`: where the tokens come from that are logged in with (RFC 6749), instead of a password.

    With `refresh_token_file` a token is asked for in the name of whoever gave that; without, in the client's own
    (client_credentials). What the files hold is read each time. `ca_file` holds the authorities (PEM) to trust instead
    of the system's.
    """

    token_endpoint: str
    client_id: str
    client_secret_file: Path | None = None
    refresh_token_file: Path | None = None
    scope: str = ""
    ca_file: Path | None = None


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[route]]`: the host that takes a domain's mail instead of its mail exchanges, or several.

    `domain` "*.example.org" means all domains below that one, "*" all other mail: the most particular counts.
    Of several hosts the first that can be had is used; with `weights`, one for each, each connection begins with one
    drawn by them, and a host of weight 0 is for when there is no other. `tls` "implicit" is TLS before anything is
    said, with a certificate that is right, at port 465 where none is named (RFC 8314 3.3). `form` "smtp" is for a host
    that knows no EHLO. A password is given only under TLS and to a host whose certificate is right; `ca_file` holds the
    authorities (PEM) to trust instead of the system's. In place of the password of `password_file` there may be tokens
    (RFC 7628, XOAUTH2; what is not said of `family`, `prefer`, `source_address`, `hello` and `chunking` is as in
    [delivery]): what `token_command` prints, a program and its arguments, or those of `oauth`.
    """

    domain: str
    host: str | tuple[str, ...]
    weights: tuple[int, ...] = ()
    port: int = 25
    tls: RouteTls = "opportunistic"
    form: Form = "esmtp"
    username: str = ""
    password_file: Path | None = None
    token_command: tuple[str, ...] = ()
    oauth: OAuth | None = None
    ca_file: Path | None = None
    family: Family | None = None
    prefer: Prefer | None = None
    source_address: tuple[str, ...] = ()
    hello: str = ""
    chunking: Chunking | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts, in order."""
        return (self.host,) if isinstance(self.host, str) else self.host

    @property
    def level(self) -> Tls:
        """What is demanded of TLS with it, whenever that comes."""
        return "verified" if self.tls == "implicit" else self.tls


class Rewrite(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[rewrite]]`: an address that is put right as mail comes in; the most particular rule counts, and once.

    `match` is an address, a local name at this host ("www-data"), "*@web1.local", "*@*.local" for all domains below
    that one, or "*". `to` is an address; "*@example.com" keeps the local part. `of` "senders" is the sender of the
    envelope and those in From, Sender and Reply-To; "recipients" those of the envelope alone. `keep_original`: what
    From was stands in X-Original-From.
    """

    match: str
    to: str
    of: RewriteOf = "senders"
    keep_original: bool = False

    @property
    def rule(self) -> str:
        """What it is told from others by: there may be one for senders and one for recipients."""
        return f"{self.match} (of {self.of})"


class Limit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[limit]]`: what a destination ("gmail.com"), or all sites with such a host ("*.google.com"), get together.

    What is not given limits nothing. `connections` stands in place of delivery.max_connections_per_destination. A
    destination that is named has connections of its own; no minute sees more than what is set for one.
    """

    destination: str
    connections: int | None = None
    messages_per_connection: int | None = None
    messages_per_minute: int | None = None
    connections_per_minute: int | None = None


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

    `mta_sts` (RFC 8461) and `dane` (RFC 7672; where nothing is said: if dns.validating) do so by themselves, except
    where the level is "none". `ca_file` holds the authorities (PEM) to trust instead of the system's, for exchanges and
    policy servers.
    """

    mta_sts: bool = True
    dane: bool | None = None
    ca_file: Path | None = None
    destination: tuple[DestinationTls, ...] = ()


class DkimKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[dkim]]`: a key that signs mail whose author has an address in `domain`, or in one below it (RFC 6376).

    The author's own domain signs where it has keys, else the nearest above it that has. All keys of a domain sign
    together, each under a `selector` of its own. `key` is a private key in PEM, RSA or Ed25519 (RFC 8463); it is read
    again where the file changes.
    """

    domain: str
    selector: str
    key: Path

    @property
    def record(self) -> str:
        """Where the DNS has its public half (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


class DkimSigning(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[dkim_signing]`: what becomes of mail of a domain that has keys where it cannot be signed.

    `unsigned` "refuse": it waits with whoever has it (451, in the drop folder) until the keys can be used again, and is
    refused for good where the message itself is the cause. "send": it goes without, and its events say why.
    """

    unsigned: Unsigned = "refuse"


class QueueStore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[queue]`: where the queue is kept.

    `store` is "" (one file in the spool) or a PostgreSQL database, "postgresql://user@host/name"; `password_file` holds
    the password of that user. Several engines may share a database, each as a `node` of its own name ("": the host name
    of the machine). Each says every `heartbeat` seconds that it lives; one that has not for `takeover` seconds has lost
    what it was sending to the others.
    """

    store: str = ""
    password_file: Path | None = None
    node: str = ""
    heartbeat: float = 10.0
    takeover: float = 30.0


class Suppression(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[suppression]`: whether mail to addresses that have failed for good is refused at once, for a while.

    What is on the list is refused with what was said when it failed. An address comes on it when an exchange of its own
    domain refuses it with one of `codes` (RFC 3463), and stays for `keep`; with no codes the list has only what
    operators enter. Of more than `most` the oldest that came by themselves go first.
    """

    enabled: bool = False
    codes: tuple[str, ...] = ("5.1.1", "5.1.6", "5.1.10")
    keep: float = 2_592_000.0
    most: int = 100_000


class Events(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[events]`: how many of what happened are kept in the spool."""

    kept: int = 100_000


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: the least that is written to the log, of what the relay itself has to say; and the mail log.

    `mail` is where a line goes for each thing that happens to mail: "stderr" (in a console a file `mail.log` in the
    spool), "journal", "syslog", "none", or the absolute path of a file; `format` how it is written.
    """

    level: LogLevel = "info"
    mail: str = "stderr"
    format: LogFormat = "text"


class Control(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control]`: the group that may use control.sock besides its owner, and the one that may look; "" for none.

    Members of `view_group` may use control-view.sock, through which nothing can be changed.
    """

    group: str = ""
    view_group: str = ""


class Console(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[console]`: seconds in which bounce and drop can be undone; what touches more messages must be typed out."""

    undo: float = 10.0
    confirm_typed_over: int = 1000


def default_hostname() -> str:
    """This machine's name as it knows it; no DNS is asked, which could take long."""
    try:
        return names.host(socket.gethostname())
    except ValueError:
        return "localhost"


def default_spool() -> Path:
    """The user's state folder."""
    return platformdirs.user_state_path("smarthost")


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. `Settings()` are the defaults.

    `spool_on_any_file_system`: the spool may also be where the queue is not safe (NFS, SMB and their like).
    """

    hostname: str = field(default_factory=default_hostname)
    spool: Path = field(default_factory=default_spool)
    spool_on_any_file_system: bool = False
    intake: Intake = field(default_factory=Intake)
    dns: Dns = field(default_factory=Dns)
    delivery: Delivery = field(default_factory=Delivery)
    retry: Retry = field(default_factory=Retry)
    dsn: Dsn = field(default_factory=Dsn)
    route: tuple[Route, ...] = ()
    limit: tuple[Limit, ...] = ()
    rewrite: tuple[Rewrite, ...] = ()
    tls: TlsRules = field(default_factory=TlsRules)
    dkim: tuple[DkimKey, ...] = ()
    dkim_signing: DkimSigning = field(default_factory=DkimSigning)
    queue: QueueStore = field(default_factory=QueueStore)
    suppression: Suppression = field(default_factory=Suppression)
    events: Events = field(default_factory=Events)
    log: Log = field(default_factory=Log)
    control: Control = field(default_factory=Control)
    console: Console = field(default_factory=Console)

    @property
    def own_postmasters(self) -> frozenset[str]:
        """Who is never refused for being on the suppression list, in lower case: who looks after this relay."""
        return frozenset(filter(None, (f"postmaster@{self.hostname}".lower(), self.dsn.postmaster.lower())))

    @property
    def notes(self) -> tuple[str, ...]:
        """What may not be as it was meant, or cannot be had with these settings, in sentences."""
        found = []
        if not is_full_name(self.hostname):
            found.append(
                f'hostname: "{self.hostname}" is not the full name of a host, and many hosts take no mail from such a'
                " one; write the name that DNS has for this machine, such as relay.example.net"
            )
        if not self.dsn.postmaster:
            found.append(
                "dsn.postmaster: not set, so a bounce that cannot be delivered is told to nobody; it is in the log and"
                " among the events"
            )
        if self.tls.dane and not self.dns.validating:
            found.append("DANE is off: dns.validating is false, so no answer of the DNS counts as secure")
        return (*found, *self._open_folders(), *self._open_secrets())

    def _open_folders(self) -> Iterator[str]:
        """In which folders others may put files in the place of ours."""
        for folder, may_be_shared in ((self.spool, False), (self.spool / "drop", True)):
            with suppress(OSError):
                if others_may_write(folder, may_be_shared=may_be_shared):
                    yield f"spool: others may write to {folder}, and so no engine starts on it; chmod go-w {folder}"

    def _open_secrets(self) -> Iterator[str]:
        """Which files that should be secret everybody may read."""
        submission = self.intake.submission
        secrets = [("intake.submission.key", submission.key), ("intake.submission.users", submission.users)]
        secrets.append(("intake.http.key", self.intake.http.key))
        for position, route in enumerate(self.route):
            secrets.append((f"route[{position}].password_file", route.password_file))
            if route.oauth is not None:
                at = f"route[{position}].oauth"
                secrets.append((f"{at}.client_secret_file", route.oauth.client_secret_file))
                secrets.append((f"{at}.refresh_token_file", route.oauth.refresh_token_file))
        secrets += [(f"dkim[{position}].key", one.key) for position, one in enumerate(self.dkim)]
        secrets.append(("queue.password_file", self.queue.password_file))
        for name, file in secrets:
            if file is not None and (problem := open_to_all(file)):
                yield f"{name}: {problem}; chmod o-r it"


def is_full_name(hostname: str) -> bool:
    """Whether it may be one that others can look up (RFC 5321 2.3.5)."""
    return "." in hostname and not hostname.endswith((".localdomain", ".localhost", ".local"))
