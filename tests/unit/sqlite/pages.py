"""Damage to one page of a closed store: the page that a table or an index begins with, or one that holds some words."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from engine.queue.sqlite.store import FILE

_LEAVES = {0x0A: "index", 0x0D: "table"}  # the first byte of a leaf page (sqlite.org/fileformat2.html, 1.6)


def damage(directory: Path, tree: str, *, holding: bytes = b"", which: float = 0.5, seed: int = 1) -> int:
    """Write random bytes over one leaf of a table or index, at this part of the way through it; give its number.

    `holding`: the first of its leaves in which these bytes stand.
    """
    file = directory / FILE
    with closing(sqlite3.connect(file)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (tree,)).fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    content = bytearray(file.read_bytes())
    leaves = list(_leaves(content, size, root))
    found = [page for page in leaves if holding in content[(page - 1) * size : page * size]]
    page = found[0] if holding else found[int(which * len(found))]
    content[(page - 1) * size : page * size] = random.Random(seed).randbytes(size)
    file.write_bytes(content)
    return page


def leaves(directory: Path, tree: str) -> int:
    """How many leaves a table or an index has."""
    file = directory / FILE
    with closing(sqlite3.connect(file)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (tree,)).fetchone()
    return len(list(_leaves(bytearray(file.read_bytes()), size, root)))


def _leaves(content: bytearray, size: int, page: int) -> list[int]:
    at = (page - 1) * size
    head = at + 100 if page == 1 else at
    if content[head] in _LEAVES:
        return [page]
    cells = int.from_bytes(content[head + 3 : head + 5], "big")
    found: list[int] = []
    for cell in range(cells):
        pointer = int.from_bytes(content[head + 12 + 2 * cell : head + 14 + 2 * cell], "big")
        found += _leaves(content, size, int.from_bytes(content[at + pointer : at + pointer + 4], "big"))
    return found + _leaves(content, size, int.from_bytes(content[head + 8 : head + 12], "big"))
