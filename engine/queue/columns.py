"""Texts and outcomes as the columns of a store hold them, and as they come out again: in every store the same."""

import msgspec

from engine.base.text import clean
from engine.model.outcome import Outcome

_decode_outcome = msgspec.json.Decoder(Outcome).decode
_encode = msgspec.json.Encoder().encode


def storable(text: str) -> str:
    """Give `text` as it can be stored. A surrogate, which no encoder takes, would make the whole operation fail."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return clean(text)
    return text


def outcome_json(outcome: Outcome | None) -> str | None:
    """Give an outcome as its column holds it."""
    if outcome is None:
        return None
    try:
        return _encode(outcome).decode()
    except UnicodeEncodeError:
        safe = msgspec.structs.replace(
            outcome,
            text=storable(outcome.text),
            enhanced=storable(outcome.enhanced),
            host=storable(outcome.host),
            phase=storable(outcome.phase),
        )
        return _encode(safe).decode()


def outcome_of(column: str | None) -> Outcome | None:
    """Read what `outcome_json` wrote. A damaged one says so: it must not hide the row it belongs to."""
    if column is None:
        return None
    try:
        return _decode_outcome(column)
    except msgspec.MsgspecError:
        return Outcome.transient("the record of this outcome is damaged")
