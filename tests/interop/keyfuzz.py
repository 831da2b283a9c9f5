"""Random keys in bursts, over a pseudo-terminal, at a console of a busy relay: no verb may act on what was not meant.

    uv run python -m tests.interop.keyfuzz 50000

A console in a process of its own writes down each key as it does it, with the screen as it is drawn at that moment,
and each thing it asks of the engine. From what was *drawn* (the row with the cursor, the breadcrumb, the marks) and
what was typed, and from nothing that the console's own code thinks, it is judged what each verb was to act on.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

import msgspec
from textual.events import Key

import console.app
from console.actions import ACTIONS, Registry
from console.app import Console
from console.keyboard import Stroke
from console.layer import Layer
from console.widgets.field import Field
from console.widgets.table import Table
from console.widgets.trail import Trail
from engine.control.client import Client, control_socket
from engine.model.verbs import VERBS, Ask, verb_of
from engine.running import EngineThread
from engine.sandbox.demo import demo
from tests.terminals import on_a_terminal

LETTERS_A_SECOND = 12.0
BEHIND = 150  # keys that are sent and not done yet, at the most
STUCK_SECONDS = 60.0  # without one key done, the console is stuck
MOST = 12  # keys in one read
QUESTIONS = 3  # intents after which an answered question has been carried out

# The bytes of keys that are no characters. Escape in the unambiguous form: alone before another key it would be alt.
SPECIAL = {
    "up": b"\x1b[A", "down": b"\x1b[B", "right": b"\x1b[C", "left": b"\x1b[D", "enter": b"\r", "escape": b"\x1b[27u",
    "tab": b"\t", "backspace": b"\x7f", "ctrl+u": b"\x15", "ctrl+p": b"\x10", "pagedown": b"\x1b[6~", "end": b"\x1b[F",
    "home": b"\x1b[H", "space": b" ",
}  # fmt: skip
MOVES = ("down",) * 6 + ("up",) * 3 + ("j", "k", "pagedown", "home", "end", "space", "tab", "N", "W", "a")
ACTING = tuple("rrrthlBDsSbgxivHXeocu")
GOING = ("enter",) * 4 + ("escape",) * 6 + tuple("12345677") + ("ctrl+p", "?", "p")
IN_QUESTIONS = ("right", "left", "enter", "enter", "tab", "escape", "backspace", "9", "m", "w")
LINES = (
    ":retry state=waiting", ":explain ghost-town.example", ":bad mx.nowhere.example 2m fuzz", ":retry", ":hold",
    ":suspend", ":resume all", ":good mx.nowhere.example", ":open 12", ":events returned", "/state=held", "/exa", "/x=",
    ":end 3", ":close 4", ":susp\tdem",
)  # fmt: skip

# What a key, or the word of a command, asks of the engine.
ASKS = {action.keys[0]: action.word for action in ACTIONS if action.verb and action.keys} | {"e": "explain"}
ASKS = {key: word for key, word in ASKS.items() if word not in ("check", "undo")}  # which are for no row
JUDGED = frozenset({*ASKS.values(), "release-rule"})
WORDS = {"bad": "mark-bad", "good": "mark-good", "end": "end-override"}
LOOKED_AT = frozenset({*ASKS, ":", "ctrl+p"})  # keys for which it matters what is pointed at
ON_HOSTS = frozenset(verb.word for verb in VERBS if verb.on in ("host", "bad host"))
UNASKED = frozenset({"retry", "release", "mark-good", "resume", "end-override", "explain", "probe"})  # where it is one
ON_MAIL = frozenset(verb.word for verb in VERBS if verb.on == "mail")


_EVENT = re.compile(r"\d\d:\d\d:\d\d ")

# -- the console that is watched --------------------------------------------------------------------------------------


class _Log:
    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, kind: str, **what: Any) -> None:
        self._out.write(json.dumps({"kind": kind, **what}) + "\n")
        self._out.flush()


class _Watched(Console):
    """The console, which writes down what it does."""

    CSS_PATH = str(Path(console.app.__file__).with_name("console.tcss"))

    def __init__(self, socket: Path, log: _Log) -> None:
        super().__init__(_Asking(socket, log))
        self._notes = log

    async def _do(self, stroke: Stroke) -> None:
        if isinstance(stroke, Key):
            key = stroke.character if stroke.is_printable and stroke.character else stroke.key
            looked = key in LOOKED_AT and not isinstance(self.focused, Field)
            self._notes.write("key", key=stroke.key, character=stroke.character or "", **self._drawn(looked))
        await super()._do(stroke)

    def not_taken(self, strokes: int) -> None:
        self._notes.write("dropped", keys=strokes)
        super().not_taken(strokes)

    def stumble(self, error: Exception) -> None:
        self._notes.write("stumbled", trace="".join(traceback.format_exception(error)))
        super().stumble(error)

    def exit(self, *_: object, **__: object) -> None:
        """It stays."""

    def _drawn(self, looked: bool) -> dict[str, Any]:
        """What stands on the screen: of the list with the focus the row with the cursor, the marks, the way here.

        To draw all of it is dear: the row is looked for only where it bears on what the key is for.
        """
        strips = self.screen._compositor.render_strips() if looked else []
        rows = ["".join(segment.text for segment in strip) for strip in strips]
        focused = self.focused
        row = "  ".join(rows)  # a page is about all that stands on it
        if isinstance(focused, Table):
            region = focused.region
            own = [text[region.x : region.right] for text in rows[region.y + 1 : region.bottom]]
            row = next((text for text in own if text.startswith("▸")), "")
        front = self.front
        table = front.main() if isinstance(focused, Field) and front is not None and front.is_mounted else None
        if isinstance(table, Table) and table.pointed is not None:
            # While a line is typed the list shows no cursor; its row is the one that the command is for.
            row = table.render_line(table.cursor - table.top + 1).text
        return {
            "tab": front.tab if front is not None else "",
            "screen": type(self.screen).__name__,
            "layer": isinstance(self.screen, Layer),
            "typing": isinstance(focused, Field),
            "row": row.removeprefix("▸").strip(),
            "way": front.query_one(Trail).said.strip() if front is not None and front.is_mounted else "",
            "where": self.screen.query_one("#status").said if self.screen.query("#status") else "",  # type: ignore[attr-defined]
        }


class _Asking(Client):
    def __init__(self, socket: Path, log: _Log) -> None:
        super().__init__(socket)
        self._notes = log

    async def _post(self, kind: Any, ask: Ask) -> Any:
        self._notes.write("asked", what=verb_of(ask).word, body=msgspec.to_builtins(ask))
        return await super()._post(kind, ask)

    async def explain(self, subject: str, node: str = "") -> Any:
        self._notes.write("asked", what="explain", body={"subject": subject})
        return await super().explain(subject, node)


def watched(socket: Path, log: Path) -> None:
    """Run the console that is watched; it ends with its terminal."""
    with log.open("a", encoding="utf-8") as out:
        app = _Watched(socket, _Log(out))
        app.run()
        sys.exit(app.return_code)


# -- the keys ---------------------------------------------------------------------------------------------------------


def bursts(keys: int, draw: random.Random) -> Iterator[list[str]]:
    """Bursts of keys, so many in all: moving about with verbs among it, questions answered at once, lines typed."""
    left = keys
    while left > 0:
        kind = draw.random()
        if kind < 0.12:
            burst = [*_typed(draw.choice(LINES)), draw.choice(("enter", "enter", "escape")), draw.choice(ACTING)]
        elif kind < 0.3:
            burst = [draw.choice(ACTING), *draw.choices(IN_QUESTIONS, k=draw.randint(0, 6))]
        else:
            burst = draw.choices(MOVES + ACTING + GOING, k=draw.randint(1, MOST))
        yield burst[:left]
        left -= len(burst)


def _typed(line: str) -> list[str]:
    return ["tab" if char == "\t" else "space" if char == " " else char for char in line]


def octets(key: str) -> bytes:
    """What a terminal sends for a key."""
    return SPECIAL.get(key) or key.encode()


# -- the judge --------------------------------------------------------------------------------------------------------


@dataclass
class Intent:
    """That a verb was to act: on what was drawn, or on what was typed."""

    verb: str
    row: str
    way: str
    where: str
    tab: str
    typed: str = ""

    @classmethod
    def at(cls, verb: str, record: dict[str, Any], typed: str = "") -> Self:
        """That it was meant where this was drawn."""
        return cls(verb, record["row"], record["way"], record["where"], record["tab"], typed)


@dataclass
class Judge:
    """Reads what the console wrote down, and says what was wrong with it."""

    sent: list[str]
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    done: int = 0
    _intents: list[Intent] = field(default_factory=list)
    _line: str | None = None  # what is typed after ":"
    _words: str = ""  # what is typed in the palette, and how far down one is there
    _choice: int = 0
    _lately: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=12))
    _before: dict[str, Any] = field(default_factory=dict)  # what was drawn when that was pressed

    def read(self, record: dict[str, Any]) -> None:
        """Take the next record."""
        self.counts[record["kind"]] += 1
        match record["kind"]:
            case "key":
                self._key(record)
            case "dropped":
                self.done += record["keys"]
            case "stumbled":
                self.wrong.append(record["trace"])
            case "asked" if record["what"] in JUDGED:
                self._asked(record["what"], record["body"])

    def _key(self, record: dict[str, Any]) -> None:
        expected = self.sent[self.done] if self.done < len(self.sent) else "nothing"
        got = record["character"] if _is_typed(record) else record["key"]
        if got.replace(" ", "space") != expected:
            self.wrong.append(f"key {self.done} was {expected} and was done as {got}")
        self.done += 1
        self._lately.append(record)
        if record["screen"] == "Palette":
            self._find(record)
            return
        if record["layer"]:
            return
        if record["typing"]:
            self._type(record)
        elif got in (":", "ctrl+p"):
            self._line, self._before = "" if got == ":" else None, record
            self._words, self._choice = "", 0
        elif verb := ASKS.get(got):
            self._intend(Intent.at(verb, record))

    def _find(self, record: dict[str, Any]) -> None:
        """Follow what is chosen in the palette: what is drawn of it may be behind the last key."""
        if record["key"] == "enter":
            found = Registry().found(self._words)
            word = found[min(max(self._choice, 0), len(found) - 1)].word if found else ""
            if word in JUDGED:
                self._intend(Intent.at(word, self._before))
        elif record["key"] in ("up", "down"):
            self._choice = max(0, self._choice + (1 if record["key"] == "down" else -1))
        elif record["key"] in ("backspace", "ctrl+u") or _is_typed(record):
            typed = {"backspace": self._words[:-1], "ctrl+u": ""}
            self._words, self._choice = typed.get(record["key"], self._words + record["character"]), 0

    def _type(self, record: dict[str, Any]) -> None:
        """Keep what stands in the command line; of keys that edit, the fuzz sends those that are understood here."""
        if self._line is None:
            return
        key, character = record["key"], record["character"]
        if key == "escape":
            self._line = None
        elif key == "enter":
            verb, rest = _command(self._line)
            if verb in JUDGED:
                self._intend(Intent.at(verb, {**self._before, "row": record["row"]}, rest))
            self._line = None
        elif key == "tab":
            self._line += "\t"
        elif _is_typed(record):
            self._line += character

    def _intend(self, intent: Intent) -> None:
        """It is meant from now on. What was asked in a question is soon over; what asks none may take its time."""
        earlier = self._intents
        lasting = [one for at, one in enumerate(earlier) if one.verb in UNASKED or at >= len(earlier) - QUESTIONS]
        self._intents = [*lasting, intent][-40:]

    def _asked(self, what: str, body: dict[str, Any]) -> None:
        fitting = [one for one in self._intents if one.verb == what and self._fits(one, body)]
        if not fitting:
            near = [one for one in self._intents if one.verb == what][-2:]
            lately = [(one["key"], one["screen"], one["way"][-30:]) for one in self._lately]
            self.wrong.append(f"{what} {body} was asked, and was not meant; keys before: {lately}; meant was {near}")

    def _fits(self, intent: Intent, body: dict[str, Any]) -> bool:
        """Whether this is what was typed, or stood there."""
        if intent.typed:
            return intent.typed == "all" or (body.get("filter") or _subject(body)) in intent.typed.split()
        asked = body.get("filter")
        if intent.verb not in ON_MAIL or asked is None:
            # Which exchange of a destination, and which number a connection has, is drawn only in the question.
            is_chosen = intent.verb == "close" or (intent.verb in ON_HOSTS and intent.tab not in ("3", "4"))
            # Of an event a narrow pane does not draw the message, and one that is marked need not be on the screen.
            is_elsewhere = _EVENT.match(intent.row) is not None or "✱ 1 marked" in intent.where
            is_chosen |= intent.verb == "explain" and is_elsewhere
            return is_chosen or intent.verb == "hold-rule" or self._is_there(_subject(body), intent)
        if "✱ all" in intent.where:
            return True
        if asked.startswith("id="):
            ids = asked[3:].split(",")
            if "✱" in intent.where:
                return f"✱ {len(ids):,} marked" in intent.where
            # Of an event a narrow pane does not draw the message.
            return len(ids) == 1 and (self._is_there(ids[0], intent) or _EVENT.match(intent.row) is not None)
        name, _, value = asked.partition("=")
        return name in ("domain", "group") and self._is_there(_unquoted(value), intent)

    @staticmethod
    def _is_there(subject: str, intent: Intent) -> bool:
        """Whether a name stands in the row with the cursor, cut or whole, or at the end of the way here."""
        for text in (intent.row, intent.way):
            if subject in text:
                return True
            for word in text.replace("▸", " ").split("  "):
                begun, is_cut, _ = word.strip().partition("…")
                if is_cut and begun and subject.startswith((begun, begun.rpartition("@")[2] or begun)):
                    return True
        return False


def _command(line: str) -> tuple[str, str]:
    """The verb of a command line, and what it is for. Tab completes the word that was begun, and adds a space."""
    begun, completed, rest = line.partition("\t")
    if completed:
        return next((verb for verb in ASKS.values() if verb.startswith(begun)), begun), rest.strip()
    word, _, rest = line.strip().partition(" ")
    if word == "end" and rest.strip().isdecimal():
        return "release-rule", rest.strip()  # a number names a rule
    return WORDS.get(word, word), rest.strip()


def _is_typed(record: dict[str, Any]) -> bool:
    """Whether a key writes a character: "" is printable, and that of a key which has none."""
    return bool(record["character"]) and record["character"].isprintable()


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _subject(body: dict[str, Any]) -> str:
    for name in ("destination", "host", "subject", "relayer", "rule"):
        if name in body:
            return str(body[name])
    return ""


# -- the run ----------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with the watched console on it, which is always read."""

    def __init__(self, socket: Path, log: Path, columns: int, lines: int) -> None:
        command: list[str | Path] = [sys.executable, "-m", "tests.interop.keyfuzz", "--console", socket, log]
        size = {"COLUMNS": str(columns), "LINES": str(lines)}
        self.process, self._master = on_a_terminal(command, columns, lines, env=size)
        os.set_blocking(self._master, True)
        self.octets = 0
        self.end = b""
        threading.Thread(target=self._read, daemon=True).start()

    def press(self, keys: list[str]) -> None:
        """Have all these come in one read."""
        os.write(self._master, b"".join(map(octets, keys)))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self.octets += len(data)
                self.end = (self.end + data)[-4_000:]


