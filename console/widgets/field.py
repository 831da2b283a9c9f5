"""A field of one line that is typed into: what is done in it is done at once, in the order in which it was pressed."""

from collections.abc import Callable

from textual.events import Key
from textual.widgets import Input


class Field(Input, inherit_bindings=False):
    """A field. Enter calls `entered` at once, so that nothing typed behind it can get in.

    The keyboard gives it the keys (see console.keyboard): `take` those that are typed, the others by its bindings.
    """

    BINDINGS = [*Input.BINDINGS]  # noqa: RUF012 (without those that scroll: the arrows up and down lead out of it)

    def __init__(
        self, value: str = "", *, entered: Callable[[], None], placeholder: str = "", id: str | None = None
    ) -> None:
        super().__init__(value, compact=True, placeholder=placeholder, select_on_focus=False, id=id)
        self.cursor_blink = False
        self._entered = entered

    def take(self, key: Key) -> bool:
        """Insert what a key types, in place of what is selected; False where it types nothing."""
        if not key.is_printable or key.character is None:
            return False
        self._put(key.character)
        return True

    def paste(self, text: str) -> None:
        """Insert the first line of a text without what steers a terminal; its end enters nothing."""
        lines = text.splitlines()
        self._put("".join(char for char in (lines[0] if lines else "") if char.isprintable()))

    async def action_submit(self) -> None:
        """Enter what stands in the field."""
        self._entered()

    def _put(self, text: str) -> None:
        if self.selection.is_empty:
            self.insert_text_at_cursor(text)
        else:
            self.replace(text, *self.selection)
