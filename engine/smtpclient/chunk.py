"""A message in one chunk (RFC 3030 2): how long it is is said first, and it goes as it is."""


class WrongLength(Exception):
    """The content has more or fewer octets than were announced."""


class Chunk:
    """BDAT LAST with so many octets. Call it with the blocks of the message, in their order.

    It keeps back the last octet, which is then the `end`: without it the peer has no whole message, as without the dot
    after DATA.
    """

    def __init__(self, size: int) -> None:
        self.command = f"BDAT {size} LAST"
        self._kept = self.command.encode("ascii") + b"\r\n"
        self._missing = size

    def __call__(self, block: bytes) -> bytes:
        """What can go on the wire now. Raises WrongLength: the peer would take what is over for a command."""
        self._missing -= len(block)
        if self._missing < 0:
            raise WrongLength
        data = self._kept + block
        self._kept = data[-1:]
        return data[:-1]

    @property
    def end(self) -> bytes:
        """What makes it whole. Raises WrongLength: the peer would take the next command for a part of it."""
        if self._missing:
            raise WrongLength
        return self._kept
