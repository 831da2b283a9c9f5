"""The operator's verbs, each named once: server, client, commands, keys, questions, help and glyphs read this table.

A new verb is a struct that asks for it and a row here, a method of its name in engine.control.verbs, what that asks of
the store, a key in console.actions, and a line of README. Where a struct may be asked dry, the answer is what would be
touched, and questions, previews and counts come by themselves.
"""

from functools import cache
from typing import Annotated, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from engine.model.event import Kind
from engine.model.order import Ending

# What a verb acts on: messages in the queue, mail that is still to come, a destination, a host or one that is marked
# bad, a connection, a hold rule, an order that can be taken back, an engine that shares the queue, or the relay as a
# whole.
Subject = Literal[
    "mail", "mail to come", "destination", "host", "bad host", "relayer", "rule", "order", "node", "relay"
]
Tone = Literal["", "good", "warn", "bad"]

# -- what is asked --------------------------------------------------------------------------------------------------

_Filter = Annotated[str, Meta(title="FILTER", description="Which messages; see below.")]
_Rule = Annotated[str, Meta(title="RULE", description="Which mail; see below.")]
_Destination = Annotated[str, Meta(title="DESTINATION", description="A domain.")]
_DestinationOrAll = Annotated[str, Meta(title="DESTINATION|all", description="A domain.")]
_Host = Annotated[str, Meta(title="HOST", description="The host's name, as the MX names it.")]
_To = Annotated[str, Meta(title="HOST[:PORT]", description="The host that is to take its mail.")]
_Probed = Annotated[str, Meta(title="HOST[:PORT]", description="A host, or one of its addresses.")]
_Relayer = Annotated[int, Meta(title="RELAYER", description="Its number, as `relayers` lists it.")]
_Number = Annotated[int, Meta(title="NUMBER", description="Its number; `smarthost overrides` lists them.")]
_Operation = Annotated[int, Meta(title="OPERATION", description="The number that the bounce or drop was given.")]
_Seconds = Annotated[float, Meta(title="1h", description="How long, such as 30m, 1h30m or 2d.")]
_Note = Annotated[str, Meta(title="NOTE", description="What you note: kept and shown with it.")]
FORMERLY = {"note": "reason"}  # what a field of an ask was called; known for one more version
_Node = Annotated[str, Meta(title="NODE", description="Its name, as `nodes` lists it.")]
_AtNode = Annotated[str, Meta(title="NODE", description="Of which node, where several share the queue.")]
_Now = Annotated[bool, Meta(title="now", description="At once: it cannot be undone.")]


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all asks: an unknown field is refused. It may be a known one misspelt, such as `dry-run`."""


class DryAsk(Ask, frozen=True, kw_only=True):
    """An ask that says only what it would touch when it is asked with `dry_run`; then nothing is changed."""

    dry_run: bool = False


class MailAsk(DryAsk, frozen=True, kw_only=True):
    """An ask of the messages that `filter` names.

    `newest`: mail that arrived after this message number is not touched (given by the dry run), so that what was
    confirmed is what is done.
    """

    filter: _Filter
    newest: int | None = None


class Check(Ask, frozen=True, kw_only=True):
    """Run check_state now."""


class Retry(MailAsk, frozen=True, kw_only=True):
    """Make messages due now."""


class Postpone(MailAsk, frozen=True, kw_only=True):
    """Make messages due in `seconds` (60 to 30 days), and not before."""

    seconds: _Seconds


class Hold(MailAsk, frozen=True, kw_only=True):
    """Keep messages from being sent until released."""

    note: _Note = ""


class Release(MailAsk, frozen=True, kw_only=True):
    """Let held messages go on, and take back bounces and drops that were not yet carried out."""


class Bounce(MailAsk, frozen=True, kw_only=True):
    """Give messages up and tell their senders; `now`: at once, not to be undone."""

    note: _Note = ""
    now: _Now = False


class Drop(MailAsk, frozen=True, kw_only=True):
    """Give messages up and tell nobody; `now`: at once, not to be undone."""

    note: _Note = ""
    now: _Now = False


class Undo(Ask, frozen=True, kw_only=True):
    """Take back a bounce or drop by the operation number its result gave."""

    operation: _Operation


class Suspend(Ask, frozen=True, kw_only=True):
    """Suspend a destination, or the relay ("*"), for `seconds` (60 to 30 days)."""

    destination: _DestinationOrAll
    seconds: _Seconds
    note: _Note = ""


class Resume(DryAsk, frozen=True, kw_only=True):
    """End the suspension of a destination, or of the relay ("*")."""

    destination: _DestinationOrAll


class MarkBad(Ask, frozen=True, kw_only=True):
    """Leave a host out for `seconds` (None: the setting delivery.bad_mx_timeout)."""

    host: _Host
    seconds: _Seconds | None = None
    note: _Note = ""


class MarkGood(DryAsk, frozen=True, kw_only=True):
    """Use a host again."""

    host: _Host


class HoldRule(Ask, frozen=True, kw_only=True):
    """Hold what `filter` names (from=, to=, domain=; all must hold), waiting or still to come, for `seconds`."""

    filter: _Rule
    seconds: _Seconds
    note: _Note = ""


class ReleaseRule(DryAsk, frozen=True, kw_only=True):
    """End a hold rule and let go what it held."""

    rule: _Number


class Override(Ask, frozen=True, kw_only=True):
    """Send a destination's mail to `to` ("HOST" or "HOST:PORT") instead of its exchanges, for `seconds`."""

    destination: _Destination
    to: _To
    seconds: _Seconds
    note: _Note = ""


