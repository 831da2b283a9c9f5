"""What became of a message that has left the queue, as its events tell."""

from collections import Counter

from engine.model.message import Message

# The worst first.
FATES = {"returned": "returned to its sender", "discarded": "discarded", "dropped": "dropped", "delivered": "delivered"}


def fates(view: Message) -> list[tuple[str, str]]:
    """The kinds of event by which its recipients left, the worst first, each with its words: `2 delivered`.

    Of one recipient no number is said. Empty where the events that told of it are not kept any more.
    """
    counts = Counter[str](event.kind for event in view.events if event.kind in FATES)
    whole = sum(counts.values())
    return [
        (kind, words if whole == 1 else f"{counts[kind]:,} {words}") for kind, words in FATES.items() if counts[kind]
    ]
