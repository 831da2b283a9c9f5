"""The filter: the one way to name messages, the same in console, commands, API and operators' orders."""

from msgspec import Struct


class Filter(Struct, frozen=True, kw_only=True):
    """Terms that must all hold."""
