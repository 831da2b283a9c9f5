"""BDAT: what it says of the octets behind it (RFC 3030 2)."""

import re

from msgspec import Struct

from engine.intake.errors import Refused
from engine.intake.reply import Reply

_CHUNK = re.compile(r"([0-9]{1,20})(?: +(LAST))?", re.ASCII | re.IGNORECASE)
MALFORMED = Reply(501, "5.5.4", "Syntax: BDAT octets [LAST]; where commands begin again nobody knows now", closes=True)


class Chunk(Struct, frozen=True):
    """So many octets of a message follow the line. `is_last`: with them it is whole."""

    octets: int
    is_last: bool


def begins_one(line: bytes) -> bool:
    """Whether a line, or the beginning of one, is meant for BDAT, however badly it is written."""
    return line.lstrip()[: len(b"BDAT")].upper() == b"BDAT"


def read_chunk(argument: str | None) -> Chunk:
    """Read the argument of BDAT. Raises Refused with a reply that ends the session.

    What follows a size that cannot be read is of unknown length: were it read as commands, a message could hold some.
    """
    said = _CHUNK.fullmatch(argument or "")
    if said is None:
        raise Refused(MALFORMED)
    return Chunk(int(said[1]), said[2] is not None)
