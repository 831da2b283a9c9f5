"""Mail is refused before the disk is full: what is queued already needs room to be worked on."""

import os
from collections.abc import Callable
from pathlib import Path

from engine.base.text import clean


class DiskFloor:
    """Watches how much is free in the file system of a folder, and in the store; it looks each time it is asked.

    Once less than `min_free` bytes are free nothing more is taken until a tenth more than that is: a disk at its
    edge would else open and shut with each message. `spare` gives the bytes that the store has and does not use.
    """

    def __init__(self, folder: Path, min_free: int, spare: Callable[[], int] = lambda: 0) -> None:
        self.free = _free
        self._spare = spare
        self._folder = folder
        self._min_free = min_free
        self._shut = False

    def why_not(self, octets: int = 0) -> str:
        """Why no mail of this many octets can be taken, or ""."""
        if not self._min_free:
            return ""
        try:
            free = self.free(self._folder) + self._spare()
        except OSError as error:
            return f"intake stops: {self._folder} cannot be looked at: {clean(error.strerror or str(error), 200)}"
        self._shut = free < (self._min_free + self._min_free // 10 if self._shut else self._min_free)
        if self._shut or free - octets < self._min_free:
            return f"intake stops: {_mib(free)} free in {self._folder}, intake.min_free is {_mib(self._min_free)}"
        return ""

    def room(self) -> int:
        """Bytes that may be written to files before the floor is met; none where the disk cannot be looked at."""
        try:
            return max(0, self.free(self._folder) - self._min_free)
        except OSError:
            return 0


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _mib(octets: int) -> str:
    return f"{octets / 2**20:,.0f} MiB"
