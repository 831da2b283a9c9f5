"""Where the mail log goes: a stream, a file, the syslog, the journal. Each is used by one thread; raises OSError."""

import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from engine.maillog.lines import Line

PROGRAM = "smarthost"
SYSLOG = Path("/dev/log")
JOURNAL = Path("/run/systemd/journal/socket")
LOOK_SECONDS = 1.0  # between looks whether a file was turned over
LARGEST = 10 * 2**20  # bytes of a file that nobody else turns over; one older one is kept

_MAIL_INFO = 2 * 8 + 6  # facility and severity (RFC 5424 6.2.1)
_INFO = 6


class Sink(ABC):
    """Takes lines, all of them or none."""

    @abstractmethod
    def write(self, lines: Sequence[Line]) -> None:
        """Write them, in order."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    @abstractmethod
    def __str__(self) -> str: ...


class Stream(Sink):
    """Standard error, each line whole with time, host and program."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname

    def write(self, lines: Sequence[Line]) -> None:
        """Write them."""
        sys.stderr.write(_text(lines, self._hostname))
        sys.stderr.flush()

    def close(self) -> None:
        """It stays open: it is everybody's."""

    def __str__(self) -> str:
        return "standard error"


class File(Sink):
    """A file, opened anew once another stands in its place, as logrotate puts it.

    `largest`: it is ours alone, mode 0600, and beyond so many bytes it is turned over here, to one whose name ends in
    ".1". None: others turn it over, and its group may read it, mode 0640.
    """

    def __init__(self, path: Path, hostname: str, *, largest: int | None = None) -> None:
        self._path = path
        self._hostname = hostname
        self._largest = largest
        self._look_at = 0.0
        self._file: int | None = None

    def write(self, lines: Sequence[Line]) -> None:
        """Write them; where the disk has no room for all, what is half written is taken back."""
        file = self._opened()
        data = _text(lines, self._hostname).encode("utf-8", "backslashreplace")
        before = os.fstat(file).st_size
        written = os.write(file, data)
        while written < len(data):
            try:
                written += os.write(file, data[written:])
            except OSError:
                os.ftruncate(file, before)
                raise

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __str__(self) -> str:
        return str(self._path)

    def _opened(self) -> int:
        """The file; whether another stands in its place is looked at once in LOOK_SECONDS."""
        if self._file is not None and time.monotonic() < self._look_at:
            return self._file
        self._look_at = time.monotonic() + LOOK_SECONDS
        if self._file is not None:
            found = os.fstat(self._file)
            if self._largest is not None and found.st_size >= self._largest:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with suppress(FileNotFoundError):
                there = self._path.stat()
                if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
                    return self._file
            self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o640 if self._largest is None else 0o600)
        return self._file


class Datagrams(Sink):
    """A socket of the system's that takes a datagram for each line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[Line]) -> None:
        """Send them; where that breaks off in the middle the rest is sent to whoever listens there next."""
        for line in lines:
            data = self.datagram(line)
            try:
                self._connected().send(data)
            except OSError:  # it was started anew
                self.close()
                self._connected().send(data)

    def close(self) -> None:
        """Close it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __str__(self) -> str:
        return str(self._path)

    @abstractmethod
    def datagram(self, line: Line) -> bytes:
        """A line as it is sent."""

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            made.settimeout(1.0)
            try:
                made.connect(str(self._path))
            except BaseException:
                made.close()
                raise
            self._socket = made
        return self._socket


class Syslog(Datagrams):
    """The system's log, facility mail (RFC 3164)."""

    def __init__(self, path: Path = SYSLOG) -> None:
        super().__init__(path)

    def datagram(self, line: Line) -> bytes:
        """With the time as syslog(3) writes it."""
        at = datetime.fromtimestamp(line.at)  # noqa: DTZ006 (local time is what stands there)
        text = f"<{_MAIL_INFO}>{at:%b} {at.day:2d} {at:%H:%M:%S} {_program(line)}: {line.text}"
        return text.encode("utf-8", "backslashreplace")


class Journal(Datagrams):
    """systemd's journal, in its own protocol: each line under the name of its service."""

    def __init__(self, path: Path = JOURNAL) -> None:
        super().__init__(path)

    def datagram(self, line: Line) -> bytes:
        """The fields of an entry, one a line: no text of ours has a line break."""
        service = f"{PROGRAM}/{line.service}" if line.service else PROGRAM
        fields = {
            "MESSAGE": line.text,
            "PRIORITY": str(_INFO),
            "SYSLOG_FACILITY": str(_MAIL_INFO >> 3),
            "SYSLOG_IDENTIFIER": service,
            "SYSLOG_PID": str(os.getpid()),
        }
        return "".join(f"{name}={value}\n" for name, value in fields.items()).encode("utf-8", "backslashreplace")


def _program(line: Line) -> str:
    return f"{PROGRAM}{f'/{line.service}' if line.service else ''}[{os.getpid()}]"


def _text(lines: Sequence[Line], hostname: str) -> str:
    """Whole lines; a record that has its own time stands alone."""
    return "".join(
        f"{datetime.fromtimestamp(line.at).astimezone().isoformat(timespec='microseconds')} {hostname} "
        f"{_program(line)}: {line.text}\n"
        if line.service
        else f"{line.text}\n"
        for line in lines
    )
