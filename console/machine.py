"""What is done on this machine past the engine: by the settings, and with the files and the queue that they name.

What is needed of the engine's parts is imported only where it is, so that `smarthost status` is quick.
"""

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
import typer

from console.commands import dkim, user
from console.commands.door import Door, Status, complain, refuse
from console.commands.spool import How
from engine.control.client import control_socket

if TYPE_CHECKING:
    from engine.intake.smtp.users import UsersFile
    from engine.model.finding import Asked, Finding
    from engine.settings.settings import DkimKey, Http, Settings


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
            refuse_each(str(error), Status.USAGE)
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
            refuse_each(str(error), Status.USAGE)

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
        submission, http = settings.intake.submission, settings.intake.http
        notes = settings.notes
        if http.listen and (problems := _unusable_for_http(http, settings.hostname)):
            raise SettingsError(path, problems)
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

    def keys(self) -> "Keys":
        """The keys that sign mail."""
        from engine.settings.file import find

        return Keys(self._settings_for_client(), find(self._config))

    def users(self) -> "Users":
        """Who may submit mail; where the settings name no file for them, says so and leaves."""
        from engine.intake.smtp.users import UsersFile

        settings = self._settings_for_client()
        path = settings.intake.submission.users
        if path is None:
            refuse("intake.submission.users: not set; it names the file in which those are who may submit mail")
        return Users(UsersFile(path), settings.hostname)


class Users:
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
        users = UsersFile(file).users() if file is not None else {}
        note = note_of(users)
        if file is not None and not users:
            note = f"intake.submission.users: nobody is in {file} yet; `smarthost user add NAME` adds who may log in"
    except UsersError as error:
        note = f"intake.submission.users: nobody can log in: {error}"
    return (note,) if note else ()


class Keys:
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
            which = f" that signs for {domain}" if domain else ""
            hint = f"`smarthost dkim add {domain or 'DOMAIN'}` makes keys, and says what to write there"
            refuse(f"the settings have no [[dkim]]{which}; {hint}")
        return asyncio.run(check(keys, self._settings.dns))


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


def _unusable_for_http(http: "Http", hostname: str) -> list[str]:
    """What of the settings for posting cannot be used, and why."""
    from engine.intake.errors import IntakeError
    from engine.intake.http.tokens import Tokens
    from engine.intake.smtp.tls import context_of

    problems = []
    try:
        if http.certificate is not None:
            context_of(http.certificate, http.key, "intake.http")
    except IntakeError as error:
        problems.append(str(error))
    try:
        if http.tokens is not None:
            Tokens(http.tokens, hostname).look()
    except IntakeError as error:
        problems.append(str(error))
    return problems


def _owner(spool: Path) -> tuple[int, int] | None:
    """Who is to have what root makes for the engine: whoever has the spool."""
    with contextlib.suppress(OSError):
        found = spool.stat()
        if os.geteuid() == 0 and found.st_uid != 0:
            return found.st_uid, found.st_gid
    return None


def refuse_each(problems: str, status: Status) -> NoReturn:
    """Say all that is wrong with the settings, and leave."""
    for problem in problems.split("\n"):
        complain(problem)
    raise typer.Exit(status)
