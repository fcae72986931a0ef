"""Which store keeps the transcripts, and this node's name in it."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from streamsrv.errors import SetupError
from streamsrv.settings import Settings
from streamsrv.stores.handoff import Store
from streamsrv.stores.sqlite import SqliteStore
from streamsrv.stores.sqlite.lock import ServerLock
from streamsrv.stores.sqlite.schema import create_folder

NODE_NAME: Final = "node"
"""File in the data directory that holds this node's name: what lies here is this node's, also after a restart."""
_NODE: Final = re.compile(r"n-[0-9a-f]{16}")


@contextmanager
def chosen(settings: Settings, *, observe: Callable[[float], None] | None = None) -> Iterator[Store]:
    """The store of a server, not yet opened; the data directory is this server's alone meanwhile.

    Raises:
        SetupError: the store cannot be had, or another server uses the data directory.
    """
    if settings.mongo.url is None:
        yield SqliteStore(settings.store, observe=observe)  # it guards the directory itself
        return
    if find_spec("pymongo") is None:
        raise SetupError(
            "mongo.url is set, and the driver is not installed", hint="run: pip install 'streamsrv[mongo]'"
        )
    from streamsrv.stores.mongo.store import MongoStore

    folder = Path(settings.store.data_dir)
    lock = ServerLock(folder)
    try:
        create_folder(folder)
        lock.acquire()
        node = node_of(folder)
    except OSError as error:
        lock.release()
        raise SetupError(
            f"cannot use the data directory {folder}: {error.strerror}",
            hint="uploads, recordings and the spool lie there: make it writable, or choose another data_dir",
        ) from error
    try:
        yield MongoStore(settings.mongo, node=node, observe=observe)
    finally:
        lock.release()


def relays_as(settings: Settings) -> str | None:
    """This node's name on the leases of the outbox: the same after a restart, so what a crash left leased is its own.

    Leases in SQLite end with the process: any name will do.
    """
    return None if settings.mongo.url is None else node_of(Path(settings.store.data_dir))


def node_of(folder: Path) -> str:
    """The name of the node whose data directory this is; given when it has none.

    Raises:
        OSError: as the system says.
        SetupError: the file holds something else.
    """
    path = folder / NODE_NAME
    if not path.exists():
        draft = folder / f"{NODE_NAME}.new"
        with draft.open("w", encoding="ascii") as file:
            file.write(f"n-{secrets.token_hex(8)}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    name = path.read_text("ascii", "replace").strip()
    if _NODE.fullmatch(name) is None:
        raise SetupError(f"{path} holds no name of a node", hint="delete it; uploads that wait here are then given up")
    return name
