"""The command line: `smarthost` and everything behind it.

What draws or relays is imported only by the command that needs it, so that `smarthost status` is quick.
"""

import contextlib
import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer
from typer.core import TyperGroup

from console import faults
from console.commands import dkim, doctor, lists, questions, spool, user, verbs
from console.commands.door import Door, Status, complain, refuse, say
from console.commands.spool import How
from engine.control.client import answers, control_socket, view_socket

if TYPE_CHECKING:
    from engine.engine import EngineThread
    from engine.intake.smtp.users import UsersFile
    from engine.model.finding import Asked, Finding
    from engine.settings.settings import DkimKey, Settings

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


class Setup(Door):
    """What the options for all commands name: the settings, and with them the way to the engine."""

    def __init__(self, config: Path | None, spool: Path | None) -> None:
        super().__init__(lambda: control_socket(self.spool()))
        self._config = config
        self._spool = None if spool is None else spool.expanduser().absolute()

    def settings(self) -> "Settings":
        """The settings; where they are wrong, says so and leaves."""
        from engine.settings.file import SettingsError, find, load

        try:
            settings = load(find(self._config))
        except SettingsError as error:
            _refuse_each(str(error), Status.USAGE)
        if self._spool is None:
            return settings
        return msgspec.structs.replace(settings, spool=self._spool)

    def spool(self) -> Path:
        """The queue's folder, which is all that a client must know; where it cannot be learnt, says so and leaves."""
        return self._spool if self._spool is not None else self._settings_for_client().spool

    def _settings_for_client(self) -> "Settings":
        from engine.settings.file import SettingsError, SettingsUnreadable, find, load_for_client

        try:
            return load_for_client(find(self._config))
        except SettingsUnreadable as error:
            refuse(f"{error}; with --spool FOLDER they need not be read", Status.USAGE)
        except SettingsError as error:
            _refuse_each(str(error), Status.USAGE)

    def check(self) -> tuple[str, tuple[str, ...]]:
        """Which file the settings come from, once they have been found right, and what must be known of them.

        Raises SettingsError.
        """
        from engine.intake.errors import IntakeError
        from engine.intake.smtp.tls import server_context
        from engine.settings.file import SettingsError, find, load

        path = find(self._config)
        settings = load(path)
        if path is None:
            return "no settings file, so the defaults", settings.notes
        if problems := _unusable(settings.dkim):
            raise SettingsError(path, problems)
        submission = settings.intake.submission
        notes = settings.notes
        if submission.listen or submission.listen_tls:
            try:
                server_context(submission)
            except IntakeError as error:
                raise SettingsError(path, [str(error)]) from error
            notes = (*_of_logins(submission.users), *notes)
        return str(path), notes

    def checked(self, folder: Path | None, repair: bool) -> tuple[bool, tuple[str, ...]]:
        """Whether the queue in a spool is in order, after a repair where one is wanted; says so where it cannot be."""
        from engine.queue.sqlite import checkspool

        found = folder.expanduser().absolute() if folder is not None else self.spool()
        try:
            done = checkspool.repair(found) if repair else checkspool.check(found)
        except checkspool.SpoolOwned as error:
            refuse(f"{error}; stop it first")
        except (checkspool.CannotCheck, checkspool.SpoolError) as error:
            refuse(str(error))
        return done.is_sound, done.lines

    def moved(
        self, source: str, target: str, tell: Callable[[str], None], password_file: Path | None, how: How
    ) -> tuple[bool, tuple[str, ...]]:
        """Whether all of a queue has been moved, and what to tell of that; says so where it cannot be."""
        from engine.moving import CannotMove, command_of, move_queue

        try:
            return move_queue(source, target, tell, password_file=password_file, how=how)
        except CannotMove as error:
            refuse(str(error))
        except KeyboardInterrupt:
            refuse(f"stopped; `{command_of(source, target)}` goes on with it")

    def examined(self, asked: "Asked") -> "tuple[Finding, ...]":
        """What the doctor finds, by the settings."""
        from engine.doctor.checkup import examine
        from engine.queue.sqlite.filesystems import unsafe

        async def time_there(store: str, password: str) -> float:
            from engine.queue.postgres.there import time_there as asked_there  # its driver takes long to load

            return await asked_there(store, password)

        return examine(self.settings(), asked, unsafe=unsafe, time_there=time_there)

    def send(self, words: list[str]) -> int:
        """Do what sendmail does with these words."""
        from engine.intake.sendmail.command import main as sendmail

        return sendmail(words, config=self._config, spool=self._spool)

    def keys(self) -> "_Keys":
        """The keys that sign mail."""
        from engine.settings.file import find

        return _Keys(self._settings_for_client(), find(self._config))

    def users(self) -> "_Users":
        """Who may submit mail; where the settings name no file for them, says so and leaves."""
        from engine.intake.smtp.users import UsersFile

        settings = self._settings_for_client()
        path = settings.intake.submission.users
        if path is None:
            refuse("intake.submission.users: not set; it names the file in which those are who may submit mail")
        return _Users(UsersFile(path), settings.hostname)