class EndOverride(DryAsk, frozen=True, kw_only=True):
    """End the override of a destination."""

    destination: _Destination


class Close(Ask, frozen=True, kw_only=True):
    """End one connection, of the node that is asked, or of another one."""

    relayer: _Relayer
    node: _AtNode = ""


class Probe(Ask, frozen=True, kw_only=True):
    """Speak to a host ("HOST" or "HOST:PORT") without sending it mail; what it answers is a Probed.

    It is the node that is asked who speaks, or another one.
    """

    host: _Probed
    node: _AtNode = ""


class Drain(Ask, frozen=True, kw_only=True):
    """Have a node finish what it sends, claim no more mail and take none in, until `Undrain`."""

    node: _Node


class Undrain(Ask, frozen=True, kw_only=True):
    """Have a node take and send mail again."""

    node: _Node


# -- what is answered -----------------------------------------------------------------------------------------------


class Result(Struct, frozen=True, kw_only=True):
    """What a verb did, exactly; `verb` is its word. `operation` with `undo_until`: it can be undone until then.

    `follow`: the operation whose follow-up tells what becomes of it; 0: there is nothing to tell.
    """

    verb: str
    text: str
    messages: int = 0
    recipients: int = 0
    skipped: int = 0
    operation: int = 0
    undo_until: float | None = None
    follow: int = 0


# -- the table ------------------------------------------------------------------------------------------------------


class Verb(Struct, frozen=True, kw_only=True):
    """One thing that an operator can ask of the relay.

    `word` is its name everywhere: in the path of HTTP, as a command, behind the console's colon. `label` stands in
    titles, `help` says what it does in a line and `more` what else is to be known. `on` is what it acts on, `ending`
    what it ends. `title` is the question before it, with {} for what is named, and `follows` what will be so. What
    `gives_up` mail asks in any case, and can be undone for a while. `followed`: what is told of mail that it let go.
    `event` is the kind of the events that tell of it, with their `glyph`.
    """

    word: str
    ask: type[Ask]
    on: Subject
    label: str
    help: str
    event: Kind
    more: str = ""
    title: str = ""
    follows: str = ""
    ending: Ending | Literal[""] = ""
    gives_up: bool = False
    followed: str = ""
    glyph: str = "✎"
    tone: Tone = ""

    @property
    def question(self) -> str:
        """The title of the question before it, with {} for what is named."""
        return self.title or f"{self.label} {{}}?"

    @property
    def is_previewed(self) -> bool:
        """Whether it can be asked dry."""
        return issubclass(self.ask, DryAsk)


