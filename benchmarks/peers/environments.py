"""Environments of the rivals, each its own and pinned, outside this project's: made once, kept in a folder.

The pins are complete and installed without looking for further dependencies, so that packages a rival declares but
does not need on this path (a microphone, other engines) stay away.  ``torch`` is needed by both and large: 6 GB each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent / "pins"
STAMP = "installed.txt"


class NotInstalled(Exception):
    """An environment could not be made; says which command failed."""


def default_folder() -> Path:
    """Where environments are kept when nobody says otherwise: the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "streamsrv" / "peers"


def prepare(name: str, folder: Path) -> Path:
    """The interpreter of a rival's environment, made and filled when it is not what the pins say.

    Raises:
        NotInstalled: the environment could not be made.
    """
    place, pins = folder / name, PINS / f"{name}.txt"
    python = place / "bin" / "python"
    if python.exists() and _read(place / STAMP) == pins.read_text("utf-8"):
        return python
    print(f"making the environment of {name} in {place}, several GB: minutes ...", file=sys.stderr)
    _run(sys.executable, "-m", "venv", "--clear", str(place))
    _run(str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", str(pins))
    (place / STAMP).write_text(pins.read_text("utf-8"), "utf-8")
    return python


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, stdout=sys.stderr)
    if done.returncode:
        raise NotInstalled(f"exit status {done.returncode} of: {' '.join(command)}")
