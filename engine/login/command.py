"""Tokens that a command prints: the operator's own way to whoever gives them."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from engine.base.text import clean
from engine.login.login import Answer, NoLogin, Token

SECONDS = 30.0  # that a command may take
MOST_PRINTED = 64 * 1024  # bytes


class TokenCommand:
    """Runs a command, which prints a token alone, or JSON as a token endpoint gives it."""

    def __init__(self, words: Sequence[str], *, seconds: float = SECONDS) -> None:
        self._words = tuple(words)
        self._seconds = seconds

    async def __call__(self) -> Token:
        """What it prints. Raises NoLogin; nothing that it starts in its own process group outlives this."""
        name = self._words[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            raise NoLogin(f"token_command {name}: {error.strerror or error}") from error
        try:
            async with asyncio.timeout(self._seconds):
                printed, complained = await asyncio.gather(_read(process.stdout), _read(process.stderr))
                status = await process.wait()
        except TimeoutError:
            raise NoLogin(f"token_command {name}: not done within {self._seconds:g} s") from None
        finally:
            await _end(process)
        if status:
            said = clean(complained.decode("utf-8", "replace").strip().split("\n")[-1], 200)
            raise NoLogin(f"token_command {name}: exit status {status}" + (f": {said}" if said else ""))
        return _token(name, printed)


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """The beginning of what is written; the rest is read and let go."""
    assert stream is not None
    kept = b""
    while piece := await stream.read(MOST_PRINTED):
        kept = (kept + piece)[:MOST_PRINTED]
    return kept


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _token(name: str, printed: bytes) -> Token:
    text = printed.strip()
    if not text.startswith(b"{"):
        return Token(text.decode("ascii", "replace"))
    try:
        answer = msgspec.json.decode(text, type=Answer, strict=False)
    except msgspec.DecodeError as error:
        raise NoLogin(f"token_command {name}: it prints JSON without access_token: {error}") from error
    return Token(answer.access_token, answer.expires_in)