VERBS: tuple[Verb, ...] = (
    Verb(word="check", ask=Check, on="relay", label="Check", event="checked",
         help="Look now for what can be sent"),
    Verb(word="retry", ask=Retry, on="mail", label="Retry", event="retried", followed="retried",
         help="Make messages due now", follows="This mail is due now."),
    Verb(word="postpone", ask=Postpone, on="mail", label="Postpone", event="postponed", glyph="◷",
         help="Make messages due after a while, and not before",
         more="Then they go by themselves. What waits for longer already stays as it is, and what is still to come is "
         "not concerned. What would be given up before is given up then, unless it can be sent. Retry makes them due "
         "before, and postponing them anew sets another time: both take back what that did to their end. Mark good and "
         "an override of their destination make them due before, too, but leave them the end that they were given.",
         follows="This mail is not tried meanwhile, and then goes by itself."),
    Verb(word="hold", ask=Hold, on="mail", label="Hold", event="held",
         help="Keep messages from being sent until released",
         follows="This mail stays in the queue, unsent, until it is released."),
    Verb(word="release", ask=Release, on="mail", label="Release", event="released", followed="released",
         help="Let held messages go on", more="Ends a bounce or drop that was not yet carried out, too.",
         follows="This mail may be sent again when it is due."),
    Verb(word="bounce", ask=Bounce, on="mail", label="Bounce", event="ordered", gives_up=True,
         help="Give messages up and tell their senders", follows="Whoever sent this mail is told.", tone="warn"),
    Verb(word="drop", ask=Drop, on="mail", label="Drop", event="ordered", gives_up=True,
         help="Give messages up and tell nobody", follows="Nobody is told.", tone="warn"),
    Verb(word="undo", ask=Undo, on="order", label="Undo", event="undone",
         help="Take back a bounce or drop, while there is time"),
    Verb(word="suspend", ask=Suspend, on="destination", label="Suspend", event="suspended", glyph="‖", tone="warn",
         help="Open no new connections to a destination for a while",
         more="To one destination, or to none at all. It ends by itself.",
         follows="No new connections are opened meanwhile; open ones finish. It ends by itself."),
    Verb(word="resume", ask=Resume, on="destination", label="Resume", event="resumed", ending="suspension",
         help="End a suspension", follows="Connections are opened again, at first one to each site."),
    Verb(word="mark-bad", ask=MarkBad, on="host", label="Mark bad", event="marked bad", glyph="▼", tone="bad",
         help="Leave an MX host out for a while", title="Mark {} bad?",
         follows="It is left out meanwhile, or until it is marked good. Mail goes to other exchanges, if any."),
    Verb(word="mark-good", ask=MarkGood, on="bad host", label="Mark good", event="marked good", ending="mark",
         help="Use an MX host again and let its backlog go", title="Mark {} good?", followed="let go",
         follows="This mail is due now, and goes gently: one connection first, then 2, 4, 8.", glyph="▲", tone="good"),
    Verb(word="hold-rule", ask=HoldRule, on="mail to come", label="Hold rule", event="held",
         help="Hold mail that is still to come for a while",
         more="And what waits of it. It ends by itself; then all that it held goes on.", title="Hold mail to come?",
         follows="It is held when it comes in, and what waits of it, too. The rule ends by itself; then it goes on."),
    Verb(word="release-rule", ask=ReleaseRule, on="rule", label="Release rule", event="released", ending="rule",
         help="End a hold rule; what it held goes on", title="Release rule {}?",
         follows="This mail goes on when it is due."),
    Verb(word="override", ask=Override, on="destination", label="Override", event="overridden", tone="warn",
         help="Send a destination's mail to another host for a while",
         more="Instead of its mail exchanges. It ends by itself.",
         follows="Meanwhile its mail goes to another host than its exchanges. It ends by itself."),
    Verb(word="end-override", ask=EndOverride, on="destination", label="End override", event="ended",
         help="End an override; mail goes its own way again", title="End the override of {}?", ending="override",
         follows="This mail is due now, to the exchanges of its own destination."),
    Verb(word="close", ask=Close, on="relayer", label="Close", event="closed", glyph="■", tone="warn",
         help="End one connection; what it carries waits again", title="Close connection {}?",
         follows="What it carries waits again, untried; but what the peer may have taken already may arrive twice. Its "
         "destination rests for a moment, then connections are opened again."),
    Verb(word="probe", ask=Probe, on="host", label="Probe", event="probed",
         help="Speak to a host without sending it mail, and tell what came back",
         more="Connects to each of its addresses, says EHLO, STARTTLS and QUIT."),
    Verb(word="drain", ask=Drain, on="node", label="Drain", event="drained", glyph="◐", tone="warn",
         help="Have a node finish what it sends, and take no more", title="Drain node {}?",
         more="Of several that share the queue; the others send what waits. It lasts until it is undrained, also when "
         "its engine is started anew. Who comes by SMTP is told to try another (421); what is in its drop folder is "
         "taken in all the same.",
         follows="It finishes what it sends, and takes and sends nothing more until it is undrained; its drop folder "
         "is left alone. Other nodes send what waits."),
    Verb(word="undrain", ask=Undrain, on="node", label="Undrain", event="undrained", glyph="●", tone="good",
         help="Have a node take and send mail again"),
)  # fmt: skip

_BY_WORD = {verb.word: verb for verb in VERBS}
_BY_ASK = {verb.ask: verb for verb in VERBS}

D = TypeVar("D", bound=DryAsk)


def named(word: str) -> Verb:
    """The verb of this word. Raises KeyError."""
    return _BY_WORD[word]


def verb_of(ask: Ask) -> Verb:
    """The verb that is asked for."""
    return _BY_ASK[type(ask)]


def dry(ask: D, *, dry_run: bool = True) -> D:
    """The same, asked dry or in earnest."""
    return replace(ask, dry_run=dry_run)


class Parameter(NamedTuple):
    """A field of an ask as one types it: by its `title`; `help` says what it is. `default` is None where there is none.

    `kind` is the type of what is written: str, int, float or bool.
    """

    name: str
    title: str
    help: str
    kind: type
    required: bool


@cache
def parameters(ask: type[Ask]) -> tuple[Parameter, ...]:
    """What can be given with an ask, in the order in which one says it, but for what is for programs alone."""
    found = []
    for field in msgspec.structs.fields(ask):
        kind, meta = _written(field.type)
        if meta is not None:
            found.append(Parameter(field.name, meta.title or "", meta.description or "", kind, required=field.required))
    return tuple(found)


def _written(kind: object) -> tuple[type, Meta | None]:
    """The plain type of a field and what is said of it; of one that may be None those of the other."""
    if get_origin(kind) is Annotated:
        plain, *notes = get_args(kind)
        return plain, next((note for note in notes if isinstance(note, Meta)), None)
    for part in get_args(kind):
        plain, meta = _written(part)
        if meta is not None:
            return plain, meta
    return object, None
