"""Words to look for: all of them must stand in a text, each anywhere, and none of those after `!`."""

from typing import NamedTuple


class Word(NamedTuple):
    """One word, as it was written; `left_out`: it must not stand there."""

    text: str
    left_out: bool


def words_of(text: str) -> tuple[Word, ...]:
    """Read `returned over !gmail`: what stands between spaces, `!` before what is left out (a `!` alone is a word)."""
    return tuple(
        Word(word[1:] if word.startswith("!") and len(word) > 1 else word, word.startswith("!") and len(word) > 1)
        for word in text.split()
    )


def stand_in(words: tuple[Word, ...], text: str) -> bool:
    """Whether a text has all of these words, and none of those that are left out."""
    low = text.casefold()
    return all((word.text.casefold() in low) != word.left_out for word in words)
