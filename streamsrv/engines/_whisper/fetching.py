"""A model from the Hugging Face hub into its cache: resumable, counted, compared with its checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from streamsrv.errors import SetupError

FILES: Final = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
"""What is fetched of a repository."""
TRIES: Final = 5
"""Connections a download is given; each goes on where the one before broke off."""
PIECE_BYTES: Final = 1 << 20
"""Read at a time while a checksum is computed."""
LOOK_EVERY_S: Final = 0.2
"""Seconds between two looks at how far a download is."""

Progress = Callable[[int, int], None]


def fetch(repository: str, cache: Path, progress: Progress | None = None) -> Path:
    """Fetch what is missing of a repository; blocks.

    Args:
        cache: the folder models are kept in.
        progress: told bytes on disk and bytes in all, from another thread, and once at the end.

    Returns:
        The folder of the model.

    Raises:
        SetupError: it cannot be had; the hint holds the remedy.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        total = _total(repository)
        folder = _persist(repository, cache, progress or _untold, total)
    except RepositoryNotFoundError as failure:
        raise SetupError(
            f"the hub has no model '{repository}' for you", hint="check the name; some models need HF_TOKEN"
        ) from failure
    # Libraries of three kinds talk to the network here, each with errors of its own.
    except Exception as failure:
        raise _explained(repository, cache, failure) from failure
    _check(folder)
    return folder


def _untold(done: int, total: int) -> None:
    """Nobody wants to know."""


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")


def _total(repository: str) -> int:
    """Bytes of the files we want."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=_endpoint()).model_info(repository, files_metadata=True)
    wanted = [file for file in info.siblings or [] if any(fnmatch(file.rfilename, name) for name in FILES)]
    return sum(file.size or 0 for file in wanted)


def _persist(repository: str, cache: Path, progress: Progress, total: int) -> Path:
    """Download; a connection that breaks is followed by another one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    blobs = cache / ("models--" + repository.replace("/", "--")) / "blobs"
    with _watched(blobs, progress, total):
        for tried in range(1, TRIES + 1):
            try:
                return Path(
                    snapshot_download(
                        repository,
                        cache_dir=cache,
                        allow_patterns=list(FILES),
                        endpoint=_endpoint(),
                        # One after the other: a broken connection then costs one file's place.
                        max_workers=1,
                    )
                )
            except Exception as failure:
                if tried == TRIES or not _passing(failure):
                    raise
    raise AssertionError("unreachable: the last try returns or raises")


def _passing(failure: Exception) -> bool:
    """Whether trying again makes sense: the network broke, not our request."""
    text = type(failure).__name__
    broken = ("Timeout", "Connect", "Protocol", "Read", "Chunked", "Incomplete", "Network", "LocalEntryNotFound")
    return any(word in text for word in broken) or (isinstance(failure, OSError) and "onsistency" in str(failure))


@contextmanager
def _watched(blobs: Path, progress: Progress, total: int) -> Iterator[None]:
    """Tell how many bytes lie on the disk while the body runs, and at its end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            progress(_held(blobs), total)

    watcher = threading.Thread(target=watch, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        progress(_held(blobs), total)


def _held(blobs: Path) -> int:
    if not blobs.is_dir():
        return 0
    held = 0
    for path in blobs.iterdir():
        # It may just have got its final name.
        try:
            held += path.stat().st_size
        except FileNotFoundError:
            continue
    return held


def _check(folder: Path) -> None:
    """Compare each file with the checksum that is its name in the cache; a damaged one is removed."""
    for path in sorted(folder.iterdir()):
        blob = path.resolve()
        if blob.name == path.name or _checksum(blob, len(blob.name)) == blob.name:
            continue
        blob.unlink()
        path.unlink()
        raise SetupError(
            f"'{path.name}' arrived damaged and was removed", hint="run the download again; only this file is fetched"
        )


def _checksum(path: Path, digits: int) -> str:
    """SHA-256 for large files; for small ones git's: SHA-1 of a header and the content."""
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(usedforsecurity=False)
    if digits != 64:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _explained(repository: str, cache: Path, failure: Exception) -> SetupError:
    if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return SetupError(f"no room for '{repository}' in '{cache}'", hint="free some, or set HF_HUB_CACHE")
    if isinstance(failure, PermissionError):
        return SetupError(f"'{cache}' cannot be written to", hint="set HF_HUB_CACHE to a folder of yours")
    hub = _endpoint() or "https://huggingface.co"
    return SetupError(
        f"'{repository}' cannot be fetched from {hub}: {type(failure).__name__}",
        hint="check the connection (HTTPS_PROXY, HF_ENDPOINT) and try again: what has come stays;"
        " or copy the model's folder here and name it with --model",
    )
