"""What strangers may send us, made up by the thousand: each module is one way in, with what must hold whatever comes.

    uv run python -m tests.fuzz                                 what there is
    uv run python -m tests.fuzz NAME MINUTES [--seed N]         for as long as you like; exit status 1 if it found any

Some seconds of each are among the tests. What was found once stands in the module's FOUND, and is tried first.
"""
