"""The command that starts a decoder process, and what it can see.

Inside bubblewrap there is no network, no process but its own, and of the host's files only programs, read-only: Python,
its libraries, and this package.  Without it the limits and the system call filter stand alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias

import streamsrv

Walls: TypeAlias = Literal["bubblewrap", "plain"]
LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
"""Where a loader finds shared libraries; those that are there are shown."""
NEEDED: Final = ("av", "numpy")
"""Packages a child imports."""
ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
"""All of a child's environment; nothing of the server's is passed on."""
_PROGRAM: Final = "import sys; sys.path += sys.argv[5:]; from streamsrv.audio._cage.child import main; main()"


def bubblewrap() -> str | None:
    """Where the program is, if it is installed."""
    return shutil.which("bwrap")


def command(walls: Walls, *, descriptor: int, news: int, arguments: Iterable[int]) -> list[str]:
    """Words of the command line.

    Args:
        walls: what to put around the process.
        descriptor: socket the child inherits.
        news: where bubblewrap writes the process id of what it holds.
        arguments: further ones of ``child.main``.
    """
    roots = _roots()
    python = [_interpreter(), "-I", "-S", "-B", "-c", _PROGRAM, str(descriptor), *map(str, arguments), *roots]
    if walls == "plain":
        return python
    wrap = [bubblewrap() or "bwrap", "--unshare-all", "--cap-drop", "ALL", "--die-with-parent", "--new-session"]
    wrap += ["--hostname", "cage", "--info-fd", str(news)]
    for path in _shown(roots):
        wrap += ["--ro-bind-try", path, path]
    return [*wrap, "--remount-ro", "/", "--chdir", "/", "--", *python]


def _interpreter() -> str:
    """Python itself, not a virtual environment's name for it: from there it finds its own library."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _roots() -> list[str]:
    """Folders Python imports from: those of the packages a child needs, and of this one."""
    found = [Path(streamsrv.__file__).parent.parent]
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found.append(Path(spec.origin).parent.parent)
    return list(dict.fromkeys(map(str, found)))


def _shown(roots: list[str]) -> list[str]:
    """Paths a caged process may read, parents before what is inside them."""
    paths = {*LIBRARIES, _interpreter(), str(Path(streamsrv.__file__).parent)}
    paths |= {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    paths |= {str(Path(path).parent) for path in (sysconfig.get_config_var("DESTSHARED"),) if path}
    if libdir := sysconfig.get_config_var("LIBDIR"):
        paths |= {str(path) for path in Path(libdir).glob("libpython*.so*")}
    paths |= _packages(roots[1:])
    return sorted(path for path in paths if os.path.exists(path))


def _packages(roots: list[str]) -> set[str]:
    """The needed packages with the libraries their wheels bring along."""
    return {
        str(path)
        for root in roots
        for name in NEEDED
        for path in (Path(root, name), Path(root, name + ".libs"))
        if path.exists()
    }
