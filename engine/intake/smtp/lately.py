"""Which bounds were reached lately, in words for whoever looks at health."""

from engine.base.clock import Clock

TOLD_FOR = 300.0  # seconds after a bound was reached last


class Lately:
    """Keeps what was reached, by kind, and tells of each for five minutes after the last time.

    There are as many kinds as the code names, so that strangers cannot make this grow.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._texts: dict[str, tuple[float, str]] = {}

    def reached(self, kind: str, text: str) -> None:
        """A bound was reached. `text` is one sentence, cleaned."""
        self._texts[kind] = (self._clock.now(), text)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be told now."""
        now = self._clock.now()
        return tuple(text for at, text in self._texts.values() if abs(now - at) <= TOLD_FOR)
