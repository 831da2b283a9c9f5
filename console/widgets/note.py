"""A few paragraphs that take the height they need."""

from collections.abc import Sequence

from textual.strip import Strip

from console.widgets.document import Para, wrap
from console.widgets.line import Ageing, Piece, strip_of


class Note(Ageing):
    """Wrapped text of as many lines as it takes."""

    DEFAULT_CSS = "Note { height: 1; width: 1fr; }"

    def __init__(self, paras: Sequence[Para] = (), *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._paras = tuple(paras)
        self._height = 1

    def show(self, paras: Sequence[Para]) -> None:
        """Take a new text; the layout is done again only when its height changes."""
        if tuple(paras) == self._paras:
            return
        self._paras = tuple(paras)
        self._fit()
        self.refresh()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        lines = len(self._lines(self.size.width)) if self.size.width else len(self._paras)
        if lines != self._height:
            self._height = lines
            self.styles.height = lines

    @property
    def text(self) -> str:
        """What is shown, as plain text."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines(self.size.width or 80))

    def render_line(self, y: int) -> Strip:
        lines = self._lines(self.size.width)
        return strip_of(lines[y] if y < len(lines) else (), self.size.width, self.over)

    def _lines(self, width: int) -> list[list[Piece]]:
        return [line for each in self._paras for line in wrap(each, max(8, width - 1))]
