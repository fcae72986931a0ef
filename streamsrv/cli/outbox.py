"""``streamsrv outbox``: what the sinks will not take, and trying it again."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from streamsrv.cli.complaints import FAILED, OK, complain
from streamsrv.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamsrv.stores.handoff import DeadLetter

_DESCRIPTION = """\
Events that a sink refused too often are parked: nothing of them is lost, and those behind them went on. See which and
why, help the sink, and have them tried again. Beside a running server 'list' reads its database, and 'retry' asks it.
"""
_EXAMPLES = """\
examples:
  streamsrv outbox list --data-dir /srv/transcripts
  streamsrv outbox retry --sink webhook
  streamsrv outbox retry --interview call-17 --url https://speech.example --api-key-file key.txt
"""
PAGE = 500
TIMEOUT_S = 30.0


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
    again.add_argument("--url", default="http://localhost:3004", help="of the server that runs on it (%(default)s)")
    again.add_argument("--api-key-file", type=Path, metavar="FILE", help="file that holds the API key of that server")
    again.set_defaults(run=retry)
    for kind in (listing, again):
        kind.add_argument("--sink", metavar="NAME", help="of this sink only: kafka, redis_streams or webhook")
        kind.add_argument(
            "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="the server's folder (data)"
        )


def show(chosen: argparse.Namespace) -> int:
    """Print what is parked."""
    from streamsrv.stores.sqlite import SqliteSettings, SqliteStore

    async def read() -> int:
        store = SqliteStore(SqliteSettings(data_dir=str(chosen.data_dir)), server=False)
        await store.open()
        try:
            after = count = 0
            while page := await store.dead_letters(sink=chosen.sink, after=after, limit=PAGE):
                _print(page, as_json=chosen.json, first=count == 0)
                after, count = page[-1].place, count + len(page)
            if not chosen.json:
                for one in await store.figures():
                    print(f"{one.sink}: {one.pending} wait, {one.dead} parked")
                if not count:
                    print("nothing is parked")
        finally:
            await store.close()
        return OK

    return asyncio.run(read())


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


def retry(chosen: argparse.Namespace) -> int:
    """Make parked events pending: in the database, or by the server that runs on it."""
    from streamsrv.stores.sqlite.lock import ServerLock

    if not chosen.data_dir.is_dir():
        raise SetupError(f"there is no folder {chosen.data_dir}", hint="name the server's folder with --data-dir")
    lock = ServerLock(chosen.data_dir)
    try:
        lock.acquire()
    except SetupError:  # a server runs: it alone writes
        return asyncio.run(_ask(chosen))
    lock.release()
    return asyncio.run(_retry(chosen))


async def _retry(chosen: argparse.Namespace) -> int:
    from streamsrv.stores.sqlite import SqliteSettings, SqliteStore

    store = SqliteStore(SqliteSettings(data_dir=str(chosen.data_dir)))
    await store.open()
    try:
        count = await store.retry(sink=chosen.sink, interview=chosen.interview)
    finally:
        await store.close()
    print(f"{count} made pending; the server hands them on when it starts")
    return OK


async def _ask(chosen: argparse.Namespace) -> int:
    import aiohttp

    from streamsrv.cli.stream import api_key

    key = api_key(chosen.api_key_file)
    wanted = {"sink": chosen.sink, "interview": chosen.interview}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"{chosen.url.rstrip('/')}/outbox/retry?{query}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, headers=headers) as answer:
            body = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        hint = "name it with --url, or stop it and call again"
        raise SetupError(f"the server that runs cannot be asked ({type(error).__name__})", hint=hint) from error
    if answer.status != 200:
        complain(SetupError(body["error"]["message"], hint=body["error"]["hint"]))
        return FAILED
    print(f"{body['retried']} made pending")
    return OK
