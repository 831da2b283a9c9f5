"""What an operator prefers to see, kept for them from one console to the next."""

import os
from collections.abc import Collection
from pathlib import Path

import msgspec
import platformdirs


class Kept(msgspec.Struct):
    """What is in the file: the order of each list, as the engine names orders, "-" first for a falling one."""

    order: dict[str, str] = msgspec.field(default_factory=dict)


class Preferences:
    """Kept in `file`, by default in none. What cannot be read there, or is no more known, counts as not chosen."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._kept = _read(file)

    def order(self, name: str, known: Collection[str], default: str) -> str:
        """The order chosen for a list, of those known; else the default."""
        chosen = self._kept.order.get(name, default)
        return chosen if chosen.removeprefix("-") in known else default

    def keep_order(self, name: str, order: str) -> None:
        """Choose the order of a list. Raises OSError when it counts for this console only."""
        if self._kept.order.get(name) == order:
            return
        self._kept.order[name] = order
        if self._file is not None:
            _write(self._file, self._kept)


def file_of_user() -> Path:
    """Where the preferences of whoever runs this are."""
    return platformdirs.user_config_path("smarthost") / "console.json"


def _read(file: Path | None) -> Kept:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Kept) if file is not None else Kept()
    except (OSError, msgspec.MsgspecError):
        return Kept()


def _write(file: Path, kept: Kept) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        new.write_bytes(msgspec.json.format(msgspec.json.encode(kept)))
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