async def fuzz(keys: int, seed: int, columns: int = 80, lines: int = 24) -> Judge:
    """Press so many random keys; give the judge who has seen it all."""
    draw = random.Random(seed)
    judge = Judge([])
    with demo(rate=LETTERS_A_SECOND) as found, tempfile.TemporaryDirectory(prefix="sh-") as folder:
        engine = EngineThread(found.settings, https_port=found.https_port)
        await asyncio.to_thread(engine.start)
        log = Path(folder) / "log"
        log.touch()
        terminal = Terminal(control_socket(found.settings.spool), log, columns, lines)
        try:
            with log.open(encoding="utf-8") as written:
                reader = _Reader(written, judge, terminal.process)
                # To know that it draws, before any key is judged.
                await reader.press(terminal, ["2"])
                await reader.caught_up()
                for burst in bursts(keys, draw):
                    await reader.press(terminal, burst)
                    await asyncio.sleep(draw.choice((0, 0, 0.005, 0.02, 0.2)))
                await reader.caught_up()
                # No question is stuck: from wherever it is, some escapes lead to the overview.
                await reader.press(terminal, ["escape"] * 4)
                await reader.caught_up()
                await reader.press(terminal, ["1", "p", "p"])
                await reader.caught_up()
                if reader.last.get("screen") != "Overview":
                    judge.wrong.append(f"stuck in {reader.last}")
        finally:
            terminal.close()
            await asyncio.to_thread(engine.stop)
    return judge


