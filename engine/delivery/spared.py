"""Messages before which a peer ended the session: a few times, that costs them no attempt."""

from collections import Counter

_TIMES = 5  # each beside a message that was taken: more than bad luck with a host that takes few a session
_MOST = 10_000  # messages


class Spared:
    """Counts what was spared whom. In memory, and bounded: what is forgotten is spared anew."""

    def __init__(self) -> None:
        self._times: Counter[tuple[int, str]] = Counter()

    def is_spared(self, message: int, destination: str) -> bool:
        """Whether a message to a destination is spared the attempt once more."""
        self._times[message, destination] += 1
        if self._times[message, destination] > _TIMES:
            del self._times[message, destination]
            return False
        if len(self._times) > _MOST:
            del self._times[next(iter(self._times))]
        return True
