"""A program on a pseudo-terminal of the tests."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path


def on_a_terminal(
    command: Sequence[str | Path],
    columns: int = 80,
    lines: int = 24,
    env: Mapping[str, str] | None = None,
) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a program on a terminal of this size, its own; give its process, and our end of the line.

    Reading from our end waits for nothing: it raises BlockingIOError where nothing has come. `env` is what its
    environment has besides ours.
    """
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # it hears of it when the line drops
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    os.set_blocking(ours, False)
    return process, ours
