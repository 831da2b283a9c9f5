"""What was said in an SMTP conversation: bounded, cleaned, readable while it goes on and after it failed."""

from collections import deque

from engine.base.clock import Clock
from engine.base.text import clean
from engine.model.transcript import Line, Side


class Transcript:
    """Keeps how a conversation began (`head` lines) and how it goes (the last `tail` lines); `cut` counts the rest.

    The beginning tells who the peer is and what it offers, the end what went wrong.
    """

    def __init__(self, clock: Clock, head: int = 60, tail: int = 240) -> None:
        self._clock = clock
        self._head: list[Line] = []
        self._head_room = head
        self._tail: deque[Line] = deque(maxlen=tail)
        self.cut = 0

    def add(self, side: Side, text: str) -> None:
        """Remember a line; hostile bytes in it are made harmless here."""
        line = Line(at=self._clock.now(), side=side, text=clean(text, 512))
        if len(self._head) < self._head_room:
            self._head.append(line)
            return
        if len(self._tail) == self._tail.maxlen:
            self.cut += 1
        self._tail.append(line)

    def lines(self) -> list[Line]:
        """All lines kept, in order."""
        return [*self._head, *self._tail]
