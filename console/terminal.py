"""The console's life on a terminal that may stall, hang up or be told to go; mail must not notice.

Textual handles neither SIGHUP nor SIGTERM, its loop blocks for good once a terminal stops reading, and its input
thread spins when a terminal is gone. So a thread of our own watches: told to leave, it drains the engine first, then
asks the app to end, and ends the process when the app cannot.
"""

import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import FrameType
from typing import Any

from textual.app import App

_APP_SECONDS = 2.0  # how long the app may take to end; a blocked one never would
_WATCH_SECONDS = 1.0  # how often we look whether the terminal is still there


def is_terminal() -> bool:
    """Whether there is a terminal to draw on and to read keys from."""
    return (
        sys.__stdin__ is not None
        and sys.__stdin__.isatty()
        and os.isatty(sys.__stderr__.fileno() if sys.__stderr__ else -1)
    )


def run(
    app: App[Any],
    *,
    stop_engine: Callable[[], object] = lambda: None,
    say_draining: Callable[[], object] = lambda: None,
) -> int:
    """Run the app until it ends, SIGTERM or SIGHUP comes, or the terminal hangs up; then drain the engine.

    Gives the exit status, which is not 0 where the app broke. `stop_engine` may be called twice and from another
    thread; it bounds its own time. `say_draining` is called before it where the app has left the terminal by itself:
    what is said there is seen, for as long as draining takes. Does not return where the app is stuck on its terminal:
    the process ends, with status 0, once the engine has stopped.
    """
    leaving = threading.Event()
    ended = threading.Event()

    def leave(_number: int, _frame: FrameType | None) -> None:
        leaving.set()

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    settings = _terminal_settings()
    watcher = threading.Thread(
        target=_watch, args=(app, leaving, ended, stop_engine, settings), name="terminal", daemon=True
    )
    watcher.start()
    try:
        app.run()
    finally:
        if not leaving.is_set():
            with suppress(OSError):  # it may hang up at this very moment
                say_draining()
        stop_engine()
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        _drop_what_cannot_be_written()
    return app.return_code or 0


def answer_stops(app: App[Any]) -> None:
    """Stop at SIGTSTP as a shell's job does, and go on at SIGCONT, once the app has its driver.

    Textual's own handler takes every SIGCONT for the end of a stop, also the one that the kernel sends with the SIGHUP
    of a line that dropped: the second thread that then reads the terminal never ends, and spins.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        with app.suspend() if app.is_running else nullcontext():
            os.kill(os.getpid(), signal.SIGSTOP)

    signal.signal(signal.SIGTSTP, stop)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)


def _watch(
    app: App[Any],
    leaving: threading.Event,
    ended: threading.Event,
    stop_engine: Callable[[], object],
    settings: list[Any] | None,
) -> None:
    while not leaving.wait(_WATCH_SECONDS):
        if ended.is_set():
            return
        if _hung_up():
            break
    stop_engine()
    loop = app._loop if app.is_running else None  # noqa: SLF001 - the one way in from a thread that must not wait
    if loop is not None:
        loop.call_soon_threadsafe(app.exit)
    if ended.wait(_APP_SECONDS):
        return
    # The app is blocked on a terminal that does not read: leave the line in a state a shell can use, and go.
    if settings is not None:
        _restore(settings)
    os._exit(0)


def _drop_what_cannot_be_written() -> None:
    """What is left to write to a terminal that is gone goes nowhere: at its end Python would call that a failure."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _hung_up() -> bool:
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _terminal_settings() -> list[Any] | None:
    try:
        return termios.tcgetattr(0)
    except termios.error:
        return None


def _restore(settings: list[Any]) -> None:
    try:
        termios.tcsetattr(0, termios.TCSANOW, settings)
    except termios.error:
        return  # the terminal is gone, and with it what there was to restore
