"""The settings are read as written, and every error names its key and what is allowed."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.settings.file import SettingsError, find, load
from engine.settings.settings import (
    Delivery,
    DestinationTls,
    Dns,
    Dsn,
    Listen,
    Nameserver,
    Route,
    Settings,
    TlsRules,
    UnixSocket,
)

DKIM = "[[dkim]]\ndomain = 'a.example'\nselector = 's'\n"
COMPLETE = """
hostname = "Relay.Example.net"
spool = "/var/spool/smarthost"
[intake.smtp]
listen = ["127.0.0.1:2525", "[::1]:0"]
relay_networks = ["127.0.0.0/8", "::1/128"]
max_message_size = "25 MiB"
max_sessions = 10
max_received = 30
[intake.drop]
enabled = false
[dns]
nameservers = ["192.0.2.53", "127.0.0.1:5300", "[::1]:5300", "2001:db8::53"]
[delivery]
port = 2526
max_connections = 20
max_connections_per_destination = 4
max_messages_per_connection = 100
check_interval = "30s"
bad_mx_timeout = "1h"
fallback_to_domain = true
[delivery.timeouts]
connect = 5
reply = "12m"
[retry]
schedule = ["5m", "10m", 3600]
give_up_after = "5d"
[[route]]
domain = "Internal.example"
host = "10.0.0.25"
[[route]]
domain = "*"
host = "upstream.example"
port = 587
tls = "required"
username = "relay"
password_file = "PASSWORD"
[events]
kept = 500
[console]
undo = "5s"
confirm_typed_over = 50
[control]
group = ""
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "smarthost.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        load(written(folder, text))
    assert str(folder / "smarthost.toml") in str(refused.value)
    return refused.value.problems


