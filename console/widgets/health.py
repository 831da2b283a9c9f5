"""The health line: what stands on top of every screen, always alive."""

from dataclasses import dataclass

from console.format import Moment, age, count, rate, safe
from console.widgets.line import Line, Piece, crop, width_of
from engine.control.views import HealthView

NODE = 14  # cells for the name of the node that one is attached to

STATES: dict[str, Piece] = {
    "relaying": ("● relaying", "good"),
    "suspended": ("‖ SUSPENDED", "caution"),
    "draining": ("◐ draining", "warn"),
    "sick": ("✗ SICK", "alarm"),
}


@dataclass(frozen=True)
class Part:
    """A part of the line; the highest `rank` goes first when room is short."""

    pieces: tuple[Piece, ...]
    rank: int


class HealthLine(Line):
    """Hostname, state, counts, rates, connections, the next check; or, in red, since when the engine is lost."""

    def tell(self, health: HealthView | None, moment: Moment, *, lost: float | None, read_only: bool) -> None:
        """Say how the relay is. `lost` is since when no engine answers."""
        if lost is not None:
            self.say(arrange(_lost(health, moment, lost), self.size.width), "alarm")
        elif health is None:
            self.say([(" smarthost ", "bold"), (" ◌ asking the engine", "dim")])
        else:
            self.say(arrange(_parts(health, moment, read_only), self.size.width))


def arrange(parts: list[Part], width: int) -> list[Piece]:
    """Leave out what matters least until the line fits."""
    kept = list(parts)
    while len(kept) > 1 and sum(width_of(part.pieces) + 3 for part in kept) - 2 > width:
        worst = max(part.rank for part in kept)
        kept = [part for part in kept if part.rank != worst]
    pieces: list[Piece] = []
    for part in kept:
        pieces += [("   " if pieces else " ", ""), *part.pieces]
    return pieces


def _lost(health: HealthView | None, moment: Moment, lost: float) -> list[Part]:
    since = f"✗ engine lost since {moment.clock(lost)} ({age(moment.now - lost)})"
    parts = [Part(((health.hostname if health else "smarthost", ""),), 3), Part(((since, ""),), 0)]
    if health is not None:
        parts.append(Part((("what you see is from then", ""),), 1))
    return [*parts, Part((("asking again every second", ""),), 2)]


def _parts(health: HealthView, moment: Moment, read_only: bool) -> list[Part]:
    state: list[Piece] = [STATES.get(health.state, (health.state, ""))]
    if health.suspended is not None:
        held = health.suspended
        state.append((f" until {moment.short(held.until)}, {moment.left(held.until)} left", "warn"))
    name = Part(((health.hostname, "bold"),), 7)
    if health.node:
        lost = f", {health.nodes_lost} lost" if health.nodes_lost else ""
        node = crop(safe(health.node), NODE).rstrip()
        name = Part((("node ", "dim"), (node, "bold"), (f" of {health.nodes}", "dim"), (lost, "warn")), 3)
    parts = [name, Part(tuple(state), 0)]
    if health.suspended is not None and (health.suspended.by or health.suspended.note):
        parts.append(Part(((f"{health.suspended.by}: {health.suspended.note}", "warn"),), 5))
    if health.trouble:
        parts.append(Part(((crop(safe(health.trouble), 40).rstrip(), "bad"),), 1))
    if read_only:
        parts.append(Part((("read-only", "here"),), 0))
    parts.append(
        Part(
            (
                (count(health.waiting), "bold"),
                (" waiting · ", "dim"),
                (count(health.due), "bold"),
                (" due · ", "dim"),
                (count(health.held), "warn" if health.held else "bold"),
                (" held", "dim"),
            ),
            2,
        )
    )
    # What is due and kept from going (blocked, suspended, limited) is not ready: two numbers.
    parts.append(Part(((count(health.ready), "bold"), (" ready", "dim")), 5))
    full = health.max_connections > 0 and health.connections >= health.max_connections
    parts += [
        _pair("in", f"{rate(health.rate_in)}/s", 6),
        _pair("out", f"{rate(health.rate_out)}/s", 4),
        _pair("conns", f"{health.connections}/{health.max_connections}", 8, "warn" if full else "bold"),
    ]
    if health.next_check is not None:
        parts.append(_pair("check", moment.left(health.next_check), 9))
    if health.oldest is not None:
        parts.append(_pair("oldest", moment.since(health.oldest), 10))
    if health.notes:  # `smarthost status` says them all
        parts.append(_pair("notes", str(len(health.notes)), 11))
    return parts


def _pair(name: str, value: str, rank: int, style: str = "bold") -> Part:
    return Part(((f"{name} ", "dim"), (value, style)), rank)
