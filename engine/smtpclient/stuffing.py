"""Dot-stuffing (RFC 5321 4.5.2) of content that goes out in blocks, wherever it is cut."""


class Stuffing:
    """Doubles each dot at the beginning of a line. Call it with the blocks of one message, in their order."""

    def __init__(self) -> None:
        self._before = b"\r\n"  # what was sent last: a message begins with a line

    def __call__(self, block: bytes) -> bytes:
        """The block as it goes on the wire."""
        before, self._before = self._before, (self._before + block[-2:])[-2:]
        stuffed = block.replace(b"\r\n.", b"\r\n..")
        if before == b"\r\n" and block.startswith(b"."):
            return b"." + stuffed
        if before.endswith(b"\r") and block.startswith(b"\n."):
            return b"\n." + stuffed[1:]
        return stuffed
