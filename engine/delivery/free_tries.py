"""Messages before which a peer ended the session: a few times, that costs them no attempt."""

from collections import Counter

_TIMES = 5  # each beside a message that was taken: more than bad luck with a host that takes few a session
_MOST = 10_000  # messages


class FreeTries:
    """Counts the free tries of each message. In memory, and bounded: what is forgotten has them anew."""

    def __init__(self) -> None:
        self._times: Counter[tuple[int, str]] = Counter()

    def is_free(self, message: int, destination: str) -> bool:
        """Whether this try of a message to a destination counts as no attempt."""
        self._times[message, destination] += 1
        if self._times[message, destination] > _TIMES:
            del self._times[message, destination]
            return False
        if len(self._times) > _MOST:
            del self._times[next(iter(self._times))]
        return True
