"""What comes of signing a message. Apart from who signs, for those who start fast and have nothing to sign with."""

from collections.abc import Callable

from msgspec import Struct

from engine.base.text import clean


class CannotSign(Exception):
    """Mail of a domain that has keys cannot be signed, and does not go without; the text says why.

    `is_permanent`: the message is such that it never can be.
    """

    def __init__(self, why: str, *, is_permanent: bool = False) -> None:
        super().__init__(why)
        self.is_permanent = is_permanent


class Signature(Struct, frozen=True):
    """What goes on top of a message: its signature fields, or none.

    `missing` is why there are none though its domain has keys, and "" where all is as it should be.
    """

    fields: bytes = b""
    missing: str = ""

    @property
    def remark(self) -> str:
        """What the events of the message say of it, or ""."""
        return f"goes unsigned: {clean(self.missing, 300)}" if self.missing else ""


NOT_SIGNED = Signature()

Sign = Callable[[bytes], Signature]  # gives the signatures of canonical content, or raises CannotSign


def unsigned(content: bytes) -> Signature:  # noqa: ARG001
    """No signature: for whoever has no keys."""
    return NOT_SIGNED
