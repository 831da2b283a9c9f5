"""Who may log in to submit mail, and as whom: a file of names, what argon2 made of their passwords, and senders."""

import asyncio
import fcntl
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from msgspec import Struct

from engine.base.files import put
from engine.base.permission import refusal, why_not
from engine.base.plural import plural
from engine.base.text import clean
from engine.intake.smtp.senders import SenderError, read_sender, senders_of

MAX_NAME = 255  # characters of a login
MAX_PASSWORD = 1024  # octets of a password: hashing more would only be work
AT_A_TIME = 2  # passwords tried at once: each takes a core, and 19 MiB
MAX_WAITING = 64  # passwords that wait to be tried; more are put off
MOST_NAMED = 5  # logins without senders that health names; the others are counted

# OWASP's second choice of parameters: 19 MiB, two passes, one lane. Some ten milliseconds.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_NOTE = "# Who may submit mail: name:argon2:senders, kept by `smarthost user`.\n"


class UsersError(Exception):
    """The users cannot be read, written or changed so; the text names the file or the name, and what is allowed."""


class Unavailable(Exception):
    """Whether a password is right cannot be told at the moment; the text says why."""


class User(Struct, frozen=True):
    """A login: what argon2 made of its password, and as whom it may send (see senders.py).

    `senders` is () where its own address is all it has, and None where its line has no senders: it is from before they
    were kept, and may send as anybody, as it always could.
    """

    hashed: str
    senders: tuple[str, ...] | None = ()


class UsersFile:
    """The file as `smarthost user` keeps it: mode 0600, and changed as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def users(self) -> dict[str, User]:
        """Each login by its name; none where there is no file. Raises UsersError."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsersError(why_not(error, self.path, "read")) from error
        except UnicodeDecodeError as error:
            raise UsersError(f"{self.path} cannot be read: {_why(error)}") from error
        found: dict[str, User] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, rest = line.partition(":")
            hashed, colon, senders = rest.partition(":")
            if not hashed.startswith("$argon2") or name in found:
                raise UsersError(
                    f"{self.path}: line {number} is not name:argon2:senders, or its name stood there before"
                )
            try:
                found[name] = User(hashed, tuple(map(read_sender, senders.split())) if colon else None)
            except SenderError as error:
                raise UsersError(f"{self.path}: line {number}: {error}") from error
        return found

    def set(self, name: str, password: str, senders: Sequence[str] | None = None) -> bool:
        """Add a login, or give it a new password; False where it was there. Raises UsersError.

        `senders` are those it has from now on, none for its own address alone; None: as they are, or for one that is
        new its own address.
        """
        name, secret = _checked_name(name), prepared(password)
        named = None if senders is None else _checked_senders(senders)
        if not secret or len(secret) > MAX_PASSWORD or b"\0" in secret:
            raise UsersError(f"the password: allowed are 1 to {MAX_PASSWORD} octets, none of them NUL")
        hashed = _HASHER.hash(secret)
        with self._locked():
            found = self.users()
            was = found.get(name)
            if named is None:
                named = () if was is None else was.senders
            self._write({**found, name: User(hashed, named)})
        return was is None

    def name_senders(self, name: str, senders: Sequence[str]) -> None:
        """Let a login send as these, or as its own address alone where there are none. Raises UsersError."""
        named = _checked_senders(senders)
        with self._locked():
            found = self.users()
            name = self._known(name, found)
            self._write({**found, name: User(found[name].hashed, named)})

    def remove(self, name: str) -> None:
        """Take a login away. Raises UsersError, also where there is none of this name."""
        with self._locked():
            found = self.users()
            del found[self._known(name, found)]
            self._write(found)

    def _known(self, name: str, users: Mapping[str, User]) -> str:
        """The name of a login as it stands in the file. Raises UsersError."""
        normal = unicodedata.normalize("NFC", name)
        if normal not in users:
            raise UsersError(f"{clean(name, MAX_NAME)}: no such login in {self.path}")
        return normal

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep two commands from overwriting each other's change. The folder is locked: the file is replaced."""
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsersError(why_not(error, self.path.parent, "entered")) from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        except PermissionError as error:
            raise UsersError(refusal(self.path.parent, "written to")) from error
        except OSError as error:
            raise UsersError(f"{self.path} cannot be written: {_why(error)}") from error
        finally:
            os.close(folder)

    def _write(self, users: Mapping[str, User]) -> None:
        """Replace the file. It keeps its owner. Raises OSError."""
        owner = None
        with suppress(FileNotFoundError):
            was = self.path.stat()
            if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                owner = was.st_uid, was.st_gid
        text = _NOTE + "".join(_line(name, user) for name, user in sorted(users.items()))
        put(self.path, text.encode(), owner=owner)