def test_all_settings_are_read(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    settings = load(written(tmp_path, COMPLETE.replace("PASSWORD", str(password))))
    assert settings.hostname == "relay.example.net"
    assert settings.spool == Path("/var/spool/smarthost")
    assert settings.intake.smtp.listen == (Listen("127.0.0.1", 2525), Listen("::1", 0))
    assert settings.intake.smtp.relay_networks[1] == ipaddress.ip_network("::1/128")
    assert settings.intake.smtp.max_message_size == 26_214_400
    assert not settings.intake.drop.enabled
    assert [str(server) for server in settings.dns.nameservers] == [
        "192.0.2.53:53",
        "127.0.0.1:5300",
        "[::1]:5300",
        "[2001:db8::53]:53",
    ]
    assert settings.dns.nameservers[0] == Nameserver("192.0.2.53", 53)
    assert (settings.delivery.port, settings.delivery.bad_mx_timeout) == (2526, 3600.0)
    assert (settings.delivery.timeouts.connect, settings.delivery.timeouts.reply) == (5.0, 720.0)
    assert settings.retry.schedule == (300.0, 600.0, 3600.0)
    assert settings.route == (
        Route(domain="internal.example", host="10.0.0.25"),
        Route(domain="*", host="upstream.example", port=587, tls="required", username="relay", password_file=password),
    )
    assert (settings.events.kept, settings.console.undo, settings.console.confirm_typed_over) == (500, 5.0, 50)


def test_the_defaults_are_those_of_an_empty_file(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == Settings() == load(None)
    settings = Settings()
    assert settings.hostname
    assert settings.spool.name == "smarthost"
    assert settings.intake.smtp.listen == (Listen("127.0.0.1", 2525),)
    assert settings.delivery.timeouts.reply == 600.0
    assert settings.retry.give_up_after == 5 * 86_400
    assert msgspec.structs.replace(settings, hostname="other.example").hostname == "other.example"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[delivery]\nmax_conections = 3", "delivery.max_conections: no such key", "did you mean max_connections?"),
        ("colour = 1", "colour: no such key", "allowed here: console, control, delivery"),
        ("[delivery]\nmax_connections = 0", "delivery.max_connections: 0 is out of range", "1 to"),
        ("[delivery]\nmax_connections = true", "delivery.max_connections: true is not a whole number", "1 to"),
        ("[delivery]\nport = 70000", "delivery.port: 70000 is out of range", "1 to 65535"),
        ("[delivery]\ncheck_interval = '30'", "delivery.check_interval: '30'", "30s"),
        ("[delivery]\ncheck_interval = 0", "delivery.check_interval: 0 is out of range", "more than 0s"),
        ("[delivery]\nfallback_to_domain = 'yes'", "delivery.fallback_to_domain: 'yes'", "true nor false"),
        ("[delivery.timeouts]\nmial = 1", "delivery.timeouts.mial: no such key", "did you mean mail?"),
        ("delivery = 3", "delivery: not a table", "[delivery]"),
        ("hostname = 'a b'", "hostname: not a host name", "relay.example.net"),
        ("hostname = '[127.0.0.1]'", "hostname: '[127.0.0.1]' is an address", "relay.example.net"),
        ("spool = 'here'", "spool: 'here' depends", "absolute path"),
        ("spool = '/dev/null'", "spool: '/dev/null' is not a folder", "absolute path"),
        ("[intake.smtp]\nlisten = '127.0.0.1:25'", "intake.smtp.listen: '127.0.0.1:25' is not a list", "[ ]"),
        ("[intake.smtp]\nlisten = ['127.0.0.1']", "intake.smtp.listen[0]: '127.0.0.1' is not host:port", "[::1]:2525"),
        ("[intake.smtp]\nlisten = ['::1:25']", "intake.smtp.listen[0]: '::1:25' is not host:port", "[::1]:2525"),
        ("[intake.smtp]\nlisten = ['127.0.0.1:99999']", "intake.smtp.listen[0]", "1 to 65535"),
        (
            "[intake.smtp]\nrelay_networks = ['10.0.0.1/8']",
            "intake.smtp.relay_networks[0]: '10.0.0.1/8' is no network",
            "10.0.0.0/8 is the network it lies in",
        ),
        ("[intake.smtp]\nproxy_networks = ['10.0.0.1/8']", "intake.smtp.proxy_networks[0]: '10.0.0.1/8'", "10.0.0.0/8"),
        ("[intake.smtp]\nproxy_networks = ['::/0']", "intake.smtp.proxy_networks[0]: '::/0' is everybody", "proxies"),
        ("[intake.smtp]\nlisten = ['unix:smtp.sock']", "intake.smtp.listen[0]: 'unix:smtp.sock' depends", "unix:/run/"),
        (f"[intake.smtp]\nlisten = ['unix:/{'x' * 107}']", "intake.smtp.listen[0]: 'unix:/xxx", "at most 107 octets"),
        (
            "[intake.submission]\nlisten = ['unix:/run/a.sock']",
            "intake.submission.listen[0]: 'unix:/run/a.sock' is not host:port",
            "127.0.0.1:2525",
        ),
        ("[intake.smtp]\nsocket_group = 'no such group'", "intake.smtp.socket_group: this machine has no", '"*" for'),
        (
            "[intake.submission]\nproxy_networks = ['10.0.0.7', '0.0.0.0/0']",
            "intake.submission.proxy_networks[1]: '0.0.0.0/0' is everybody",
            "name the proxies",
        ),
        ("[intake.smtp]\nmax_message_size = 'big'", "intake.smtp.max_message_size: 'big' is not a size", "25 MiB"),
        ("[intake.smtp]\nmax_message_size = 5", "intake.smtp.max_message_size: 5 is out of range", "1 KiB"),
        ("[intake.http]\nlisten = ['127.0.0.1:8025']", "intake.http.tokens: missing", "file of them"),
        (
            "[intake.http]\nlisten = ['192.0.2.5:8025']\ntokens = '/etc/tokens'",
            "intake.http.listen[0]: 192.0.2.5:8025 without TLS",
            "set certificate and key, or listen at 127.0.0.1",
        ),
        ("[intake.http]\nkey = '/etc/key.pem'", "intake.http.certificate: missing", "belong together"),
        ("[intake.http]\nlisten = ['unix:/run/a.sock']", "intake.http.listen[0]: 'unix:/run/a.sock'", "127.0.0.1:2525"),
        ("[intake.http]\nnetworks = ['10.0.0.1/8']", "intake.http.networks[0]: '10.0.0.1/8'", "10.0.0.0/8"),
        ("[dns]\nnameservers = ['ns.example']", "dns.nameservers[0]: 'ns.example' is not host:port", "127.0.0.1:5300"),
        ("[dns]\nnameservers = ['ns.example:53']", "dns.nameservers[0]", "127.0.0.1:5300"),
        ("[queue]\nstore = 'mysql://db/relay'", "queue.store: 'mysql://db/relay' is no", "postgresql://user@host/name"),
        ("[queue]\nstore = 'postgresql://a:b@db/relay'", "queue.store: a password stands", "queue.password_file"),
        ("[queue]\nstore = 'postgresql://db/relay?password=b'", "queue.store: a password", "queue.password_file"),
        ("[queue]\npassword_file = '/dev/null'", "queue.store: missing", "the database it belongs to"),
        ("[suppression]\nenabled = 'yes'", "suppression.enabled: 'yes'", "true nor false"),
        ("[suppression]\ncodes = '5.1.1'", "suppression.codes: '5.1.1' is not a list", "[ ]"),
        ("[suppression]\ncodes = ['5.7.1']", "suppression.codes[0]: '5.7.1' is of a policy", "5.1.1, 5.1.2"),
        ("[suppression]\ncodes = ['5.4.7']", "suppression.codes[0]: '5.4.7' is of the way there", "5.1.1, 5.1.2"),
        ("[suppression]\ncodes = ['5.1.1', '5.1.8']", "suppression.codes[1]: '5.1.8' is no code that", "5.1.1, 5.1.2"),
        ("[suppression]\ncodes = [511]", "suppression.codes[0]: 511 is not text", "in quotes"),
        ("[suppression]\ncodes = ['4.2.1']", "suppression.codes[0]: '4.2.1' is no code that", "5.2.1, 5.2.2"),
        ("[suppression]\nkeep = '30m'", "suppression.keep: '30m' is out of range", "from 1h to 366d"),
        ("[suppression]\nkeep = '2000d'", "suppression.keep: '2000d' is out of range", "from 1h to 366d"),
        ("[suppression]\nkeep = 'for ever'", "suppression.keep: 'for ever'", "1h30m"),
        ("[suppression]\nmost = 0", "suppression.most: 0 is out of range", "1 to 1000000"),
        ("[suppression]\nmost = 10_000_000", "suppression.most: 10000000 is out of range", "1 to 1000000"),
        ("[suppression]\nkept = '1d'", "suppression.kept: no such key", "did you mean keep?"),
        ("[retry]\nschedule = []", "retry.schedule: it is empty", "at least 1"),
        ("[retry]\nschedule = ['5m', '-1m']", "retry.schedule[1]: '-1m'", "30s"),
        ("[retry]\ndestination = 3", "retry.destination: not a list of tables", "[[retry.destination]]"),
        ("[[retry.destination]]\nschedule = ['1h']", "retry.destination[0].domain: missing", "no default"),
        ("[[retry.destination]]\ndomain = '*'", "retry.destination[0].domain", "not a host name"),
        (
            "[[retry.destination]]\ndomain = 'a.example'\nschedule = []",
            "retry.destination[0].schedule: it is empty",
            "1",
        ),
        (
            "[[retry.destination]]\ndomain = '*.a.example'\n[[retry.destination]]\ndomain = '*.A.example'",
            "retry.destination[1].domain",
            "retry.destination[0] has *.a.example already",
        ),
        ("[delivery]\nfamily = 'ipv5'", "delivery.family: 'ipv5' is none of both, ipv4, ipv6", "ipv6"),
        ("[delivery]\nsource_address = ['here']", "delivery.source_address[0]: 'here' is no IP address", "192.0.2.25"),
        (
            "[delivery]\nsource_address = ['192.0.2.1', '192.0.2.2']",
            "delivery.source_address: ",
            "two addresses of one family",
        ),
        ("[delivery]\nhello = 'a b'", "delivery.hello: not a host name", "relay.example.net"),
        ("[delivery]\nchunking = 'always'", "delivery.chunking: 'always' is none of never, offered", "offered"),
        (
            "[[route]]\ndomain = '*'\nhost = 'b.example'\nchunking = true",
            "route[0].chunking: true is none of never, offered",
            "offered",
        ),
        (
            "[[route]]\ndomain = '*'\nhost = 'b.example'\nform = 'smtp'\nchunking = 'offered'",
            'route[0].form: "smtp" with chunking = "offered"',
            'allowed is "never"',
        ),
        ("[log]\nmail = 'mail.log'", "log.mail: 'mail.log' is none of stderr, journal, syslog, none", "a file"),
        ("[dsn]\ndelay_notice = 'soon'", "dsn.delay_notice: 'soon'", 'or "never"'),
        ("[control]\ngroup = 'no such group here'", "control.group: this machine has no group", "name one"),
        ("route = 3", "route: not a list of tables", "[[route]]"),
        ("[[route]]\ndomain = 'a.example'", "route[0].host: missing", "no default"),
        ("[[route]]\ndomain = '*'\nhost = 'b.example'\ntls = 'yes'", "route[0].tls: 'yes' is none of", "required"),
        (
            "[[route]]\ndomain = 'a.example'\nhost = 'b.example'\n[[route]]\ndomain = 'A.example'\nhost = 'c.example'",
            "route[1].domain: route[0] has a.example already",
            "one route for each",
        ),
        (
            "[[route]]\ndomain = '*'\nhost = 'b.example'\nusername = 'u'\ntls = 'required'",
            "route[0].password_file: missing",
            "password",
        ),
        (
            "[[route]]\ndomain = '*'\nhost = 'b.example'\npassword_file = '/etc/hostname'",
            "route[0].username: missing",
            "user",
        ),
        (
            "[[route]]\ndomain = '*'\nhost = 'b.example'\nusername = 'u'\npassword_file = '/etc/hostname'",
            'route[0].tls: "opportunistic" with a username',
            "in the clear",
        ),
        (
            "[[route]]\ndomain = '*'\nhost = 'b.example'\nform = 'smtp'\ntls = 'verified'",
            'route[0].form: "smtp" with tls = "verified"',
            "STARTTLS needs EHLO",
        ),
        (
            ("[[route]]\ndomain = '*'\nhost = 'b.example'\nform = 'smtp'\ntls = 'implicit'\nusername = 'u'\n"
            "password_file = '/etc/hostname'"),
            'route[0].form: "smtp" with a username',
            "a login needs EHLO",
        ),
        (
            ("[[route]]\ndomain = '*'\nhost = 'a.example'\ntls = 'required'\nusername = 'u'\n"
            "password_file = '/etc/hostname'\ntoken_command = ['/bin/true']"),
            "route[0].token_command: there is password_file already",
            "one of them",
        ),
        (
            "[[route]]\ndomain = '*'\nhost = 'a.example'\ntoken_command = ['/bin/true']",
            "route[0].username: missing",
            "token_command needs the user",
        ),
        (
            "[[route]]\ndomain = '*'\nhost = 'a.example'\ntoken_command = ['true']",
            "route[0].token_command[0]: 'true' is no absolute path",
            "where the program is",
        ),
        (
            ("[[route]]\ndomain = '*'\nhost = 'a.example'\nusername = 'u'\ntls = 'required'\n[route.oauth]\n"
            "client_id = 'c'\ntoken_endpoint = 'http://login.example/token'"),
            "route[0].oauth.token_endpoint: 'http://login.example/token' is no address of HTTPS",
            "https://",
        ),
        ("[[route]]\ndomain = '*'\nhost = []", "route[0].host: it is empty", "at least 1"),
        ("[[route]]\ndomain = '*'\nhost = ['a.example', 'b c']", "route[0].host[1]: not a host name", "relay.example"),
        ("[[route]]\ndomain = '*'\nhost = ['a.example', 'A.example']", "route[0].host: one is named twice", "once"),
        (
            "[[route]]\ndomain = '*'\nhost = ['a.example', 'b.example']\nweights = [1]",
            "route[0].weights: 1 for 2 hosts",
            "one for each",
        ),
        ("[[route]]\ndomain = '*'\nhost = 'a.example'\nweights = [0]", "route[0].weights: all are 0", "more"),
        (
            "[[route]]\ndomain = '*'\nhost = 'b.example'\npassword_file = '/nowhere/at/all'",
            "route[0].password_file: /nowhere/at/all cannot be read",
            "No such file",
        ),
        ("dkim = 3", "dkim: not a list of tables", "[[dkim]]"),
        ("[[dkim]]\ndomain = 'a.example'\nselector = 's'", "dkim[0].key: missing", "no default"),
        (f"{DKIM}key = ''", "dkim[0].key: it is empty", "absolute path"),
        (f"{DKIM}key = 'key.pem'", "dkim[0].key: 'key.pem' depends", "absolute path"),
        (f"{DKIM}key = '/nowhere/at/all'", "dkim[0].key: /nowhere/at/all cannot be read", "No such file"),
        (
            f"{DKIM}key = '/etc/hostname'\n{DKIM}key = '/etc/hostname'",
            "dkim[1].selector: dkim[0] has s._domainkey.a.example already",
            "one dkim for each",
        ),
        (
            f"{DKIM}key = '/etc/hostname'".replace("a.ex", "*.ex"),
            "dkim[0].domain: '*.example' is no domain",
            "for all the domains below it",
        ),
        (f"{DKIM}key = '/etc/hostname'".replace("a.ex", "a" * 63 + ".ex"), "dkim[0].domain", "64 characters"),
        (f"{DKIM}key = '/etc/hostname'".replace("'s'", "'-s'"), "dkim[0].selector: '-s' is no selector", "letters"),
        ("[dkim_signing]\nunsigned = 'drop'", "dkim_signing.unsigned: 'drop' is none of", "refuse, send"),
        ("hostname = \"a\\u001bb\"", "hostname: it holds control characters", "seen"),
        ("hostname = ", "is not TOML", "Invalid value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path: Path, text: str, key: str, words: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(key)
    assert words in problem


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    told = problems(tmp_path, "colour = 1\n[delivery]\nport = 0\nmax_connections = 'many'\n[retry]\nschedule = 3")
    assert len(told) == 4


def test_plain_numbers_are_bytes_and_seconds(tmp_path: Path) -> None:
    settings = load(written(tmp_path, "[intake.smtp]\nmax_message_size = 10240\n[retry]\ngive_up_after = 60\n"))
    assert settings.intake.smtp.max_message_size == 10_240
    assert settings.retry.give_up_after == 60.0


@pytest.mark.parametrize(
    ("text", "octets"), [("10MB", 10_000_000), ("10 kib", 10_240), ("1.5 MiB", 1_572_864), ("2048", 2048)]
)
def test_sizes_are_read_in_their_units(tmp_path: Path, text: str, octets: int) -> None:
    settings = load(written(tmp_path, f'[intake.smtp]\nmax_message_size = "{text}"'))
    assert settings.intake.smtp.max_message_size == octets


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "smarthost.toml").write_bytes(b"hostname = '\xff'")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(tmp_path / "smarthost.toml")


def test_intake_may_listen_on_a_socket_for_everybody_on_the_machine(tmp_path: Path) -> None:
    text = '[intake.smtp]\nlisten = ["unix:/run/smarthost/smtp.sock", "[::1]:25"]\nsocket_group = "*"'
    smtp = load(written(tmp_path, text)).intake.smtp
    assert smtp.listen == (UnixSocket(Path("/run/smarthost/smtp.sock")), Listen("::1", 25))
    assert [str(place) for place in smtp.listen] == ["unix:/run/smarthost/smtp.sock", "[::1]:25"]
    assert smtp.socket_group == "*"


def test_the_settings_are_found_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.settings.file.MACHINE_WIDE", tmp_path / "machine.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SMARTHOST_CONFIG", raising=False)
    assert find() is None
    users = tmp_path / "home" / "smarthost" / "smarthost.toml"
    for path in (users, tmp_path / "machine.toml", tmp_path / "variable.toml", tmp_path / "named.toml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find() == tmp_path / "machine.toml"
    (tmp_path / "machine.toml").unlink()
    assert find() == users
    monkeypatch.setenv("SMARTHOST_CONFIG", str(tmp_path / "variable.toml"))
    assert find() == tmp_path / "variable.toml"
    assert find(tmp_path / "named.toml") == tmp_path / "named.toml"


def test_a_file_that_was_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="--config names it"):
        find(tmp_path / "none.toml")
    monkeypatch.setenv("SMARTHOST_CONFIG", os.fspath(tmp_path / "none.toml"))
    with pytest.raises(SettingsError, match=r"\$SMARTHOST_CONFIG names it"):
        find()


def test_tls_is_set_for_all_and_for_a_destination(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    text = f"""
[dns]
validating = true
[tls]
mta_sts = false
dane = false
ca_file = "{authority}"
[[tls.destination]]
domain = "Example.org"
level = "verified"
[[tls.destination]]
domain = "*"
level = "required"
ca_file = "{authority}"
"""
    settings = load(written(tmp_path, text))
    assert settings.dns.validating
    assert settings.tls == TlsRules(
        mta_sts=False,
        dane=False,
        ca_file=authority,
        destination=(
            DestinationTls(domain="example.org", level="verified"),
            DestinationTls(domain="*", level="required", ca_file=authority),
        ),
    )


def test_what_is_wrong_with_tls_settings_is_named(tmp_path: Path) -> None:
    text = """
[tls]
destination = 1
"""
    assert problems(tmp_path, text) == (
        "tls.destination: not a list of tables; write [[tls.destination]] before each destination's keys",
    )
    text = """
[[tls.destination]]
domain = "a.example"
level = "best"
[[tls.destination]]
domain = "b.example"
level = "none"
[[tls.destination]]
domain = "b.example"
level = "required"
"""
    assert problems(tmp_path, text) == (
        "tls.destination[0].level: 'best' is none of none, opportunistic, required, verified",
        "tls.destination[2].domain: tls.destination[1] has b.example already; one destination for each",
    )


def notes(**settings: Any) -> tuple[str, ...]:
    """The notes of settings that are otherwise as they should be."""
    told: dict[str, Any] = {"hostname": "relay.example.net", "dsn": Dsn(postmaster="postmaster@example.net")}
    return Settings(**(told | settings)).notes


def test_dane_without_a_validating_resolver_is_noted_where_it_is_asked_for() -> None:
    assert notes() == ()
    off = "DANE is off: dns.validating is false, so no answer of the DNS counts as secure"
    assert notes(tls=TlsRules(dane=True)) == (off,)
    assert notes(tls=TlsRules(dane=True), dns=Dns(validating=True)) == ()
    assert notes(tls=TlsRules(dane=False)) == ()


@pytest.mark.parametrize("name", ["vm", "localhost", "localhost.localdomain"])
def test_a_hostname_that_is_no_full_name_is_noted(name: str) -> None:
    (note,) = notes(hostname=name)
    assert note.startswith(f'hostname: "{name}" is not the full name of a host')


def test_a_postmaster_that_is_not_named_is_noted() -> None:
    (note,) = notes(dsn=Dsn())
    assert note.startswith("dsn.postmaster: not set")


def test_the_postmaster_is_an_address(tmp_path: Path) -> None:
    assert load(written(tmp_path, '[dsn]\npostmaster = "Postmaster@Example.org"\n')).dsn.postmaster == (
        "Postmaster@example.org"
    )
    assert load(written(tmp_path, '[dsn]\npostmaster = ""\n')).dsn.postmaster == ""
    for wrong in ("postmaster", "a b@example.org", "<>", "a@b@c"):
        (problem,) = problems(tmp_path, f'[dsn]\npostmaster = "{wrong}"\n')
        assert problem.startswith("dsn.postmaster: ")
        assert problem.endswith("write it as postmaster@example.org")


def test_the_level_of_the_log_is_one_of_four(tmp_path: Path) -> None:
    assert load(written(tmp_path, '[log]\nlevel = "warning"\n')).log.level == "warning"
    (problem,) = problems(tmp_path, '[log]\nlevel = "noisy"\n')
    assert problem == "log.level: 'noisy' is none of debug, info, warning, error"


def test_a_route_may_be_for_all_domains_below_one(tmp_path: Path) -> None:
    (route,) = load(written(tmp_path, '[[route]]\ndomain = "*.Example.org"\nhost = "up.example"\n')).route
    assert route.domain == "*.example.org"
    (problem,) = problems(tmp_path, '[[route]]\ndomain = "a.*.org"\nhost = "up.example"\n')
    assert problem.startswith("route[0].domain: ")


@pytest.mark.parametrize(("keys", "port"), [("", 465), ("port = 10465", 10465)])
def test_tls_comes_first_at_its_own_port_unless_another_is_named(tmp_path: Path, keys: str, port: int) -> None:
    (route,) = load(written(tmp_path, f'[[route]]\ndomain = "*"\nhost = "up.example"\ntls = "implicit"\n{keys}')).route
    assert (route.port, route.level) == (port, "verified")


def test_some_destinations_are_tried_in_another_way(tmp_path: Path) -> None:
    text = "[[retry.destination]]\ndomain = '*.Example.org'\nschedule = ['1h', '2h']\ngive_up_after = '2d'\n"
    (one,) = load(written(tmp_path, text)).retry.destination
    assert (one.domain, one.schedule, one.give_up_after) == ("*.example.org", (3600.0, 7200.0), 2 * 86_400.0)


@pytest.mark.parametrize(("text", "seconds"), [("'4h'", 14_400.0), ("'0s'", 0.0), ("'never'", 0.0), ("0", 0.0)])
def test_the_notice_of_delay_comes_when_it_says_or_never(tmp_path: Path, text: str, seconds: float) -> None:
    assert load(written(tmp_path, f"[dsn]\ndelay_notice = {text}\n")).dsn.delay_notice == seconds


def test_the_settings_in_the_readme_are_right(tmp_path: Path) -> None:
    (written,) = re.findall(r"```toml\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.DOTALL)
    there = tmp_path / "there"
    there.touch()
    path = tmp_path / "smarthost.toml"
    path.write_text(re.sub(r'"/etc/smarthost/[a-z.]+"', f'"{there}"', written))
    settings = load(path)
    assert settings.limit[0].messages_per_minute == 600
    assert settings.delivery == Delivery(timeouts=settings.delivery.timeouts)  # all it shows are the defaults
