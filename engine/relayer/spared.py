"""Messages before which a peer ended the session: once, that costs them no attempt."""

_MOST = 10_000


class Spared:
    """Remembers whom it was spared. In memory, and bounded: what is forgotten is spared once more."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], None] = {}

    def is_first(self, message: int, destination: str) -> bool:
        """Whether this is the first time for a message to a destination."""
        if (message, destination) in self._seen:
            del self._seen[message, destination]
            return False
        self._seen[message, destination] = None
        if len(self._seen) > _MOST:
            del self._seen[next(iter(self._seen))]
        return True
