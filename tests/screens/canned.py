"""A client with canned answers at a fixed time, which remembers what it was asked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from engine.base.words import stand_in, words_of
from engine.control import views
from engine.control.client import Client, EngineUnreachable, Refused
from engine.model.destination import BadHost, Destination, Suspension
from engine.model.event import Event, Kind
from engine.model.explanation import Explanation, Fact
from engine.model.message import Attempt, Entry, Message, Selection, Window
from engine.model.node import NodeState, Said
from engine.model.outcome import Outcome
from engine.model.probe import Certificate, Probed, ProbedAddress
from engine.model.reason import Reason
from engine.model.transcript import Line
from engine.model.verbs import Ask, Bounce, Drop, DryAsk, MailAsk, Result, verb_of

A = TypeVar("A", bound=Ask)

NOW = 1_800_007_331.0  # 2027-01-15 10:02:11 UTC

RATE = Outcome.of_reply(
    421, "4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address. To "
    "protect our users from spam, mail sent from your IP address has been temporarily rate limited. Please visit "
    "https://support.example/bulk_email to review our guidelines.", host="mx1.gmail.example", phase="MAIL",
)  # fmt: skip
OK = Outcome.of_reply(250, "2.0.0 OK queued as 4RzK1t6JbQz", host="mx.outlook.example", phase="reply")
FULL = Outcome.of_reply(452, "4.2.2 The recipient's inbox is over quota", host="mx2.example.org", phase="RCPT")
GONE = Outcome.of_reply(550, "5.1.1 <zoe@example.org>: user unknown", host="mx2.example.org", phase="RCPT")
GREY = Outcome.of_reply(451, "4.7.1 Greylisted, try again in 300 s", host="mx.uni.example", phase="RCPT")
DEAD = Outcome.transient("connect: connection refused", host="mx1.dead.example", phase="connecting")
SLOW = Outcome.transient("no greeting within 300 s", host="mx.slow.example", phase="greeting")

PAUSE = Suspension(
    destination="lists.example.net", since=NOW - 1_140, until=NOW + 2_460, by="oncall", note="their list server loops"
)
WHOLE = Suspension(destination="*", since=NOW - 300, until=NOW + 1_500, by="ann", note="moving racks")

HEALTH = views.HealthView(
    hostname="relay1.example.net", version="0.1.0", pid=4711, started=NOW - 400_000, now=NOW, state="relaying",
    waiting=12_480, due=310, ready=296, held=24, relaying=41, oldest=NOW - 8_080, destinations=9, destinations_known=9,
    rate_in=398.0, rate_out=412.3, connections=14, max_connections=20, next_check=NOW + 28,
)  # fmt: skip
CALM = replace(
    HEALTH,
    waiting=0,
    due=0,
    ready=0,
    held=0,
    relaying=0,
    oldest=None,
    destinations=0,
    rate_in=0.0,
    rate_out=0.0,
    connections=0,
)


def _condition(row: dict[str, Any]) -> dict[str, Any]:
    """What the engine would say of a destination."""
    if row.get("suspended"):
        return {"condition": "suspended", "next_try": row["suspended"].until, "condition_why": "suspended by oncall"}
    if row.get("blocked_until"):
        return {"condition": "blocked", "next_try": row["blocked_until"], "condition_why": row["blocked_why"]}
    if row["relaying"]:
        return {"condition": "relaying", "next_try": NOW - 1}
    if row["last"] is not None and row["last"].kind != "delivered":
        return {"condition": "not due", "next_try": NOW + 41, "condition_why": row["last"].line}
    return {"condition": "ready", "next_try": NOW - 1}


def _destination(name: str, waiting: int, due: int, held: int, oldest: float, rate: float, last: Outcome | None,
                 **more: Any) -> Destination:  # fmt: skip
    row: dict[str, Any] = {"last": last, "relaying": 0, **more}
    if last is not None and last.host and row.get("exchanges") and last.host not in row["exchanges"]:
        row["last"] = replace(last, host=row["exchanges"][0])
    return Destination(
        name=name, waiting=waiting, due=due, held=held, oldest=NOW - oldest, rate_out=rate,
        last_at=NOW - 12 if last else None, next_due=NOW + 41, **_condition(row) | row,
    )  # fmt: skip


DESTINATIONS = (
    _destination("gmail.example", 8_120, 210, 0, 8_080, 41.0, RATE, relaying=20, connections=4,
                 exchanges=("mx1.gmail.example", "mx2.gmail.example", "mx3.gmail.example"),
                 neighbours=("googlemail.example", "bakery.example", "school.example", "choir.example")),
    _destination("dead.example", 2_204, 0, 0, 7_412, 0.0, DEAD, blocked_until=NOW + 761,
                 blocked_why="no exchange could be reached", exchanges=("mx1.dead.example",)),
    _destination("outlook.example", 1_702, 80, 0, 2_466, 322.1, OK, relaying=20, connections=6,
                 exchanges=("mx.outlook.example",)),
    _destination("lists.example.net", 291, 0, 0, 1_980, 0.0, OK, suspended=PAUSE,
                 exchanges=("mx.lists.example.net",)),
    _destination("slow.example", 106, 14, 0, 3_002, 0.0, SLOW, exchanges=("mx.slow.example", "mx-b.slow.example")),
    _destination("example.org", 41, 6, 24, 1_260, 2.4, FULL, relaying=1, connections=2,
                 exchanges=("mx1.example.org", "mx2.example.org")),
    _destination("uni.example", 12, 0, 0, 290, 0.0, GREY, exchanges=("mx.uni.example",)),
    _destination("bücher.example", 3, 0, 0, 88, 0.0, None, exchanges=("mx.xn--bcher-kva.example",)),
    _destination("a-very-long-name-that-nobody-can-read.subdomain.example.com", 1, 0, 0, 31, 0.0, OK),
)  # fmt: skip


def _relayer(number: int, host: str, destination: str, phase: str, since: float, done: int, taken: int,
             tls: str = "TLSv1.3", **more: Any) -> views.RelayerView:  # fmt: skip
    address, port = (f"198.51.100.{number % 250}", 25) if host else ("", 0)
    return views.RelayerView(
        id=number, destination=destination, host=host, address=address, port=port, phase=phase,
        phase_since=NOW - since, started=NOW - since - 7.5, done=done, taken=taken, tls=tls, **more,
    )  # fmt: skip


OUTLOOK = ("outlook.example", "hotmail.example", "live.example", "northwind.example", "contoso.example")


RELAYERS = (
    _relayer(901, "mx2.example.org", "example.org", "RCPT", 141.0, 0, 20, "", stalling=True),
    _relayer(902, "mx1.gmail.example", "gmail.example", "body", 0.2, 12, 100),
    _relayer(903, "mx1.gmail.example", "gmail.example", "MAIL", 0.1, 47, 100),
    _relayer(904, "mx2.gmail.example", "gmail.example", "reply", 1.4, 88, 100),
    _relayer(905, "mx3.gmail.example", "gmail.example", "TLS", 0.3, 0, 100, ""),
    _relayer(
        906,
        "mx.outlook.example",
        "live.example",
        "body",
        0.1,
        61,
        100,
        "TLSv1.2",
        site="mx.outlook.example",
        domains=OUTLOOK,
    ),
    _relayer(907, "mx.outlook.example", "outlook.example", "RCPT", 0.4, 17, 100, "TLSv1.2"),
    _relayer(908, "mx.outlook.example", "outlook.example", "reply", 0.8, 99, 100, "TLSv1.2"),
    _relayer(909, "mx.outlook.example", "outlook.example", "DATA", 0.1, 3, 100, "TLSv1.2"),
    _relayer(910, "mx.outlook.example", "outlook.example", "body", 0.2, 31, 100, "TLSv1.2"),
    _relayer(911, "mx.outlook.example", "outlook.example", "MAIL", 0.1, 75, 100, "TLSv1.2"),
    _relayer(912, "mx-b.slow.example", "slow.example", "greeting", 31.0, 0, 14, "", stalling=True),
    _relayer(913, "mx1.example.org", "example.org", "idle", 1.2, 6, 6),
    _relayer(914, "", "uni.example", "lookup", 0.6, 0, 1, ""),
)

HOSTS = (
    BadHost(host="mx1.dead.example", since=NOW - 2_839, until=NOW + 761, by="engine",
                   note="connect: connection refused", last=DEAD, waiting=2_204, destinations=("dead.example",),
                   next_due=NOW + 761, next_try=NOW + 761, times=3),
    BadHost(host="mx.slow.example", since=NOW - 718, until=NOW + 2_882, by="oncall", note="maintenance",
                   last=SLOW, waiting=0, destinations=("slow.example",), alternates=("mx-b.slow.example",),
                   next_due=NOW + 20, next_try=NOW + 20),
    BadHost(host="mx9.uni.example", since=NOW - 100, until=NOW + 9_101, by="engine",
                   note="greeting: 554 5.7.1 no SMTP service here", waiting=12,
                   destinations=("uni.example", "a.uni.example"),
                   alternates=("mx.uni.example", "mx2.uni.example")),
)  # fmt: skip


def entry(number: int, part: int = 1, **more: Any) -> Entry:
    """A row of the queue, made from its number."""
    names = ("bob", "ann", "zoe", "carol", "dave", "mallory", "grace")
    domain = more.pop("destination", "example.org")
    state = more.pop("state", "waiting")
    due = more.pop("due", NOW + (number * 37) % 900 - 60)
    last = more.pop("last", FULL if number % 4 else None)
    tried = max(due, more.pop("blocked_until", None) or 0.0)
    is_ready, blocked = tried <= NOW, tried > due
    condition = state if state != "waiting" else "ready" if is_ready else "blocked" if blocked else "not due"
    why = last.line if condition == "not due" and last is not None else ""
    if state == "held":
        ordered = more.get("ordered") if more.get("order_at") else None
        condition = {"bounce": "to be bounced", "drop": "to be dropped"}.get(ordered or "", "held")
        why = ": ".join(filter(None, (f"by {more.get('by', 'oncall')}", more.get("note", ""))))
    judged: dict[str, Any] = {"condition": condition, "condition_why": why}
    judged["next_try"] = None if state == "held" else tried
    return Entry(
        message=number, number=part, sender=more.pop("sender", "news@shop.example"),
        recipient=more.pop("recipient", f"{names[number % len(names)]}@{domain}"), destination=domain, state=state,
        arrived=NOW - 1_260 + number % 600, due=due,
        expires=NOW + 430_740, attempts=more.pop("attempts", number % 4), size=more.pop("size", 4_100 + number % 9_000),
        subject=more.pop("subject", f"Your order {number}"),
        last=last, last_at=NOW - 120,
        **judged | more,
    )  # fmt: skip


ENTRIES = (
    *(
        entry(48_200 + index, state=("held" if index % 9 == 4 else "relaying" if index % 9 == 7 else "waiting"))
        for index in range(1, 60)
    ),
    entry(48_290, ordered="bounce", order_at=NOW + 8, state="held", by="oncall", note="runaway sender"),
)


def _mail_of(row: Destination) -> Iterator[Entry]:
    """The same mail as if it were for this destination, and what that says of it."""
    for one in ENTRIES:
        if (one.state == "held" and not row.held) or (one.state == "relaying" and not row.relaying):
            continue
        last = row.last if one.attempts and row.last is not None and row.last.kind != "delivered" else None
        more: dict[str, Any] = {} if last is not None else {"attempts": 0}
        if row.suspended is not None:
            why = f"by {row.suspended.by}: {row.suspended.note}"
            more |= {"condition": "suspended", "next_try": row.suspended.until, "condition_why": why}
        if one.ordered is None:
            yield entry(one.message, destination=row.name, state=one.state, blocked_until=row.blocked_until,
                        due=one.due if row.due else max(one.due, NOW + 60), last=last, **more)  # fmt: skip


def _event(seq: int, ago: float, kind: Kind, by: str = "engine", **more: Any) -> Event:
    return Event(seq=seq, at=NOW - ago, kind=kind, by=by, **more)


EVENTS = tuple(
    reversed([
        _event(7_040, 0, "delivered", message=48_311, entry=1, recipient="bob@outlook.example",
               destination="outlook.example", host="mx.outlook.example", outcome=OK),
        _event(7_039, 1, "deferred", message=48_102, entry=1, recipient="ann@gmail.example",
               destination="gmail.example", host="mx1.gmail.example", outcome=RATE),
        _event(7_038, 1, "accepted", message=48_312, sender="news@shop.example", text="1 recipient, 4.0 KiB, smtp"),
        _event(7_037, 4, "marked bad", by="oncall", host="mx.slow.example", text="for 1h: maintenance"),
        _event(7_036, 6, "returned", message=47_990, entry=1, recipient="zoe@example.org",
               destination="example.org", host="mx2.example.org", outcome=GONE),
        _event(7_035, 12, "held", by="oncall", destination="example.org", text="24 messages: domain=example.org"),
        _event(7_034, 19, "unreachable", destination="dead.example", text="no exchange could be reached"),
        _event(7_033, 19, "marked bad", host="mx1.dead.example", text="for 1h: connect: connection refused"),
        _event(7_032, 44, "suspended", by="oncall", destination="lists.example.net",
               text="for 1h: their list server loops"),
        _event(7_031, 60, "checked", by="oncall", text="3 connections opened"),
        _event(7_030, 71, "marked good", host="mx7.example.com", text="it answered"),
        *(_event(7_029 - index, 75 + index * 3, "delivered", message=48_310 - index,
                 recipient=f"u{index}@outlook.example", destination="outlook.example", host="mx.outlook.example",
                 outcome=OK) for index in range(40)),
    ])
)  # fmt: skip

MARKED = tuple(
    replace(
        row,
        marked=tuple(one for one in HOSTS if one.host in row.exchanges),
    )
    for row in DESTINATIONS
)
OVERVIEW = views.OverviewView(health=HEALTH, destinations=MARKED, relayers=RELAYERS, hosts=HOSTS, events=EVENTS)


def _node(name: str, state: str = "relaying", **more: Any) -> NodeState:
    said = Said(state=state, connections=14, max_connections=20, relaying=212, rate_in=131.0, rate_out=140.2)
    fields: dict[str, Any] = {"epoch": 1, "version": "0.1.0", "since": NOW - 86_400 * 3, "beat": NOW - 4,
                              "until": NOW + 26, "said": said}  # fmt: skip
    return NodeState(name=name, **{**fields, **more})


NODES = (
    _node("a", is_this=True),
    _node("b", drained_at=NOW - 640, drained_by="oncall",
          said=Said(state="draining", connections=2, max_connections=20, relaying=3, rate_out=1.5)),
    _node("c", is_silent=True),
    _node("relay4", "lost", is_lost=True, beat=NOW - 512, until=NOW - 482),
)  # fmt: skip
OVERVIEW_OF_NODES = replace(
    OVERVIEW,
    health=replace(HEALTH, node="a", nodes=4, nodes_lost=1),
    relayers=tuple(replace(row, node="ab"[number % 2]) for number, row in enumerate(RELAYERS)),
    events=tuple(replace(row, node="ab"[row.seq % 3 == 0]) for row in EVENTS),
)


MESSAGE = Message(
    number=48_213, sender="news@shop.example", size=4_312, arrived=NOW - 1_247, expires=NOW + 430_753,
    origin="smtp 192.0.2.17 (app1.shop.example)", subject="Your order 48213 is on its way",
    message_id="<20270115094124.48213@app1.shop.example>",
    headers=(
        ("Received: from app1.shop.example (app1.shop.example [192.0.2.17]) by relay1.example.net with ESMTP id "
         "48213; Fri, 15 Jan 2027 09:41:24 +0000"),
        "From: Shop <news@shop.example>", "To: bob@example.org, zoe@example.org",
        "Subject: Your order 48213 is on its way", "Message-ID: <20270115094124.48213@app1.shop.example>",
    ),
    entries=(
        entry(48_213, 1, recipient="bob@example.org", attempts=2, due=NOW + 184),
        entry(48_213, 2, recipient="carol@example.org", attempts=2, state="held", by="oncall", note="their quota"),
    ),
    attempts=(
        Attempt(entry=1, relayer=860, started=NOW - 1_246, ended=NOW - 1_246, interrupted=True),
        Attempt(entry=1, relayer=871, started=NOW - 900, ended=NOW - 898.8, outcome=RATE),
        Attempt(entry=1, relayer=880, started=NOW - 120, ended=NOW - 118.2, outcome=FULL),
    ),
    events=(
        _event(6_001, 1_247, "accepted", message=48_213, sender="news@shop.example", text="3 recipients, 4.2 KiB"),
        _event(6_044, 898, "deferred", message=48_213, recipient="bob@example.org", outcome=RATE),
        _event(6_140, 118, "returned", message=48_213, recipient="zoe@example.org", outcome=GONE),
        _event(6_141, 118, "held", by="oncall", message=48_213, recipient="carol@example.org", text="their quota"),
    ),
)  # fmt: skip

FINISHED = Message(
    number=48_311, finished=True, sender="news@shop.example",
    events=(
        _event(7_001, 9, "accepted", message=48_311, sender="news@shop.example", text="1 recipient, 4.0 KiB"),
        _event(7_040, 0, "delivered", message=48_311, recipient="bob@outlook.example", outcome=OK),
    ),
)  # fmt: skip


def _lines(*said: tuple[float, str, str]) -> tuple[Line, ...]:
    return tuple(Line(at=NOW - ago, side=side, text=text) for ago, side, text in said)  # type: ignore[arg-type]


TRANSCRIPT = views.TranscriptView(
    relayer=RELAYERS[0],
    lines=_lines(
        (148.5, "=", "connecting to 198.51.100.151 port 25 (mx2.example.org)"),
        (148.3, "<", "220 mx2.example.org ESMTP ready"),
        (148.3, ">", "EHLO relay1.example.net"),
        (148.2, "<", "250-mx2.example.org"), (148.2, "<", "250-SIZE 52428800"), (148.2, "<", "250 8BITMIME"),
        (148.2, "=", "no STARTTLS is offered; going on in the clear"),
        (148.1, ">", "MAIL FROM:<news@shop.example> SIZE=4312"),
        (148.0, "<", "250 2.1.0 Ok"),
        (147.9, ">", "RCPT TO:<zoe@example.org>"),
        (147.8, "<", "550 5.1.1 <zoe@example.org>: user unknown"),
        (147.7, ">", "RCPT TO:<bob@example.org>"),
        (141.0, "<", ("452 4.2.2 The recipient's inbox is over quota, which is a pity, since it is the only one there "
                      "is, and it has been over quota for eleven days in a row now")),
        (141.0, ">", "RCPT TO:<carol@example.org>"),
    ),
)  # fmt: skip


REASONS = (
    Reason(
        group="421 4.7.28 <host> Our system has detected an unusual rate of mail from your IP address [<ip>]",
        entries=8_120, messages=7_904, destinations=3, busiest=("gmail.com", "googlemail.com", "example.edu"),
        oldest=NOW - 8_040,
    ),
    Reason(
        group="450 4.2.1 <address>: mailbox busy, try again in <n> seconds",
        entries=212, messages=207, destinations=48, busiest=("example.org", "example.net", "example.com"),
        oldest=NOW - 1_260,
    ),
    Reason(
        group="4.4.1 connect to [<ip>]:<n>: connection refused",
        entries=14, messages=14, destinations=1, busiest=("dead.example",), oldest=NOW - 86_400,
    ),
    Reason(
        group="held by oncall", entries=9, messages=9, destinations=2, busiest=("example.org", "example.net"),
        oldest=NOW - 4_100,
    ),
    Reason(
        group="not tried yet", entries=3, messages=3, destinations=2, busiest=("example.net",), oldest=NOW - 2,
    ),
)  # fmt: skip
EXPLAINED = views.ExplainView(
    subject="48202.1", now=NOW, explanations=(
        Explanation(
            subject="ann@gmail.example", destination="gmail.example", cause="not due", entry="48202.1",
            text="it is not due for another 4m12s; the last try: 421 4.7.28 Our system has detected an unusual rate",
            until=NOW + 252, earliest=NOW + 252, facts=(
                Fact(name="last reply", text=f"{RATE.line} (mx1.gmail.example)"),
                Fact(name="tries", text="7; will be given up in 4d21h"),
                Fact(name="route", text="to its mail exchanges"),
                Fact(name="DNS", text="mail exchanges mx1.gmail.example (5), mx2.gmail.example (10)"),
                Fact(name="host mx1.gmail.example", text="192.0.2.26; TLS opportunistic (the default)"),
                Fact(name="host mx2.gmail.example", text="marked bad by oncall for another 48m: maintenance; "
                               "192.0.2.27, 2001:db8::1b; TLS opportunistic (the default)"),
                Fact(name="connections", text="14 of 20 open (delivery.max_connections); 4 of 5 to this "
                               "destination (delivery.max_connections_per_destination)"),
            ),
        ),
    ),
)  # fmt: skip
PROBED = Probed(
    host="mx.slow.example", port=25, at=NOW, addresses=(
        ProbedAddress(
            address="192.0.2.40", port=25, phase="QUIT", seconds=0.31, greeting="220 mx.slow.example ESMTP ready",
            offered=("PIPELINING", "SIZE 26214400", "STARTTLS", "8BITMIME"), tls="TLSv1.3", verifies=False,
            verify_trouble="self-signed certificate", offered_secured=("PIPELINING", "SIZE 26214400", "8BITMIME"),
            certificate=Certificate(subject="CN=mx.slow.example", issuer="CN=mx.slow.example",
                                              names=("mx.slow.example",), since=NOW - 8e6, until=NOW + 8e5),
        ),
        ProbedAddress(
            address="2001:db8::28", port=25, phase="connecting", seconds=0.02, trouble="connect: connection refused"
        ),
    ),
)  # fmt: skip
STANDING = (
    views.StandingView(kind="host mark", name="mx1.dead.example", what="is left out", since=NOW - 2_839,
                       until=NOW + 761, by="engine", note="connect: connection refused"),
    views.StandingView(kind="suspension", name="lists.example.net", what="opens no new connections", since=NOW - 1_140,
                       until=NOW + 2_460, by="oncall", note="their list server loops"),
    views.StandingView(kind="hold rule", name="from=crm@shop.example", what="holds what comes, 1,204 recipients now",
                       since=NOW - 600, until=NOW + 6_600, by="ann", note="runaway newsletter", rule=3),
    views.StandingView(kind="override", name="partner.example", what="goes to gw2.partner.example:2525", since=NOW - 60,
                       until=NOW + 10_740, by="oncall", note="their MX record is wrong until noon"),
)  # fmt: skip


SUSPENDED = replace(OVERVIEW, health=replace(HEALTH, state="suspended", suspended=WHOLE, rate_out=0.0, connections=0))


_SAID = {
    "check": "checked: 3 connections opened",
    "undo": "12 messages wait again",
    "suspend": "{0.destination} is suspended",
    "resume": "{0.destination} goes on",
    "mark-bad": "{0.host} is marked bad",
    "mark-good": "{0.host} is used again; 2,204 messages are due now",
    "hold-rule": "hold rule 4: {0.filter} is held when it comes in",
    "release-rule": "hold rule {0.rule} has ended",
    "override": "mail for {0.destination} goes to {0.to}",
    "end-override": "mail for {0.destination} goes its own way again",
    "close": "relayer {0.relayer} is closed",
    "drain": "node {0.node} is drained: it finishes what it sends; a and c send what waits",
    "undrain": "node {0.node} takes and sends mail again",
}


class CannedClient(Client):
    """Answers from what it was given. `asked` holds every question that is not a look at the overview."""

    def __init__(self, overview: views.OverviewView = OVERVIEW, entries: tuple[Entry, ...] = ENTRIES) -> None:
        super().__init__(Path("control.sock"))
        self.seen = overview
        self.entries = entries
        self.asked: list[tuple[Any, ...]] = []
        self.more_hosts: tuple[BadHost, ...] = ()
        self.lost = False
        self.refusal: views.Refusal | None = None
        self.broken: Exception | None = None
        self.selection = Selection(messages=12, recipients=14, newest=48_311, examples=ENTRIES[:3])
        self.view = MESSAGE
        self.transcript_view = TRANSCRIPT
        self.reason_views = REASONS
        self.node_states: tuple[NodeState, ...] = ()
        self.followed: views.FollowUpView | None = None  # what becomes of what is done from now on

    def _reach(self, *asked: Any) -> None:
        if asked:
            self.asked.append(asked)
        if self.lost:
            raise EngineUnreachable("no engine answers on control.sock")
        if self.broken is not None:
            raise self.broken
        if self.refusal is not None and asked:
            raise Refused(self.refusal)

    def did(self, *kinds: type[A]) -> list[A]:
        """What it was asked to do, of these kinds."""
        return [ask for _, ask in self.asks("ask") if isinstance(ask, kinds)]

    def previewed(self, *kinds: type[A]) -> list[A]:
        """What it was asked dry, of these kinds."""
        return [ask for _, ask in self.asks("would") if isinstance(ask, kinds)]

    def asks(self, name: str) -> list[tuple[Any, ...]]:
        """The questions of one name."""
        return [asked for asked in self.asked if asked[0] == name]

    async def health(self) -> views.HealthView:
        self._reach()
        return self.seen.health

    async def overview(self, destinations: int = 50, hosts: int = 50, events: int = 50) -> views.OverviewView:
        self._reach()
        return self.seen

    async def queue(self, filter: str = "", sort: str = "id", offset: int = 0, limit: int = 100) -> Window:
        self._reach("queue", filter, sort, offset, limit)
        named = next((row for row in self.seen.destinations if filter == f"domain={row.name}"), None)
        found = self.entries if self.entries is not ENTRIES or named is None else tuple(_mail_of(named))
        return Window(total=len(found), offset=offset, rows=found[offset : offset + limit])

    async def message(self, number: int) -> Message:
        self._reach("message", number)
        return self.view

    async def destinations(
        self, match: str = "", sort: str = "-waiting", offset: int = 0, limit: int = 100
    ) -> views.DestinationsView:
        self._reach("destinations", match, sort, offset, limit)
        rows = tuple(row for row in self.seen.destinations if match in row.name)
        return views.DestinationsView(total=len(rows), offset=offset, rows=rows[offset : offset + limit])

    async def destination(self, name: str) -> Destination:
        self._reach("destination", name)
        empty = Destination(name=name, waiting=0, due=0, held=0, relaying=0)
        return next((row for row in self.seen.destinations if row.name == name), empty)

    async def relayers(self, ended: int = 0) -> tuple[views.RelayerView, ...]:
        self._reach("relayers", ended)
        return self.seen.relayers

    async def transcript(self, relayer: int, node: str = "") -> views.TranscriptView:
        self._reach("transcript", relayer, *filter(None, (node,)))
        return self.transcript_view

    async def nodes(self) -> tuple[NodeState, ...]:
        self._reach("nodes")
        return self.node_states

    async def hosts(self, match: str = "", sort: str = "back", offset: int = 0, limit: int = 100) -> views.HostsView:
        self._reach("hosts", match, sort, offset, limit)
        orders: dict[str, Callable[[BadHost], Any]] = {
            "back": lambda row: row.until, "host": lambda row: row.host, "waiting": lambda row: row.waiting,
        }  # fmt: skip
        rows = [row for row in self.every_host if stand_in(words_of(match), f"{row.host} {row.by} {row.note}")]
        rows.sort(key=orders[sort.lstrip("-")], reverse=sort.startswith("-"))
        return views.HostsView(total=len(rows), offset=offset, rows=tuple(rows[offset : offset + limit]))

    async def host(self, name: str) -> BadHost:
        self._reach("host", name)
        found = next((row for row in self.every_host if row.host == name), None)
        if found is None:
            raise Refused(views.Refusal(what=f"{name} is not marked bad", where="host", not_found=True))
        return found

    @property
    def every_host(self) -> tuple[BadHost, ...]:
        """All that are marked bad, of which the overview may have the first alone."""
        return self.more_hosts or self.seen.hosts

    async def reasons(self, limit: int = 100) -> tuple[Reason, ...]:
        self._reach("reasons", limit)
        return self.reason_views

    async def events(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        self._reach("events", before, after, match, limit)
        rows = [row for row in self.seen.events if match in f"{row.recipient} {row.host} {row.text}"]
        rows = [row for row in rows if (after is None or row.seq > after) and (before is None or row.seq < before)]
        return tuple(rows[-limit:])

    async def operation(self, number: int) -> views.FollowUpView:
        self._reach("operation", number)
        if self.followed is None:
            raise Refused(views.Refusal(what=f"nothing is known of operation {number} (any more)", not_found=True))
        return self.followed

    async def ask(self, ask: Ask) -> Result:
        self._reach("ask", ask)
        word = verb_of(ask).word
        if isinstance(ask, Bounce | Drop):
            done = self.selection
            return Result(
                verb=word, text=f"{done.messages} messages will be {'bounced' if word == 'bounce' else 'dropped'}",
                messages=done.messages, recipients=done.recipients, operation=77, undo_until=NOW + 10,
                follow=77,
            )  # fmt: skip
        if isinstance(ask, MailAsk):
            follow = 78 if self.followed is not None else 0
            messages = self.selection.messages
            return Result(verb=word, text=f"{word}: {messages} messages", messages=messages, follow=follow)
        return Result(verb=word, text=_SAID[word].format(ask), messages=12 if word == "undo" else 0)

    async def would(self, ask: DryAsk) -> Selection:
        self._reach("would", ask)
        return self.selection

    async def explain(self, subject: str, node: str = "") -> views.ExplainView:
        self._reach("explain", subject, *filter(None, (node,)))
        return EXPLAINED

    async def probe(self, host: str, node: str = "") -> Probed:
        self._reach("probe", host, *filter(None, (node,)))
        return PROBED

    async def overrides(self, offset: int = 0, limit: int = 1000) -> tuple[views.StandingView, ...]:
        self._reach("overrides")
        return STANDING
