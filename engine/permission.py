"""Why the system does not let us: which file or folder is in the way, who we are, and what can be done about it."""

import grp
import os
import pwd
import stat
from pathlib import Path

from engine.text import clean

_MOST_GROUPS = 8  # named of those one is in

_BITS = {"read": 4, "opened": 6, "written to": 3, "entered": 1}  # of one of the three groups of mode bits


def refusal(path: Path, may_not_be: str) -> str:
    """Say why a path may not be "read", "opened" (a socket), "written to" (a folder) or "entered", in one line.

    What is in the way may be a folder above it, which may not be entered; then that is named too.
    """
    obstacle = _obstacle(path)
    if obstacle is None:
        return f"{path} may not be {may_not_be} by {who()}{_advice(path, _BITS[may_not_be])}"
    return f"{path} may not be reached: {obstacle} may not be entered by {who()}{_advice(obstacle, _BITS['entered'])}"


def why_not(error: OSError, path: Path, may_not_be: str) -> str:
    """The same for an error that need not be one of permission: then in the system's own words."""
    if isinstance(error, PermissionError):
        return refusal(path, may_not_be)
    return f"{path} cannot be {may_not_be}: {clean(error.strerror or str(error), 200)}"


def who() -> str:
    """Who this process is: user and groups."""
    groups = dict.fromkeys([os.getegid(), *os.getgroups()])
    named = [_group(gid) for gid in groups]
    more = f" and {len(named) - _MOST_GROUPS} more" if len(named) > _MOST_GROUPS else ""
    word = "group" if len(named) == 1 else "groups"
    return f"{_user(os.geteuid())} (in {word} {', '.join(named[:_MOST_GROUPS])}{more})"


def _obstacle(path: Path) -> Path | None:
    """The first folder on the way that may not be entered."""
    for folder in reversed(path.parents):
        try:
            os.stat(f"{folder}/.")  # noqa: PTH116 - a Path drops the dot, which asks for the right to enter
        except PermissionError:
            return folder
        except OSError:
            return None
    return None


def _advice(path: Path, bits: int) -> str:
    """Whose it is, and who may; nothing where not even that can be seen."""
    try:
        found = path.stat()
    except OSError:
        return ""
    if not stat.S_ISDIR(found.st_mode):
        bits &= 6  # to write to a file one need not be able to enter it
    owner, group = _user(found.st_uid), _group(found.st_gid)
    what = f"; it is {owner}'s, group {group}, mode {stat.S_IMODE(found.st_mode):04o}"
    if (found.st_mode >> 3) & bits == bits and found.st_gid not in {os.getegid(), *os.getgroups()}:
        if _is_member(found.st_gid):
            return f"{what}: you were made a member of {group} after this session began, so log in anew"
        return f"{what}: do this as a member of {group} or as {owner}"
    return f"{what}: do this as {owner}, or let others do so"


def _is_member(gid: int) -> bool:
    """Whether the machine's list of members says so, whatever this process has."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name in grp.getgrgid(gid).gr_mem
    except KeyError:
        return False


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"
