"""Logging as the commands set it up, taken back after a test."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from console import faults


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Leave the process's logging as it was found."""
    loggers = [logging.getLogger(name) for name in ("", "engine", "console")]
    levels, raising = [each.level for each in loggers], logging.raiseExceptions
    faults._times.clear()
    try:
        yield
    finally:
        for handler in faults._handlers:
            loggers[0].removeHandler(handler)
            handler.close()
        faults._handlers.clear()
        faults._kept_in.clear()
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        logging.raiseExceptions = raising
