"""The mail log as the engine has it: told of events as they are committed, it writes them without holding anybody up.

Lines are made on the loop and written by a thread: whoever reads a pipe slowly, or a disk that is full, keeps no mail
waiting. What is not taken in time is counted, and told once there is room again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from engine.base.clock import Clock
from engine.maillog import lines, records
from engine.maillog.lines import Line
from engine.maillog.sinks import Sink
from engine.model.event import Event
from engine.model.refusal import Refusal

log = logging.getLogger(__name__)

MOST_WAITING = 50_000  # lines that are not written yet
AT_ONCE = 1000  # lines in one write
GATHER = 0.05  # seconds in which lines are gathered for one write: a thread that wakes for each takes time from mail
LAST_SECONDS = 5.0  # for what is still to be written when the engine stops
RETRY_SECONDS = 1.0  # between tries to write, where that cannot be


class MailLog:
    """Writes what happens to mail to a sink, as text or as JSON."""

    def __init__(self, sink: Sink, clock: Clock, *, as_json: bool = False) -> None:
        self._sink = sink
        self._clock = clock
        self._lines: Callable[[Event], Iterable[Line]] = records.records if as_json else lines.lines
        self._refused: Callable[[Refusal, float], Line] = records.refused if as_json else lines.refused
        self._waiting: deque[Line] = deque()
        self._changed = threading.Condition()
        self._left_out = 0
        self._over = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="mail log", daemon=True)

    @property
    def trouble(self) -> str:
        """Why it cannot be written now, or ""."""
        return self._trouble

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def publish(self, events: Iterable[Event]) -> None:
        """Tell of events that have been committed."""
        made = [line for event in events for line in self._lines(event)]
        if made:
            self._put(made)

    def refused(self, refusal: Refusal) -> None:
        """Tell of a refusal at the door."""
        self._put([self._refused(refusal, self._clock.now())])

    def close(self) -> None:
        """Write what is there, for LAST_SECONDS at the most, and end. May be called where it was never started."""
        self._over.set()
        with self._changed:
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(LAST_SECONDS)
        self._sink.close()

    def _put(self, made: Sequence[Line]) -> None:
        with self._changed:
            if len(self._waiting) + len(made) > MOST_WAITING:
                self._left_out += len(made)
                return
            if self._left_out:
                self._waiting.append(_left_out(self._left_out, made[0].at))
                self._left_out = 0
            self._waiting.extend(made)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._over.is_set():
                    self._changed.wait()
                if not self._waiting:
                    return
            self._over.wait(GATHER)
            with self._changed:
                taken = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            while not self._write(taken):
                if self._over.wait(RETRY_SECONDS):
                    return

    def _write(self, taken: Sequence[Line]) -> bool:
        """Whether they are written, or never can be."""
        try:
            self._sink.write(taken)
        except OSError as error:
            why = f"the mail log cannot be written: {self._sink}: {error.strerror or error}"
            if why != self._trouble:
                log.error("%s", why)
            self._trouble = why
            return False
        self._trouble = ""
        return True


def _left_out(count: int, at: float) -> Line:
    return Line(at, "engine", f"{count} lines were left out: they could not be written in time")
