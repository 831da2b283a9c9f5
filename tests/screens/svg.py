"""A screen as SVG, the same every time and in every viewer, and the syrupy extension that compares it."""

import html
import io
import re
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.terminal_theme import TerminalTheme
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation
from syrupy.types import PropertyFilter, PropertyMatcher, SerializableData, SerializedData, SnapshotIndex
from textual.app import App

FOLDER = Path(__file__).parents[2] / "screenshots"

THEME = TerminalTheme(
    (24, 26, 31),
    (208, 212, 220),
    [(16, 18, 22), (224, 90, 90), (120, 190, 100), (222, 180, 80), (90, 140, 220), (190, 120, 200), (86, 190, 200),
     (208, 212, 220)],
    [(92, 98, 110), (240, 120, 120), (150, 210, 130), (240, 205, 110), (120, 170, 240), (210, 150, 220),
     (120, 215, 225), (240, 242, 246)],
)  # fmt: skip

_TEXT = re.compile(r'<text class="(?P<kind>[^"]+)" x="(?P<x>[^"]+)" (?P<y>y="[^"]+") textLength="(?P<length>[^"]+)" '
                   r'(?P<clip>clip-path="[^"]+")>(?P<said>[^<]*)</text>')  # fmt: skip
CELL = 12.04  # of DejaVu Sans Mono and Menlo: the width of a cell, in the units of the picture
_GROUP = re.compile("[^\xa0]+(?:\xa0[^\xa0]+)*")
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def export(app: App[None]) -> str:
    """Draw what the app shows now. Fixed name, fixed palette, and no fonts from elsewhere."""
    width, height = app.size
    console = RichConsole(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True,
        legacy_windows=False, safe_box=False,
    )  # fmt: skip
    screen = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens, simplify=True)
    console.print(screen)
    drawn = console.export_svg(title=app.title, theme=THEME, unique_id="smarthost", font_aspect_ratio=CELL / 20)
    return _TEXT.sub(_placed, _FONTS.sub("", drawn)).replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")


def _placed(match: re.Match[str]) -> str:
    """Put every word group where it begins: viewers that know no textLength would let the columns drift apart."""
    x, said = float(match["x"]), html.unescape(match["said"])
    placed = []
    for group in _GROUP.finditer(said):
        words = group[0]
        at = x + CELL * cell_len(said[: group.start()])
        shown = html.escape(words).replace("\xa0", "&#160;")
        placed.append(
            f'<text class="{match["kind"]}" x="{at:g}" {match["y"]} textLength="{CELL * cell_len(words):g}" '
            f"{match['clip']}>{shown}</text>"
        )
    return "".join(placed)


class ScreenshotExtension(SingleFileSnapshotExtension):
    """One SVG per snapshot, named for what it shows, in the folder the README takes its pictures from."""

    _write_mode = WriteMode.TEXT
    file_extension = "svg"

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        return str(FOLDER)

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        """The picture's name, which the file bears too: a name that differs counts as a picture nobody uses."""
        return str(index)

    @classmethod
    def get_file_basename(cls, *, test_location: PyTestLocation, index: SnapshotIndex) -> str:
        return str(index)

    def serialize(
        self,
        data: SerializableData,
        *,
        exclude: PropertyFilter | None = None,
        include: PropertyFilter | None = None,
        matcher: PropertyMatcher | None = None,
    ) -> SerializedData:
        return str(data)
