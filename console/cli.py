"""The command line: `smarthost` and everything behind it.

What draws or relays is imported only by the command that needs it, so that `smarthost status` is quick.
"""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from console import faults
from console.commands import dkim, doctor, lists, questions, spool, suppress, user, verbs
from console.commands.door import Door, Status, complain, refuse, say
from console.machine import Setup, refuse_each
from engine.control.client import answers, control_socket, view_socket

if TYPE_CHECKING:
    from engine.running import EngineThread
    from engine.settings.settings import Settings

_ANYWHERE = ("--config", "--spool")  # these may stand before or behind the command


class _Line(TyperGroup):
    """A command line whose options for all commands may stand anywhere."""

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        return super().parse_args(context, _options_first(args))


app = typer.Typer(
    name="smarthost",
    cls=_Line,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a crash report must not print locals: they hold passwords and addresses
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 refused or nothing matched, 2 wrong usage, 3 no engine reachable.",
)
config_app = typer.Typer(help="Look after the settings.", no_args_is_help=True, rich_markup_mode=None)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        readable=False,  # whether we may read it is said by who reads it
        help="The settings; else $SMARTHOST_CONFIG, /etc/smarthost, your own.",
    ),
]
Spool = Annotated[
    Path | None,
    typer.Option(
        "--spool",
        metavar="FOLDER",
        readable=False,  # who may use its control socket need not list it
        help="The queue's folder, instead of the settings' one.",
    ),
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Look only: by the door through which nobody can act.")]


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows "?", and nothing fails
    app(prog_name="smarthost")


@app.callback()
def smarthost(
    context: typer.Context,
    config: Config = None,
    spool: Spool = None,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """An outgoing mail relay with the operator's console built in.

    Without a command: the console, with the engine inside it; where one runs already, the console of that one.
    """
    if version:
        from importlib.metadata import version as version_of

        say(f"smarthost {version_of('smarthost')}")
        raise typer.Exit
    setup = Setup(config, spool)
    context.obj = setup
    if context.invoked_subcommand is None:
        _operate(setup)


@app.command()
def demo() -> None:
    """Try it: relay, console and a sandbox internet.

    Mail hosts of every temper on this machine alone; no mail leaves it, and nothing is kept.
    """
    from engine.running import EngineThread
    from engine.sandbox.demo import demo as sandbox

    _need_terminal()
    with sandbox() as found:
        engine = EngineThread(found.settings, https_port=found.https_port)
        _console_with_engine(engine, found.settings, is_demo=True)


@app.command()
def serve(context: typer.Context) -> None:
    """Run the engine without a console.

    For systemd and its like: until SIGTERM, SIGINT or SIGHUP.
    """
    from engine.running import run_daemon

    settings = _setup(context).settings()
    faults.to_stderr(settings.log.level)
    with _starting():
        run_daemon(settings)


@app.command()
def attach(context: typer.Context, read_only: ReadOnly = False) -> None:
    """Open the console of an engine that runs already."""
    _need_terminal()
    socket = control_socket(_setup(context).spool())
    if read_only:
        socket = view_socket(socket)
    Door(lambda: socket).ask(lambda client: client.health())  # says so, and leaves, where there is none
    _draw(socket)


lists.add_to(app)
verbs.add_to(app)
questions.add_to(app)
app.add_typer(config_app, name="config")
spool.add_to(app, lambda context: _setup(context))
doctor.add_to(app, lambda context: _setup(context))
app.add_typer(suppress.app, name="suppress")
app.add_typer(user.app_for(lambda context: _setup(context).users()), name="user")
app.add_typer(dkim.app_for(lambda context: _setup(context).keys()), name="dkim")


@app.command(
    "sendmail",
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["--help"],
    },
)
def sendmail(context: typer.Context, words: Annotated[list[str] | None, typer.Argument(metavar="...")] = None) -> None:
    """Send a message from standard input.

    As programs do with /usr/sbin/sendmail: -t, -i, -f SENDER, -F NAME, -oi and so on, and recipients. Exit status:
    those of sysexits.h.
    """
    raise typer.Exit(_setup(context).send(words or []))


@config_app.callback()
def _config() -> None:
    """Look after the settings."""


@config_app.command("check")
def config_check(context: typer.Context) -> None:
    """Say whether the settings are right.

    And all that is wrong with them; nothing is started.
    """
    from engine.settings.file import SettingsError

    try:
        checked, notes = _setup(context).check()
        say(f"{checked}: ok")
        for note in notes:
            say(note)
    except SettingsError as error:
        refuse_each(str(error), Status.REFUSED)


@config_app.command("reference")
def config_reference() -> None:
    """Print every setting, its default and what it may be.

    As Markdown: it is what docs/settings.md says.
    """
    from engine.settings.reference import reference

    for line in reference().rstrip().split("\n"):
        say(line)


# -- the console ----------------------------------------------------------------------------------------------------


def _operate(setup: Setup) -> None:
    """The console of the relay; of the one that runs already, for which nobody need be able to start another."""
    from engine.running import EngineThread

    _need_terminal()
    socket = control_socket(setup.spool())
    if answers(socket):
        complain("an engine runs already: this is its console")
        _draw(socket)
        return
    settings = setup.settings()
    _console_with_engine(EngineThread(settings), settings)


def _console_with_engine(engine: "EngineThread", settings: "Settings", *, is_demo: bool = False) -> None:
    """The console with an engine in a thread of its own; or of the one that owns the spool already.

    Of a demo nothing is kept, not even where the line is dropped and the process ended at once.
    """
    from engine.engine import SpoolOwned

    spool = settings.spool
    faults.keep_in(spool / "engine.log", settings.log.level)
    socket = control_socket(spool)
    try:
        with _starting(but_for=SpoolOwned):
            engine.start()
    except SpoolOwned as error:
        complain(f"an engine runs already (pid {error.pid}): this is its console")
        _draw(socket)
        return

    def stop() -> None:
        engine.stop()
        if is_demo:
            shutil.rmtree(spool, ignore_errors=True)

    try:
        _draw(socket, engine_inside=True, is_demo=is_demo, stop_engine=stop)
    finally:
        if not engine.stop():
            complain("the engine does not stop in time: the process ends without it, and no mail is lost")
            os._exit(Status.REFUSED)


def _draw(
    socket: Path,
    *,
    engine_inside: bool = False,
    is_demo: bool = False,
    stop_engine: Callable[[], object] = lambda: None,
) -> None:
    from console import terminal
    from console.app import Console
    from console.preferences import Preferences, file_of_user
    from engine.control.client import Client

    if not engine_inside:
        faults.keep_in(faults.file_of_user())
    console = Console(
        Client(socket),
        engine_inside=engine_inside,
        is_demo=is_demo,
        preferences=Preferences(None if is_demo else file_of_user()),
    )

    def say_draining() -> None:
        if engine_inside:
            complain(_draining(console.being_sent()))

    if status := terminal.run(console, stop_engine=stop_engine, say_draining=say_draining):
        raise typer.Exit(status)


def _draining(messages: int) -> str:
    from engine.engine import DRAIN_SECONDS

    if not messages:
        return "stopping: nothing is being sent"
    sent = "1 message is" if messages == 1 else f"{messages:,} messages are"
    return f"draining: {sent} being sent, at most {DRAIN_SECONDS:.0f} s…"


def _need_terminal() -> None:
    from console.terminal import is_terminal

    if not is_terminal():
        refuse("the console needs a terminal; `smarthost serve` runs the engine without one", Status.USAGE)


@contextlib.contextmanager
def _starting(but_for: type[Exception] | None = None) -> Iterator[None]:
    """Say why the engine does not start, and leave; errors of the kind `but_for` are passed on."""
    from engine.engine import CannotStart, SpoolOwned
    from engine.running import EngineFailed

    try:
        yield
    except EngineFailed as error:
        refuse(f"the engine has ended: {error}")
    except (CannotStart, SpoolOwned) as error:
        if but_for is not None and isinstance(error, but_for):
            raise
        hint = "; `smarthost attach` opens its console" if isinstance(error, SpoolOwned) else ""
        refuse(f"the engine does not start: {error}{hint}")


def _setup(context: typer.Context) -> Setup:
    found = context.find_object(Setup)
    if found is None:
        raise RuntimeError("the command was not started through the front of the command line")
    return found


def _options_first(args: list[str]) -> list[str]:
    """The same words, the options that may stand anywhere before all others; what follows "--" is left alone."""
    first: list[str] = []
    others: list[str] = []
    left = iter(args)
    for word in left:
        if word == "--":
            others += [word, *left]
        elif word in _ANYWHERE:
            first += [word, *(value for value in (next(left, None),) if value is not None)]
        elif word.startswith(tuple(f"{option}=" for option in _ANYWHERE)):
            first.append(word)
        else:
            others.append(word)
    return first + others
