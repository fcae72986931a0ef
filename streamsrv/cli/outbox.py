"""``streamsrv outbox``: what the sinks will not take, and trying it again."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsrv.cli.complaints import FAILED, OK, complain
from streamsrv.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streamsrv.stores.handoff import DeadLetter, SinkFigures

_DESCRIPTION = """\
Events that a sink refused too often are parked: nothing of them is lost, and those behind them went on. See which and
why, help the sink, and have them tried again. Works on the data of a stopped server and beside a running one; with
MongoDB, name any running server with --url.
"""
_EXAMPLES = """\
examples:
  streamsrv outbox list --data-dir /srv/transcripts
  streamsrv outbox retry --sink webhook
  streamsrv outbox retry --interview call-17 --url https://speech.example --api-key-file key.txt
"""
PAGE = 200
TIMEOUT_S = 30.0
DEFAULT_URL = "http://localhost:3004"


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its two kinds."""
    verb = verbs.add_parser(
        "outbox",
        help="list events no sink took, or try them again",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = verb.add_subparsers(dest="kind", metavar="KIND", required=True, title="kinds")
    listing = kinds.add_parser("list", help="parked events, and how far each sink is behind")
    listing.add_argument("--json", action="store_true", help="print one JSON object a line")
    listing.set_defaults(run=show)
    again = kinds.add_parser("retry", help="make parked events pending again")
    again.add_argument("--interview", metavar="ID", help="of this interview only")
    again.set_defaults(run=retry)
    for kind in (listing, again):
        kind.add_argument("--sink", metavar="NAME", help="of this sink only: kafka, redis_streams or webhook")
        kind.add_argument(
            "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="the server's folder (data)"
        )
        kind.add_argument("--url", help=f"ask this server ({DEFAULT_URL}, where one must be asked)")
        kind.add_argument("--api-key-file", type=Path, metavar="FILE", help="file that holds the API key of the server")


# --- list --------------------------------------------------------------------------------------------------------


def show(chosen: argparse.Namespace) -> int:
    """Print what is parked."""
    return asyncio.run(_list_asked(chosen) if chosen.url else _list_read(chosen))


async def _list_read(chosen: argparse.Namespace) -> int:
    from streamsrv.stores.sqlite import SqliteSettings, SqliteStore

    _check_folder(chosen.data_dir)
    store = SqliteStore(SqliteSettings(data_dir=str(chosen.data_dir)), server=False)
    await store.open()
    try:
        after = count = 0
        while page := await store.dead_letters(sink=chosen.sink, after=after, limit=PAGE):
            _print(page, as_json=chosen.json, first=count == 0)
            after, count = page[-1].place, count + len(page)
        figures = await store.figures()
    finally:
        await store.close()
    _tell_figures(chosen, figures)
    _tell_none(chosen, count)
    return OK


async def _list_asked(chosen: argparse.Namespace) -> int:
    import msgspec

    from streamsrv.stores.handoff import DeadLetter, SinkFigures

    figures: tuple[SinkFigures, ...] = ()
    after, count = 0, 0
    while True:
        body = await _ask(chosen, "GET", "dead", {"sink": chosen.sink, "after": str(after), "limit": str(PAGE)})
        if body is None:
            return FAILED
        page = msgspec.convert(body["dead"], tuple[DeadLetter, ...])
        if page:
            _print(page, as_json=chosen.json, first=count == 0)
        figures = figures or msgspec.convert(body.get("sinks") or (), tuple[SinkFigures, ...])
        after, count = body["next"], count + len(page)
        if after is None:
            break
    _tell_figures(chosen, figures)
    _tell_none(chosen, count)
    return OK


def _tell_figures(chosen: argparse.Namespace, figures: Iterable[SinkFigures]) -> None:
    for one in figures if not chosen.json else ():
        print(f"{one.sink}: {one.pending} wait, {one.dead} parked")


def _tell_none(chosen: argparse.Namespace, count: int) -> None:
    if not count and not chosen.json:
        print("nothing is parked")


def _print(page: Iterable[DeadLetter], *, as_json: bool, first: bool) -> None:
    if first and not as_json:
        print(f"{'PARKED':<20} {'SINK':<14} {'EVENT':<10} {'REASON':<28} OF")
    for letter in page:
        if as_json:
            import msgspec

            print(json.dumps(msgspec.to_builtins(letter)))
            continue
        parked = datetime.fromtimestamp(letter.parked_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        part = {"final": f"{letter.stream} channel {letter.channel} segment {letter.segment}", "deleted": ""}
        of = f"{letter.interview} {part.get(letter.kind, f'revision {letter.revision}')}".rstrip()
        print(f"{parked:<20} {letter.sink:<14} {letter.kind:<10} {letter.reason:<28} {of}")


# --- retry -------------------------------------------------------------------------------------------------------


def retry(chosen: argparse.Namespace) -> int:
    """Make parked events pending: in the database, or by the server that runs on it."""
    from streamsrv.stores.sqlite.lock import ServerLock

    if chosen.url:
        return asyncio.run(_retry_asked(chosen))
    _check_folder(chosen.data_dir)
    lock = ServerLock(chosen.data_dir)
    try:
        lock.acquire()
    except SetupError:  # a server runs: it alone writes
        return asyncio.run(_retry_asked(chosen))
    lock.release()
    return asyncio.run(_retry_written(chosen))


async def _retry_written(chosen: argparse.Namespace) -> int:
    from streamsrv.stores.sqlite import SqliteSettings, SqliteStore

    store = SqliteStore(SqliteSettings(data_dir=str(chosen.data_dir)))
    await store.open()
    try:
        count = await store.retry(sink=chosen.sink, interview=chosen.interview)
    finally:
        await store.close()
    print(f"{count} made pending; the server hands them on when it starts")
    return OK


async def _retry_asked(chosen: argparse.Namespace) -> int:
    body = await _ask(chosen, "POST", "retry", {"sink": chosen.sink, "interview": chosen.interview})
    if body is None:
        return FAILED
    print(f"{body['retried']} made pending")
    return OK


# --- what both need ----------------------------------------------------------------------------------------------


def _check_folder(data_dir: Path) -> None:
    from streamsrv.stores.sqlite.schema import DATABASE_NAME

    if not (data_dir / DATABASE_NAME).is_file():
        raise SetupError(
            f"{data_dir} holds no {DATABASE_NAME}",
            hint="name the server's folder with --data-dir; with MongoDB, name a server with --url",
        )


async def _ask(
    chosen: argparse.Namespace, method: str, path: str, wanted: Mapping[str, str | None]
) -> dict[str, Any] | None:
    """A server's answer; ``None`` when it refused, and that was told."""
    import aiohttp

    from streamsrv.cli.stream import api_key

    key = api_key(chosen.api_key_file)
    query = {name: value for name, value in wanted.items() if value is not None}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"{(chosen.url or DEFAULT_URL).rstrip('/')}/outbox/{path}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, params=query, headers=headers) as answer,
        ):
            body: dict[str, Any] = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise SetupError(
            f"the server cannot be asked ({type(error).__name__})",
            hint="name the one that runs with --url, or stop it and call again",
        ) from error
    if answer.status == 200:
        return body
    complain(SetupError(body["error"]["message"], hint=body["error"]["hint"]))
    return None
