"""What breaks in the console is written down with its traceback, for who mends it; the screen has its name alone.

The values of variables are never written: they hold passwords and addresses. The text of an error may hold an address,
so the file is its owner's alone.
"""

import logging
import os
import traceback
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

import platformdirs

from console.format import safe

LARGEST = 1024 * 1024  # bytes of a log; two older ones are kept
_PLACES = 1000  # in which something broke, remembered; of more than that, each is new again
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)

_times: dict[tuple[str, str, int | None], int] = {}
_handlers: list[logging.Handler] = []
_kept_in: list[Path] = []


def file_of_user() -> Path:
    """Where a console writes it down that is attached to an engine elsewhere."""
    return platformdirs.user_state_path("smarthost") / "console.log"


def keep_in(path: Path, level: str = "info") -> None:
    """Have all logging go to a file of mode 0600: on the terminal it would be drawn into the screen.

    Where there can be no such file nothing is written, and nothing fails. `level` is that of our own; what we stand
    on is never asked for more than its infos, which could be secrets.
    """
    logging.raiseExceptions = False
    _kept_in.clear()
    handler: logging.Handler = logging.NullHandler()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(path.parent, os.W_OK | os.X_OK):
            handler = _PrivateFile(path)
            _kept_in.append(path)
    except OSError:
        pass
    _log_to(handler, level)


def to_stderr(level: str = "info") -> None:
    """Have all logging go to standard error, where nothing is drawn."""
    _log_to(logging.StreamHandler(), level)


def _log_to(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    for before in _handlers:
        root.removeHandler(before)
        before.close()
    _handlers[:] = [handler]
    handler.setFormatter(_Clean(_FORMAT))
    root.addHandler(handler)
    root.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    for house in ("engine", "console"):
        logging.getLogger(house).setLevel(level.upper())


def note(error: BaseException) -> str:
    """Write an error down, and give the words that say where ("; see FILE"), or "".

    The same at the same place is counted, not written again: each second may bring it.
    """
    place = _place(error)
    if len(_times) >= _PLACES:
        _times.clear()
    times = _times[place] = _times.get(place, 0) + 1
    if times == 1:
        log.error("the console stumbled", exc_info=error)
    elif str(times).strip("0") == "1":
        log.error("the console stumbled %d times: %s at %s:%s", times, *place)
    return f"; see {_kept_in[0]}" if _kept_in else ""


def _place(error: BaseException) -> tuple[str, str, int | None]:
    """What broke, and in which line of which file."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else ("", None)
    return type(error).__name__, file, line


class _Clean(logging.Formatter):
    """Nothing in a log can steer the terminal on which somebody reads it."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(safe(line) for line in super().format(record).split("\n"))


class _PrivateFile(RotatingFileHandler):
    """A log of its owner's, bounded."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LARGEST, backupCount=2, delay=True, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self.baseFilename, flags, 0o600)
        os.fchmod(file, 0o600)
        return open(file, "a", encoding=self.encoding, errors=self.errors)  # noqa: PTH123 (a descriptor)
