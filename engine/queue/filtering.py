"""What the terms of a filter look at, of `entry AS e` and `message AS m`: in every store the same, but for its SQL."""

from engine.model.filter import Term

COLUMNS = {"to": "e.recipient", "from": "m.sender", "subject": "m.subject", "reply": "e.last_line"}
FREE_TEXT = ("m.sender", "e.recipient", "m.subject", "e.last_line")


def like(value: str, *, contains: bool) -> str:
    r"""The pattern of LIKE, with ESCAPE '\', that finds a text: anywhere, or whole and with `*` for any text."""
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%" if contains else escaped.replace("*", "%")


def only_destination(term: Term) -> str:
    """The destination of all that a term of one address names, by which an index finds them; "" for other terms."""
    if term.op != "=" or term.field != "to" or term.inverted:
        return ""
    _, at, domain = term.value.rpartition("@")
    return domain.lower() if at and "*" not in domain else ""


def ids_of(term: Term) -> tuple[list[int], list[tuple[int, int]]]:
    """The messages that a term names whole, and of others the entries, by message and number."""
    return [message for message, entry in term.ids if not entry], [given for given in term.ids if given[1]]