class _Reader:
    def __init__(self, written: TextIO, judge: Judge, process: "subprocess.Popen[bytes]") -> None:
        self.last: dict[str, Any] = {}
        self._written = written
        self._judge = judge
        self._process = process
        self._begun = ""

    async def press(self, terminal: Terminal, keys: list[str]) -> None:
        self._judge.sent += keys
        terminal.press(keys)
        await self.caught_up(BEHIND)

    async def caught_up(self, but_for: int = 0) -> None:
        """Read until all but so many of the keys are done. Raises TimeoutError when the console does nothing."""
        async with asyncio.timeout(STUCK_SECONDS) as bound:
            while len(self._judge.sent) - self._judge.done > but_for:
                if self._process.poll() is not None:
                    raise RuntimeError(
                        f"the console ended with status {self._process.returncode} after {self._judge.done} keys, "
                        f"of which the last were {self._judge.sent[self._judge.done - 20 : self._judge.done + 5]}"
                    )
                before = self._judge.done
                self._read()
                if self._judge.done > before:
                    bound.reschedule(asyncio.get_running_loop().time() + STUCK_SECONDS)
                else:
                    await asyncio.sleep(0.005)
        self._read()

    def _read(self) -> None:
        while line := self._written.readline():
            self._begun += line
            if not self._begun.endswith("\n"):
                return
            record, self._begun = json.loads(self._begun), ""
            if record["kind"] == "key":
                self.last = record
            self._judge.read(record)


def main() -> None:
    """Fuzz by command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("keys", nargs="?", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--size", default="80x24")
    parser.add_argument("--console", nargs=2, type=Path, metavar=("SOCKET", "LOG"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.console:
        watched(*words.console)
        return
    columns, _, lines = words.size.partition("x")
    judge = asyncio.run(fuzz(words.keys, words.seed, int(columns), int(lines)))
    print(f"seed {words.seed}: {judge.done:,} keys at {words.size}, {dict(judge.counts)}, wrong: {len(judge.wrong)}")
    for what in judge.wrong[:10]:
        print(f"- {what}")
    sys.exit(bool(judge.wrong))


if __name__ == "__main__":
    main()
