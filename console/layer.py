"""What lies over a screen until it is answered or closed: questions, the palette, the help."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

from console.keyboard import KeyedApp

R = TypeVar("R")


class Layer(ModalScreen[R]):
    """A screen over another. `answered` is called at once when it goes, before any further key is done."""

    answered: Callable[[], None] | None = None

    def on_mount(self) -> None:
        # As a message of its own: only once this one is done does the layer count as mounted, and take keys.
        self.call_later(cast("KeyedApp[Any]", self.app).keyboard.changed)

    def dismiss(self, result: R | None = None) -> AwaitComplete:
        if self.answered is not None:
            self.answered()
        return super().dismiss(result)
