"""A node as strict hosts run it (row 64): a root that takes no writes, neither does /tmp, no $HOME, and uid 65534.

The forked server puts itself there.  An installation that only root may read, as one in root's home, it may read all
the same: that is all it keeps of root.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from tests.adversity.runs.processes import die_with_the_parent

UID = 65_534
PLACE = "RUN_STRICT"
"""Names, in the environment of a forked server, the folder that takes writes; without it it is left as it is."""

_NEW_MOUNTS = 0x20000
_READ_ONLY, _REMOUNT, _BIND, _ALL_BELOW, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_DUMPABLE, _KEEP_CAPABILITIES, _AMBIENT, _RAISE = 4, 8, 47, 2
_MAY_READ = 2
"""CAP_DAC_READ_SEARCH."""
_VERSION_3 = 0x20080522


def confine() -> None:
    """Go there, if the environment says so.

    Raises:
        OSError: this needs root.
    """
    place = os.environ.pop(PLACE, None)
    if place is None:
        return
    for name in ("HOME", "TMPDIR"):
        os.environ.pop(name, None)
    _close_the_disk(Path(place))
    _leave_root()


def own(folder: Path) -> None:
    """Give a folder, and all in it, to the one who may write there."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID, follow_symlinks=False)


def _close_the_disk(writable: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(what: Path | None, where: Path, flags: int) -> None:
        _well(libc.mount(what and os.fsencode(what), os.fsencode(where), None, flags, None))

    _well(libc.unshare(_NEW_MOUNTS))
    mount(None, Path("/"), _ALL_BELOW | _PRIVATE)
    mount(writable, writable, _BIND | _ALL_BELOW)
    for place in (Path("/"), Path("/tmp")):
        if os.path.ismount(place):
            mount(None, place, _REMOUNT | _BIND | _READ_ONLY)
    if os.access("/tmp", os.W_OK, effective_ids=True):
        raise OSError("the root still takes writes")


def _leave_root() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _well(libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    only = 1 << _MAY_READ
    _well(libc.capset(struct.pack("Ii", _VERSION_3, 0), struct.pack("6I", only, only, only, 0, 0, 0)))
    _well(libc.prctl(_AMBIENT, _RAISE, _MAY_READ, 0, 0))
    # A change of the user forgets both.
    die_with_the_parent()
    _well(libc.prctl(_DUMPABLE, 1, 0, 0, 0))


def _well(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
