"""What was said in an SMTP conversation, line by line."""

from typing import Literal

from msgspec import Struct

Side = Literal["<", ">", "="]  # the peer, we, a remark of ours


class Line(Struct, frozen=True, kw_only=True):
    """One line: when, whose, and what."""

    at: float
    side: Side
    text: str
