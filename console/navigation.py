"""How the operator moves about the console: to a screen, a pane or a row and back; and marking, sorting, freezing."""

from collections.abc import Awaitable, Coroutine
from typing import Any

from console.desk import Desk
from console.screens.front import Front
from console.screens.lists import TOP, Overview
from console.screens.queue import QueueScreen
from console.widgets.panes import DestinationsPane


def go(console: Desk[Front], name: str, filter: str = "") -> Coroutine[Any, Any, None] | None:
    """Go to a screen of the top level, and filter it."""
    console.frozen_at = None
    while len(console.screen_stack) > 1:
        console.pop_screen()
    mounted: Awaitable[None] | None = None
    if name != "overview":
        mounted = console.push_screen(name)
    elif isinstance(console.screen, Overview):
        console.screen.set_focus(console.screen.query_one(DestinationsPane).table)
    if console.front is not None:
        console.front.open_anew()
    return _filter(console, filter, mounted) if filter else None


async def _filter(console: Desk[Front], filter: str, mounted: Awaitable[None] | None) -> None:
    """Filter a screen once it is there: before, it has nothing that could be filtered."""
    if mounted is not None:
        await mounted
    await console.filter_front(filter)


def step(console: Desk[Front], by: int) -> None:
    """Go to the next pane, or to the next screen where there is one pane."""
    front = console.front
    if front is None:
        return
    panes = [table for table in front.tables() if table.can_focus]
    if len(panes) > 1:
        at = next((index for index, table in enumerate(panes) if table.has_focus), 0)
        front.set_focus(panes[(at + by) % len(panes)])
    elif front.tab:
        by_key = {"1": "overview", "2": "queue", **{key: name for name, (key, _) in TOP.items()}}
        keys = [key for key, _, _ in console.tabs()]
        go(console, by_key[keys[(keys.index(front.tab) + by) % len(keys)]])


def back(console: Desk[Front]) -> Coroutine[Any, Any, None] | None:
    """Take back the last thing: the prompt, the marks or the filter, the freezing, the screen."""
    front = console.front
    if front is None:
        return None
    if front.is_asking:
        front.stop_asking()
    elif front.clear():
        return console.reload()
    elif console.frozen_at is not None:
        freeze(console)
    elif len(console.screen_stack) > 1:
        console.pop_screen()
    return None


def open_named(console: Desk[Front], name: str) -> None:
    """Go into a message or a destination by its name, or into what is pointed at."""
    if not name:
        if console.front is not None:
            console.front.open_pointed()
    elif name.partition(".")[0].isdigit() and name.replace(".", "", 1).isdigit():
        console.open_message(int(name.partition(".")[0]))
    else:
        console.open_destination(name)


def mark(console: Desk[Front]) -> None:
    """Mark the message pointed at, or take its mark away."""
    if isinstance(console.front, QueueScreen):
        console.front.toggle_mark()


def mark_all(console: Desk[Front]) -> None:
    """Mark all messages that match the filter."""
    if isinstance(console.front, QueueScreen):
        console.front.mark_all()


def freeze(console: Desk[Front]) -> None:
    """Have the view stand still, or go on."""
    console.frozen_at = console.moment.now if console.frozen_at is None else None
    console.tick()


def sort(console: Desk[Front], argument: str) -> Coroutine[Any, Any, None] | None:
    """Sort by the letter or the name of a column, and remember it."""
    front = console.front
    sorts = front.sorts() if front is not None else {}
    by_title = {field: field for field in sorts.values()}
    field = sorts.get(argument) or by_title.get(argument.lower())
    if front is not None and field is not None:
        before = front.orders()
        front.sort_by(field)
        front.freshen()
        _keep(console, front.orders() - before)
        return console.reload()
    if sorts and len(argument) != 1:
        console.tell(f"✗ sort by what? {', '.join(sorts.values())}", "warn")
    return None


def _keep(console: Desk[Front], orders: set[tuple[str, str]]) -> None:
    try:
        for name, order in orders:
            console.preferences.keep_order(name, order)
    except OSError as error:
        console.tell(f"✗ the order counts until you quit: it cannot be kept ({error.strerror})", "warn")
