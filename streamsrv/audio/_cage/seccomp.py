"""The wall that needs nobody's permission: the kernel refuses every system call a decoder does not need.

What is left reads and writes what is already open, manages memory, waits, and ends.  Nothing can be opened, connected,
started, signalled or raised, with and without bubblewrap, as root and as nobody.  Everything the decoders need is
loaded and every thread is running before the wall goes up.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_ALLOWED: Final[dict[str, tuple[int, int]]] = {
    # name: (x86_64, aarch64); -1 where there is none
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "poll": (7, -1),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "read": (0, 63),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
    "write": (1, 64),
    "writev": (20, 66),
}
_MACHINES: Final[dict[str, tuple[int, int, int]]] = {
    # machine: (column above, audit architecture, number of seccomp(2))
    "x86_64": (0, 0xC000_003E, 317),
    "aarch64": (1, 0xC000_00B7, 277),
}
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4
_ALLOW, _REFUSE, _KILL = 0x7FFF_0000, 0x0005_0000 | 1, 0x8000_0000  # refusing is EPERM
_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1


class _Step(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(_Step)))


def wall_in() -> bool:
    """Put the filter on every thread of this process.

    Returns:
        Whether it stands; false on a machine whose numbers are not known here, or when the kernel has no filters.
    """
    known = _MACHINES.get(os.uname().machine)
    if known is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    column, architecture, seccomp = known
    steps = _steps([numbers[column] for numbers in _ALLOWED.values() if numbers[column] >= 0], architecture)
    program = _Program(len(steps), (_Step * len(steps))(*steps))
    libc = ctypes.CDLL(None)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.syscall(seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program)) == 0)


def _steps(allowed: list[int], architecture: int) -> list[_Step]:
    steps = [
        _Step(_LOAD, 0, 0, _AT_ARCHITECTURE),
        _Step(_JUMP_IF_EQUAL, 1, 0, architecture),
        _Step(_RETURN, 0, 0, _KILL),
        _Step(_LOAD, 0, 0, _AT_NUMBER),
    ]
    # Each comparison jumps over those behind it and over the refusal.
    steps += [_Step(_JUMP_IF_EQUAL, len(allowed) - at, 0, number) for at, number in enumerate(allowed)]
    return [*steps, _Step(_RETURN, 0, 0, _REFUSE), _Step(_RETURN, 0, 0, _ALLOW)]
