"""Messages before which a peer ended the session: a few times, that costs them no attempt."""

from engine.base.kept import Kept

_TIMES = 5  # each beside a message that was taken: more than bad luck with a host that takes few a session
_MOST = 10_000  # messages


class FreeTries:
    """Counts the free tries of each message. In memory, and bounded: what is forgotten has them anew."""

    def __init__(self) -> None:
        self._times = Kept[tuple[int, str], int](_MOST)

    def is_free(self, message: int, destination: str) -> bool:
        """Whether this try of a message to a destination counts as no attempt."""
        times = self._times.get((message, destination), 0) + 1
        if times > _TIMES:
            del self._times[message, destination]
            return False
        self._times[message, destination] = times
        return True
