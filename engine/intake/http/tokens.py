"""Who may post from the network: a file of tokens, each with the login it is for and the senders that this may have.

    shop    8f5bd2...64 characters that nobody guesses...    *@shop.example

Its third column and what follows may be missing: then a login has its own address, as at submission.
"""

import hmac
import stat
from pathlib import Path
from typing import NamedTuple

from engine.base.permission import why_not
from engine.base.text import clean
from engine.intake.errors import IntakeError
from engine.intake.smtp.senders import SenderError, read_sender, senders_of

SHORTEST = 32  # characters of a token: none that is guessed
LONGEST = 512
MOST = 1000  # tokens of a file
MAX_FILE = 1024 * 1024  # bytes


class Token(NamedTuple):
    """A token, whose it is, and as whom it may send."""

    secret: bytes
    login: str
    senders: tuple[str, ...]


class Tokens:
    """The tokens of a file, read anew when it changes. `trouble` says why nobody can post, or "".

    A login that has no senders sends as its own address, at `hostname` where its name has none.
    """

    def __init__(self, file: Path, hostname: str) -> None:
        self.trouble = ""
        self._file = file
        self._hostname = hostname
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def look(self) -> None:
        """Read the file where it is another than before; in any thread. Raises IntakeError: nobody is known then."""
        try:
            found = self._file.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen == self._seen and not self.trouble:
                return
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise IntakeError(f"{self._file} may be read by others; chmod 0600 it")
            with self._file.open("rb") as file:
                text = file.read(MAX_FILE + 1)
            self._tokens = tuple(self._read(text))
            self._seen, self.trouble = seen, ""
        except OSError as error:
            self._fail(why_not(error, self._file, "read"))
        except IntakeError as error:
            self._fail(str(error))

    def find(self, given: str) -> Token | None:
        """Whose token this is; each is compared in the same time, whatever it begins with."""
        secret = given.encode("utf-8", "replace")
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.secret, secret):
                found = token
        return found

    def _fail(self, why: str) -> None:
        self._tokens = ()
        self.trouble = f"intake.http.tokens: nobody can post: {clean(why, 300)}"
        raise IntakeError(f"intake.http.tokens: {why}")

    def _read(self, text: bytes) -> list[Token]:
        if len(text) > MAX_FILE:
            raise IntakeError(f"{self._file} has more than {MAX_FILE} bytes")
        try:
            lines = text.decode().splitlines()
        except UnicodeDecodeError as error:
            raise IntakeError(f"{self._file} is not UTF-8") from error
        found: dict[str, Token] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            token = self._token(f"{self._file} line {number}", line.split())
            if token.login in found:
                raise IntakeError(f"{self._file} line {number}: {clean(token.login, 60)} stands there twice")
            found[token.login] = token
        if len(found) > MOST:
            raise IntakeError(f"{self._file} has {len(found)} tokens; at most {MOST} are allowed")
        return list(found.values())

    def _token(self, where: str, words: list[str]) -> Token:
        if len(words) < 2:
            raise IntakeError(f"{where} is not LOGIN TOKEN [SENDER]...")
        login, secret, *named = words
        if not (SHORTEST <= len(secret) <= LONGEST and secret.isascii() and secret.isprintable()):
            allowed = f"allowed are {SHORTEST} to {LONGEST} characters of ASCII, as `openssl rand -hex 32` gives"
            raise IntakeError(f"{where}: this is no token; {allowed}")
        try:
            senders = tuple(map(read_sender, named))
        except SenderError as error:
            raise IntakeError(f"{where}: {error}") from error
        return Token(secret.encode(), login, senders_of(login, senders, self._hostname))