class _Users:
    """The file of users; what cannot be done with it is said, and the command left. `hostname` is the relay's."""

    def __init__(self, file: "UsersFile", hostname: str) -> None:
        self._file = file
        self._hostname = hostname

    def set(self, name: str, password: str, senders: list[str] | None) -> bool:
        """Add a login, or give it a new password; False where it was there. None: its senders as they are."""
        with _refusing():
            return self._file.set(name, password, senders)

    def name_senders(self, name: str, senders: list[str]) -> None:
        """Let a login send as these, or as its own address alone where there are none."""
        with _refusing():
            self._file.name_senders(name, senders)

    def remove(self, name: str) -> None:
        """Take a login away."""
        with _refusing():
            self._file.remove(name)

    def logins(self) -> list[user.Login]:
        """Every login, in the order of names."""
        from engine.intake.smtp.senders import senders_of

        with _refusing():
            found = sorted(self._file.users().items())
        return [
            user.Login(name, senders_of(name, each.senders, self._hostname), is_old=each.senders is None)
            for name, each in found
        ]

    def login(self, name: str) -> user.Login:
        """The login of this name; where there is none, says so and leaves."""
        normal = unicodedata.normalize("NFC", name)
        found = next((login for login in self.logins() if login.name == normal), None)
        if found is None:
            refuse(f"{name}: no such login in {self._file.path}")
        return found


def _of_logins(file: Path | None) -> tuple[str, ...]:
    """What should be known of who may submit mail, and what is wrong with the file."""
    from engine.intake.smtp.users import UsersError, UsersFile, note_of

    try:
        note = note_of(UsersFile(file).users()) if file is not None else ""
    except UsersError as error:
        note = f"intake.submission.users: nobody can log in: {error}"
    return (note,) if note else ()


class _Keys:
    """The keys that sign mail, as the settings have them; what cannot be done is said, and the command left."""

    def __init__(self, settings: "Settings", file: Path | None) -> None:
        self._settings = settings
        self._file = file

    def add(self, domain: str, selector: str, kind: str, folder: Path | None) -> list[str]:
        """Make keys; give what is to be told of it, in lines."""
        from engine.dkim.keys import KeyProblem
        from engine.dkim.making import make, told, wanted

        if folder is None and self._file is not None:
            folder = self._file.parent / "dkim"
        if folder is None:
            refuse("there is no settings file for keys to lie beside; name a place with --folder", Status.USAGE)
        place, owner = folder.expanduser().absolute(), _owner(self._settings.spool)
        try:
            made = make(domain, wanted(kind, selector), place, owner)
        except ValueError as error:
            refuse(str(error), Status.USAGE)
        except KeyProblem as error:
            refuse(str(error))
        return list(told(made))

    def listed(self) -> list[dkim.Listed]:
        """Every key of the settings."""
        from engine.dkim.keys import KeyProblem, read_key

        found = []
        for one in self._settings.dkim:
            algorithm = trouble = ""
            try:
                algorithm = read_key(one).algorithm
            except KeyProblem as error:
                trouble = str(error)
            found.append(dkim.Listed(one.domain, one.selector, algorithm, str(one.key), trouble))
        return found

    def check(self, domain: str) -> list[tuple[bool, str]]:
        """Whether the DNS has each key of a domain, or of all where that is "", and a line of it."""
        import asyncio

        from engine.dkim.records import check
        from engine.dkim.signer import signing_for

        try:
            keys = signing_for(domain, self._settings.dkim) if domain else self._settings.dkim
        except ValueError as error:
            refuse(str(error), Status.USAGE)
        if not keys:
            refuse(f"the settings have no [[dkim]]{f' that signs for {domain}' if domain else ''}")
        return asyncio.run(check(keys, self._settings.dns))


@app.command()
def demo() -> None:
    """Try it: relay, console and a sandbox internet.

    Mail hosts of every temper on this machine alone; no mail leaves it, and nothing is kept.
    """
    from engine.engine import EngineThread
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
    from engine.engine import run_daemon

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
        _refuse_each(str(error), Status.REFUSED)


@config_app.command("reference")
def config_reference() -> None:
    """Print every setting, its default and what it may be.

    As Markdown: it is what docs/settings.md says.
    """
    from engine.settings.reference import reference

    for line in reference().rstrip().split("\n"):
        say(line)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    from engine.intake.smtp.users import UsersError

    try:
        yield
    except UsersError as error:
        refuse(str(error))


def _unusable(keys: "tuple[DkimKey, ...]") -> list[str]:
    """Which keys cannot be used, and why."""
    if not keys:
        return []
    from engine.dkim.keys import KeyProblem, read_key

    problems = []
    for place, one in enumerate(keys):
        try:
            read_key(one)
        except KeyProblem as error:
            problems.append(f"dkim[{place}].key: {error}")
    return problems


def _owner(spool: Path) -> tuple[int, int] | None:
    """Who is to have what root makes for the engine: whoever has the spool."""
    with contextlib.suppress(OSError):
        found = spool.stat()
        if os.geteuid() == 0 and found.st_uid != 0:
            return found.st_uid, found.st_gid
    return None


# -- the console ----------------------------------------------------------------------------------------------------


def _operate(setup: Setup) -> None:
    """The console of the relay; of the one that runs already, for which nobody need be able to start another."""
    from engine.engine import EngineThread

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
    from engine.engine import CannotStart, EngineFailed, SpoolOwned

    try:
        yield
    except EngineFailed as error:
        refuse(f"the engine has ended: {error}")
    except (CannotStart, SpoolOwned) as error:
        if but_for is not None and isinstance(error, but_for):
            raise
        hint = "; `smarthost attach` opens its console" if isinstance(error, SpoolOwned) else ""
        refuse(f"the engine does not start: {error}{hint}")


def _refuse_each(problems: str, status: Status) -> NoReturn:
    for problem in problems.split("\n"):
        complain(problem)
    raise typer.Exit(status)


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
