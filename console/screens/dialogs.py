"""Questions: what stands between a key and what cannot be taken back, and what an action needs to know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.strip import Strip
from textual.widget import Widget

from console.layer import Layer
from console.widgets.columns import Column
from console.widgets.document import Para
from console.widgets.field import Field
from console.widgets.line import Line, crop, strip_of
from console.widgets.note import Note
from console.widgets.table import Table


@dataclass(frozen=True)
class Blank:
    """Something to fill in. `check` raises ValueError, whose text says what is allowed."""

    name: str
    label: str
    value: str = ""
    check: Callable[[str], object] | None = None


class Press(Widget, can_focus=True):
    """A button of one line. `pressed` is called at once."""

    DEFAULT_CSS = "Press { height: 1; width: auto; }"
    BINDINGS = [Binding("enter,space", "press", show=False)]  # noqa: RUF012

    def __init__(self, name: str, label: str, pressed: Callable[[], object], style: str = "") -> None:
        super().__init__(id=name)
        self._label = f"[ {label} ]"
        self._pressed = pressed
        self._style = style

    def get_content_width(self, *_: object) -> int:
        return len(self._label) + 2

    def render_line(self, y: int) -> Strip:
        here = self.has_focus
        text = crop(f"{'▸' if here else ' '}{self._label}", self.size.width)
        return strip_of([(text, "" if y else self._style)], self.size.width, "cursor" if here else "")

    def on_click(self) -> None:
        self.action_press()

    def action_press(self) -> None:
        """Press it."""
        self._pressed()


class Dialog(Layer[dict[str, str] | None]):
    """A question with fields and two answers. Cancel has the focus, unless `fill` puts it into the first field.

    That is for what has something to be filled in and gives no mail up.
    `typed`: a number that must be typed before the other answer is taken.
    """

    BINDINGS = [  # noqa: RUF012
        Binding("escape,ctrl+c,super+c", "cancel", show=False),
        Binding("tab,right,down", "next", show=False),
        Binding("shift+tab,left,up", "previous", show=False),
    ]

    def __init__(
        self,
        title: str,
        body: Sequence[Para],
        *,
        ok: str,
        fields: Sequence[Blank] = (),
        danger: bool = False,
        typed: int | None = None,
        fill: bool = False,
    ) -> None:
        super().__init__()
        self._title = title
        self._body = tuple(body)
        self._ok = ok
        self._fields = list(fields)
        self._danger = danger
        self._fill = fill
        if typed is not None:
            self._fields.append(Blank("typed", f"type {typed:,} to confirm", check=lambda text: _same(text, typed)))

    def compose(self) -> ComposeResult:
        width = max((len(field.label) for field in self._fields), default=0) + 4
        with Vertical(id="box"):
            yield Line(id="title")
            yield Note(self._body)
            for field in self._fields:
                with Horizontal(classes="field"):
                    label = Line(id=f"label-{field.name}")
                    label.styles.width = width
                    label.say([(f"  {field.label}", "dim")])
                    yield label
                    yield Field(field.value, entered=self._entered, id=f"field-{field.name}")
            yield Line(id="wrong")
            with Horizontal(id="answers"):
                yield Press("cancel", "Cancel", self.action_cancel)
                yield Press("ok", self._ok, self._accept, "bad" if self._danger else "good")

    def on_mount(self) -> None:
        self.query_one("#title", Line).say([(f"  {self._title}", "bad" if self._danger else "here")])
        first = f"#field-{self._fields[0].name}" if self._fill and self._fields else "#cancel"
        self._go_to(self.query_one(first))

    def on_resize(self) -> None:
        """Where there is little room, the end of the text goes, and never a field or an answer."""
        around = 5 + len(self._fields)  # border, title, what is wrong, answers
        self.query_one(Note).styles.max_height = max(1, self.app.size.height * 96 // 100 - around)

    def on_descendant_focus(self) -> None:
        for field in self._fields:
            here = self.query_one(f"#field-{field.name}").has_focus
            label = self.query_one(f"#label-{field.name}", Line)
            label.say([("▸ " if here else "  ", "here"), (field.label, "here" if here else "dim")])

    def action_next(self) -> None:
        """To the next field or answer."""
        self._go_to(self.focus_next())

    def action_previous(self) -> None:
        """To the field or answer before."""
        self._go_to(self.focus_previous())

    def _go_to(self, widget: Widget | None) -> None:
        """Give the focus; what stands in a field is selected, so that what is typed takes its place."""
        self.set_focus(widget)
        if isinstance(widget, Field):
            widget.action_select_all()

    def _entered(self) -> None:
        """Enter in a field leads to the next; in the last it answers, but where it is dangerous."""
        if self.focused is None or self.focused.id != f"field-{self._fields[-1].name}":
            self.action_next()
        elif self._danger:
            self._go_to(self.query_one("#ok"))
        else:
            self._accept()

    def action_cancel(self) -> None:
        """Do nothing of it."""
        self.dismiss(None)

    def _accept(self) -> None:
        answers: dict[str, str] = {}
        for field in self._fields:
            typed = self.query_one(f"#field-{field.name}", Field)
            answers[field.name] = typed.value.strip()
            if field.check is not None:
                try:
                    field.check(answers[field.name])
                except ValueError as error:
                    self.query_one("#wrong", Line).say([(f"  ✗ {error}", "bad")])
                    self._go_to(typed)
                    return
        self.dismiss(answers)


def _same(text: str, number: int) -> None:
    if text.replace(",", "").replace(".", "").replace(" ", "") != str(number):
        raise ValueError(f"type {number:,}: so many messages are touched")


@dataclass(frozen=True)
class Option:
    """One thing to choose, and what is to be known of it."""

    name: str
    remark: str = ""


_OPTIONS: tuple[Column[Option], ...] = (
    Column("", 20, lambda row, _: (row.name, ""), grow=30),
    Column("", 10, lambda row, _: (row.remark, "dim"), rank=1, rest=True),
)


class Choose(Layer[str | None]):
    """One of a few, the best first."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape", "cancel", show=False),
        Binding("ctrl+c,super+c", "cancel", show=False),
        Binding("enter", "choose", show=False),
    ]

    def __init__(self, title: str, options: Sequence[Option]) -> None:
        super().__init__()
        self._title = title
        self._options = tuple(options)
        self._table: Table[Option] = Table(_OPTIONS, lambda row: row.name, empty="nothing to choose from")
        self._table.hold(self._options)

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Line(id="title")
            yield self._table
            yield Line(id="wrong")

    def on_mount(self) -> None:
        self.query_one("#title", Line).say([(f"  {self._title}", "here")])
        self.query_one("#wrong", Line).say([("  enter", "key"), (" chooses   ", "dim"), ("esc", "key"),
                                            (" leaves it be", "dim")])  # fmt: skip
        self._table.styles.height = min(len(self._options), 10) + 2
        self.set_focus(self._table)

    def on_table_chosen(self) -> None:
        self.action_choose()

    def action_choose(self) -> None:
        """Take the one pointed at."""
        row = self._table.pointed
        if row is not None:
            self.dismiss(row.name)

    def action_cancel(self) -> None:
        """Take none."""
        self.dismiss(None)