class _Seen(Struct, frozen=True):
    """The file as it was when it was last read."""

    inode: int
    size: int
    modified: int


class Logins:
    """Tells whether a password is right, and as whom one may send. The file is read anew whenever it has changed.

    A login that does not exist takes as much work as one that does. `trouble` is why nobody can log in, or "".
    """

    def __init__(self, path: Path) -> None:
        self.trouble = ""
        self._file = UsersFile(path)
        self._seen: _Seen | None = None
        self._users: dict[str, User] = {}
        self._nobody = _HASHER.hash(os.urandom(16))
        self._threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="password")
        self._asked = 0

    async def right(self, name: str, password: str) -> bool:
        """Whether this login has this password. Raises Unavailable."""
        if self._asked >= MAX_WAITING:
            raise Unavailable("too many passwords wait to be tried")
        self._asked += 1
        # A thread goes on when its caller is cancelled: it counts until it is done.
        tried = asyncio.get_running_loop().run_in_executor(self._threads, self._right, name, password)
        tried.add_done_callback(self._done)
        return await asyncio.shield(tried)

    def senders(self, name: str, hostname: str) -> tuple[str, ...]:
        """As whom a login may send, as the file said when a password was asked for last; a login must be NFC."""
        user = self._users.get(name)
        return senders_of(name, user.senders, hostname) if user is not None else ()

    @property
    def note(self) -> str:
        """Who may send as anybody without its being said, or ""."""
        return note_of(self._users)

    def look(self) -> None:
        """Read the file if it has changed. Raises Unavailable."""
        try:
            found = self._file.path.stat()
            seen = _Seen(found.st_ino, found.st_size, found.st_mtime_ns)
            if seen != self._seen:
                self._users, self._seen = self._file.users(), seen
        except (OSError, UsersError) as error:
            why = str(error) if isinstance(error, UsersError) else f"{self._file.path} cannot be read: {_why(error)}"
            self.trouble = f"nobody can log in: {why}"
            raise Unavailable(self.trouble) from error
        self.trouble = ""

    def close(self) -> None:
        """End the threads; what they are trying is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, tried: "asyncio.Future[bool]") -> None:
        self._asked -= 1
        if not tried.cancelled():
            tried.exception()

    def _right(self, name: str, password: str) -> bool:
        self.look()
        # Composing makes octets fewer by less than half, and takes far more than its time for a long text.
        secret = prepared(password) if len(password) <= 2 * MAX_PASSWORD else b""
        if len(secret) > MAX_PASSWORD:
            secret = b""
        user = self._users.get(unicodedata.normalize("NFC", name))
        try:
            hashed = self._nobody if user is None else user.hashed
            return _HASHER.verify(hashed, secret) and user is not None and secret != b""
        except InvalidHashError as error:
            raise Unavailable(f"{self._file.path}: the hash of a login is none of argon2's") from error
        except Argon2Error:
            return False


def prepared(password: str) -> bytes:
    """The octets of a password that are hashed: those of its composed form, however it was typed (RFC 8265 4.2.2)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogateescape")


def note_of(users: Mapping[str, User]) -> str:
    """That logins from before senders were kept may send as anybody, and what to do about it; or ""."""
    old = sorted(name for name, user in users.items() if user.senders is None)
    if not old:
        return ""
    more = f" and {len(old) - MOST_NAMED} more" if len(old) > MOST_NAMED else ""
    named = ", ".join(clean(name, 60) for name in old[:MOST_NAMED])
    return (
        f"intake.submission.users: {plural(len(old), 'login')} from before senders were kept may send as anybody"
        f" ({named}{more}); `smarthost user senders NAME ADDRESS` names theirs, --own is their own address"
    )


def _line(name: str, user: User) -> str:
    """A login as the file has it."""
    return f"{name}:{user.hashed}{'' if user.senders is None else ':' + ' '.join(user.senders)}\n"


def _checked_senders(senders: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(map(read_sender, senders)))
    except SenderError as error:
        raise UsersError(str(error)) from error


def _checked_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    wrong = not name or len(name) > MAX_NAME or clean(name, MAX_NAME) != name or name.startswith("#")
    if wrong or ":" in name or any(char.isspace() for char in name):
        raise UsersError(
            f"{clean(name, MAX_NAME)!r}: no name for a login; allowed are 1 to {MAX_NAME} characters that can be seen,"
            " without blanks and colons, and no # in front"
        )
    return name


def _why(error: Exception) -> str:
    return clean(getattr(error, "strerror", None) or str(error), 200)
