"""Why the system does not let us: which file or folder is in the way, who we are, and what can be done about it."""

import grp
import os
import pwd
import stat
from pathlib import Path

from engine.base.text import clean

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


def unsafe(folder: Path, what: str, *, may_be_shared: bool = False) -> str:
    """Why a folder is not safe to keep mail in, whose it is and what to do; "" where it is.

    Nobody may write to it but us and root, for whoever may can put files of theirs in the place of ours. One that
    `may_be_shared` may be written to by others where the sticky bit keeps them from our files. Raises OSError.
    """
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    its = f"{what} {folder} is {_user(found.st_uid)}'s, group {_group(found.st_gid)}, mode {mode:04o}"
    if found.st_uid not in {os.geteuid(), 0}:
        us = _user(os.geteuid())
        return f"{its}, and this is {us}: give it to {us} (chown {us} {folder}), or do this as its owner"
    if not _is_open(mode, may_be_shared=may_be_shared):
        return ""
    shared = f"; to share it, chmod +t {folder}" if may_be_shared else ""
    return f"{its}: others may write to it; look what is in it, then chmod go-w {folder}{shared}"


def others_may_write(folder: Path, *, may_be_shared: bool = False) -> bool:
    """Whether somebody else than its owner and root may put files in the place of those in a folder. Raises OSError."""
    return _is_open(stat.S_IMODE(folder.stat().st_mode), may_be_shared=may_be_shared)


def open_to_all(file: Path) -> str:
    """That everybody on this machine may read a file, with its mode, or ""."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        ways_in = all(folder.stat().st_mode & 0o001 for folder in file.parents)
    except OSError:
        return ""
    return f"{file} may be read by everybody on this machine (mode {mode:04o})" if mode & 0o004 and ways_in else ""


def who() -> str:
    """Who this process is: user and groups."""
    groups = dict.fromkeys([os.getegid(), *os.getgroups()])
    named = [_group(gid) for gid in groups]
    more = f" and {len(named) - _MOST_GROUPS} more" if len(named) > _MOST_GROUPS else ""
    word = "group" if len(named) == 1 else "groups"
    return f"{_user(os.geteuid())} (in {word} {', '.join(named[:_MOST_GROUPS])}{more})"


def _is_open(mode: int, *, may_be_shared: bool) -> bool:
    return bool(mode & 0o022) and not (may_be_shared and mode & stat.S_ISVTX)


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
