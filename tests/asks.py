"""A right ask of each verb, with what the engine of the tests knows: from the table, so that none goes untested."""

from typing import Any

from engine.model.verbs import Ask, Verb, parameters

_KNOWN: dict[str, Any] = {
    "filter": "id=7", "operation": 41, "destination": "example.org", "seconds": 60.0, "rule": 1, "relayer": 5,
    "host": "mx1.dead.example", "to": "mx.example.net", "node": "b",
}  # fmt: skip


def fields_of(verb: Verb) -> dict[str, Any]:
    """What is to be given with a verb, by name."""
    known = {**_KNOWN, "filter": "from=a@b.example"} if verb.on == "mail to come" else _KNOWN
    return {one.name: known[one.name] for one in parameters(verb.ask) if one.required or one.name == "seconds"}


def ask_of(verb: Verb) -> Ask:
    """The ask with these."""
    return verb.ask(**fields_of(verb))
