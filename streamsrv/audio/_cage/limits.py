"""Limits a decoder process puts on itself before it reads its first byte of input."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

FILES: Final = 32
"""Descriptors a child may hold: its socket, its input, and what Python keeps open."""
CPU_GRACE_S: Final = 10
"""Processor seconds beyond the polite limit, which the decoders watch themselves; then the kernel kills."""
_PR_SET_DUMPABLE: Final = 4
_PR_SET_PDEATHSIG: Final = 1


def fall_with_parent() -> None:
    """Die when the server dies, and let nobody but root look inside."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit(*, memory_mb: int, cpu_s: int) -> None:
    """Address space, processor time, descriptors; no files written, no core.

    Raises:
        OSError, ValueError: the kernel refuses.
    """
    memory = memory_mb << 20
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_s + CPU_GRACE_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def stay_alone() -> None:
    """No process or thread more from now on.  The kernel does not hold root to it; the system call filter does."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.nice(5)  # the way from a microphone to its words comes first
