"""Which Whisper models there are by name, which of them lie on this disk, and how one gets there when told.

Models lie in the Hugging Face cache (``HF_HUB_CACHE``, ``HF_HOME``, else ``~/.cache/huggingface/hub``), where other
programs find them too.  Only ``download`` touches the network.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from streamsrv.errors import SetupError

REPOSITORIES: Final = {
    "tiny.en": "Systran/faster-whisper-tiny.en",
    "tiny": "Systran/faster-whisper-tiny",
    "base.en": "Systran/faster-whisper-base.en",
    "base": "Systran/faster-whisper-base",
    "small.en": "Systran/faster-whisper-small.en",
    "small": "Systran/faster-whisper-small",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "medium.en": "Systran/faster-whisper-medium.en",
    "medium": "Systran/faster-whisper-medium",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "large-v1": "Systran/faster-whisper-large-v1",
    "large-v2": "Systran/faster-whisper-large-v2",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "large-v3": "Systran/faster-whisper-large-v3",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}
"""Name -> repository on the Hugging Face hub, smallest first."""
NAMES: Final = tuple(REPOSITORIES)
PREFERRED: Final = (
    *("turbo", "large-v3", "distil-large-v3", "large-v2", "distil-large-v2", "large-v1"),
    *("medium", "distil-medium", "small", "distil-small", "base", "tiny"),
)
"""What ``best`` takes first; a model for many languages before one for English of the same size."""
OURS: Final = {repository: name for name, repository in REPOSITORIES.items()}
"""Repository -> name; the last of several."""
NEEDED: Final = ("model.bin", "config.json", "tokenizer.json")
"""Files without which a folder is no model; ``vocabulary.*`` is looked for too."""
INSTALL: Final = "run: pip install 'streamsrv[whisper]'"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this disk."""

    name: str
    folder: Path
    size_bytes: int


Progress = Callable[[int, int], None]
"""Told bytes fetched so far and bytes in all (0 while unknown); called from another thread."""


def known(name: str) -> bool:
    """Whether a name of ours, or a repository ``owner/name`` on the hub."""
    return name in REPOSITORIES or (name.count("/") == 1 and all(name.split("/")) and name[0] not in "./~")


def cache() -> Path:
    """The folder models are kept in."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"])
    home = os.environ.get("HF_HOME")
    return Path(home) / "hub" if home else Path.home() / ".cache" / "huggingface" / "hub"


def installed() -> list[Entry]:
    """The models on this disk that are whole: ours by name, smallest first, then others as ``owner/name``."""
    entries: list[Entry] = []
    for place in cache().glob("models--*--*"):
        repository = _repository(place.name)
        folder = _snapshot(repository)
        if folder is not None and (repository in OURS or _hears(folder)):
            entries.append(Entry(name=OURS.get(repository, repository), folder=folder, size_bytes=_size(folder)))
    order = {name: place for place, name in enumerate(NAMES)}
    return sorted(entries, key=lambda entry: (order.get(entry.name, len(order)), entry.name))


def best() -> Entry | None:
    """The model to take when none is named; one that is not ours only when there is no other."""
    entries = installed()
    found = {entry.name.removesuffix(".en"): entry for entry in entries} | {entry.name: entry for entry in entries}
    return next((found[name] for name in (*PREFERRED, *found) if name in found), None)


def find(name: str) -> Path:
    """The folder of a model on this disk.

    Raises:
        SetupError: it is not there; the hint says how to get it.
    """
    folder = _snapshot(REPOSITORIES.get(name, name))
    if folder is None:
        raise SetupError(
            f"the Whisper model '{name}' is not on this disk (looked in '{cache()}')",
            hint=f"run: streamsrv models download {name}"
            + ("" if name in REPOSITORIES else ", or name an existing folder"),
        )
    return folder


def _repository(place: str) -> str:
    """What a folder of the cache is kept for."""
    return place.removeprefix("models--").replace("--", "/")


def _snapshot(repository: str) -> Path | None:
    """The newest whole revision of a repository in the cache."""
    root = cache() / ("models--" + repository.replace("/", "--")) / "snapshots"
    if not root.is_dir():
        return None
    whole = [folder for folder in root.iterdir() if not _missing(folder)]
    return max(whole, key=lambda folder: folder.stat().st_mtime, default=None)


def _missing(folder: Path) -> list[str]:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    return missing if any(folder.glob("vocabulary.*")) else [*missing, "vocabulary.json"]


def check(folder: Path) -> None:
    """See whether a folder has the files of a model.

    Raises:
        SetupError: some are missing; names them.
    """
    missing = _missing(folder)
    if missing:
        raise SetupError(
            f"'{folder}' is no Whisper model for CTranslate2: {', '.join(missing)} missing",
            hint="name a folder made by ct2-transformers-converter (with tokenizer.json), or: streamsrv models list",
        )


def _hears(folder: Path) -> bool:
    """Whether a model for CTranslate2 is a Whisper; other programs keep translators in the same cache."""
    try:
        return b'"suppress_ids"' in (folder / "config.json").read_bytes()
    except OSError:
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def title(folder: Path) -> str:
    """What people call a model in this folder: its name here, else the folder's."""
    kept = next((_repository(part) for part in folder.parts if part.startswith("models--")), None)
    return folder.resolve().name if kept is None else OURS.get(kept, kept)


def download(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model into the cache, or what is missing of it.  Blocks; goes on where an earlier try broke off.

    Every file is compared with the checksum the hub gives for it.

    Args:
        name: one of ``NAMES``, or a repository ``owner/name`` with a CTranslate2 model.
        progress: told how far it is.

    Returns:
        Its folder.

    Raises:
        SetupError: no such model, not one for CTranslate2, no connection, no room; the hint holds the remedy.
    """
    if not known(name):
        raise SetupError(f"there is no Whisper model '{name}'", hint=f"models: {', '.join(NAMES)}")
    if find_spec("huggingface_hub") is None:
        raise SetupError("downloading needs the package huggingface-hub", hint=INSTALL)
    from streamsrv.engines._whisper.fetching import fetch

    folder = fetch(REPOSITORIES.get(name, name), cache(), progress)
    check(folder)
    return folder
