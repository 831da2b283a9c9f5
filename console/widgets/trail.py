"""The second line: the screens with their counts, or, further in, the way back."""

from collections.abc import Sequence

from console.widgets.line import Line, Piece, width_of


class Trail(Line):
    """Screens as tabs at the top level; a breadcrumb where one has drilled in."""

    def tabs(self, names: Sequence[tuple[str, str, str]], here: str, note: str = "") -> None:
        """Show the screens: key, name and count of each; `here` is the key of the one that is open."""
        room = self.size.width - (len(note) + 3 if note else 0)
        first, *others = names
        most_counts = [(first[0], first[1], ""), *others]  # of the first, the list one sees says how many there are
        no_counts = [(key, name, "") for key, name, _ in names]
        keys_alone = [(key, name if key == here else "", "") for key, name, _ in names]
        ways = [_tabs(names, here), *(_close_tabs(each, here) for each in (names, most_counts)),
                _close_tabs(most_counts, here, gap=""), _close_tabs(no_counts, here),
                _close_tabs(no_counts, here, gap=""), _tabs(keys_alone, here)]  # fmt: skip
        pieces = next((each for each in ways if width_of(each) <= room), ways[-1])
        self._with_note(pieces, note)

    def crumbs(self, names: Sequence[str], note: str = "") -> None:
        """Show the way from the top to here."""
        pieces: list[Piece] = [("  ", "")]
        for index, name in enumerate(names):
            last = index == len(names) - 1
            pieces += [(name, "here" if last else "dim"), ("" if last else " ▸ ", "dim")]
        self._with_note(pieces, note)

    def _with_note(self, pieces: list[Piece], note: str) -> None:
        if note:
            room = self.size.width - width_of(pieces) - len(note) - 2
            pieces += [(" " * max(1, room), ""), (f" {note} ", "caution")]
        self.say(pieces)


def _tabs(names: Sequence[tuple[str, str, str]], here: str) -> list[Piece]:
    pieces: list[Piece] = []
    for key, name, number in names:
        on = key == here
        pieces.append((" ", ""))
        pieces += [(f" {key} {name} ", "cursor")] if on else [(f" {key}", "key"), (f" {name} ", "")]
        if number:
            pieces.append((f" {number}", "here") if on else (f"{number} ", "dim"))
    return pieces


def _close_tabs(names: Sequence[tuple[str, str, str]], here: str, gap: str = " ") -> list[Piece]:
    """The same with less space between them, and the count of the open one inside its mark."""
    pieces: list[Piece] = []
    for key, name, number in names:
        if key == here:
            pieces.append((f" {key} {name}{f' {number}' if number else ''} ", "cursor"))
        else:
            pieces += [(f" {key}", "key"), (f" {name}", ""), (f" {number}" if number else "", "dim"), (gap, "")]
    return pieces
