"""Numbers with their nouns, as sentences have them."""


def plural(number: int, noun: str, nouns: str = "") -> str:
    """A number with its noun, exact: `1 message`, `2,204 messages`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def agree(number: int, one: str, many: str) -> str:
    """The form of a verb that goes with a number."""
    return one if number == 1 else many
