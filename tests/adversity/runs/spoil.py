"""A database that must not be used, damaged or of a later release (row 68): the server says so and touches nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from streamsrv.stores.sqlite import schema
from tests.adversity.runs.ledger import Refused
from tests.adversity.runs.node import Node

PAGE_BYTES = 4_096
TOO_NEW = 2
"""A database one version newer is still used."""


async def refuse_spoiled(node: Node, what: str) -> Refused:
    """While the node is down: spoil its database, let it be started, and put everything back.

    Args:
        what: ``garble`` or ``age``.
    """
    kept = _read(node)
    await asyncio.to_thread(_spoil, node.data / "streamsrv.db", what)
    spoiled = _read(node)
    try:
        code, said = await node.refuses()
    except TimeoutError:
        code, said = 0, "it did not end"
    untouched = _content(_read(node)) == _content(spoiled)
    for path in node.database:
        path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    return Refused(why=what, code=code, said=said, untouched=untouched)


def _read(node: Node) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in node.database}


def _content(files: dict[Path, bytes]) -> dict[Path, bytes]:
    """Without the index of the log, which readers make and leave, and without a log that has nothing in it."""
    return {path: data for path, data in files.items() if data and not path.name.endswith("-shm")}


def _spoil(path: Path, what: str) -> None:
    if what == "age":
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + TOO_NEW}")
        return
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()  # it might hold all that is damaged here
    path.write_bytes(os.urandom(max(PAGE_BYTES, path.stat().st_size)))
