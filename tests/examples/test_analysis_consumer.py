"""The example consumer: whatever comes twice, late or in disorder, each effect is there once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from examples.analysis_consumer import Inbox, signed
from streamsrv.runtime.handoff.telling import Teller
from streamsrv.sinks.base import Outcome, Record
from streamsrv.sinks.settings import WebhookSettings
from streamsrv.sinks.webhook import WebhookSink
from streamsrv.sinks.webhook.signature import sign
from streamsrv.stores.base import StoredFinal
from streamsrv.stores.handoff import Completion, Deletion
from tests.sinks.test_events import STREAM, handoff, kept
from tests.stores.builders import NOW_MS, final

SECRET = "0123456789abcdef"
CONSUMER = Path(__file__).parents[2] / "examples" / "analysis_consumer.py"


def told(*whats: StoredFinal | Completion | Deletion, finals: int = 0) -> list[Record]:
    teller, records = Teller("talk", [STREAM]), []
    for what in whats:
        match what:
            case StoredFinal():
                records.append(teller.final(handoff(what), what))
            case Completion():
                records.append(teller.completed(handoff(what), what, [kept(n) for n in range(finals)]))
            case Deletion():
                records.append(teller.deleted(handoff(what), what))
    return records


def events(*whats: StoredFinal | Completion | Deletion, finals: int = 0) -> list[dict[str, Any]]:
    return [json.loads(record.body) for record in told(*whats, finals=finals)]


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(str(tmp_path / "inbox.db"))


def done(revision: int) -> Completion:
    return Completion(revision=revision, started_ms=NOW_MS, ended_ms=NOW_MS + revision)


@pytest.mark.parametrize("seed", range(20))
def test_doubles_and_disorder_change_nothing(inbox: Inbox, seed: int) -> None:
    """Every event at least once, in any order, cut into any batches."""
    rng = random.Random(seed)
    whole = events(*(kept(n) for n in range(12)), done(1), done(2), finals=12)
    stream = whole + rng.choices(whole, k=30)
    rng.shuffle(stream)
    news = 0
    while stream:
        size = rng.randint(1, 5)
        news += inbox.take(stream[:size])
        del stream[:size]
    assert inbox.transcript("talk") == [f"segment {n}" for n in range(12)]
    assert inbox.missing("talk") == {}
    assert news in (13, 14), "the first revision is news only when it comes before the second"
    assert inbox.take(whole) == 0
    inbox.close()


def test_the_higher_epoch_wins_in_either_order(inbox: Inbox) -> None:
    low = StoredFinal(stream="st-1", epoch=1, final=final(0, text="low"))
    high = StoredFinal(stream="st-1", epoch=2, final=final(0, text="high"))
    assert inbox.take(events(low)) == 1
    assert inbox.take(events(high)) == 1
    assert inbox.take(events(low)) == 0
    assert inbox.transcript("talk") == ["high"]
    inbox.close()


def test_what_is_missing_is_known(inbox: Inbox) -> None:
    inbox.take(events(kept(0), kept(2), done(1), finals=3))
    assert inbox.missing("talk") == {"st-1": 1}
    inbox.take(events(kept(1)))
    assert inbox.missing("talk") == {}
    inbox.close()


def test_nothing_comes_back_after_a_deletion(inbox: Inbox) -> None:
    before = events(kept(0), kept(1), done(1), finals=2)
    inbox.take(before)
    assert inbox.take(events(Deletion(streams=("st-1",), deleted_ms=NOW_MS + 50))) == 1
    assert inbox.take([*before, *events(Deletion(streams=("st-1",), deleted_ms=NOW_MS + 50))]) == 0
    assert inbox.transcript("talk") == []
    again = events(StoredFinal(stream="st-1", epoch=1, final=final(0)))[0] | {"stream": "st-2"}
    assert inbox.take([again]) == 1
    assert inbox.transcript("talk") == ["segment 0"]
    inbox.close()


def test_a_batch_is_taken_whole_or_not(inbox: Inbox) -> None:
    with pytest.raises(KeyError):
        inbox.take([*events(kept(0)), {"type": "transcript.final"}])
    assert inbox.transcript("talk") == []
    assert inbox.take([*events(kept(0)), {"type": "transcript.mood"}]) == 1
    inbox.close()


def test_it_reads_our_signatures() -> None:
    header = sign(b"body", ["another secret 1", SECRET], at_s=1_000)
    assert signed(header, b"body", SECRET, 1_200.0)
    assert not signed(header, b"bode", SECRET, 1_200.0)
    assert not signed(header, b"body", SECRET, 1_301.0)
    assert not signed("t=x", b"body", SECRET, 1_000.0)


@asynccontextmanager
async def consumer(path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CONSUMER), "--inbox", str(path), "webhook", "--port", "0",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ | {"WEBHOOK_SECRET": SECRET},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, json.loads(await process.stdout.readline())["listening"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        return [segment for (segment,) in db.execute("SELECT segment FROM finals ORDER BY segment")]


def sink(port: int) -> WebhookSink:
    return WebhookSink(
        WebhookSettings(url=f"http://127.0.0.1:{port}/", secrets=(SECRET,), allow_private=True, timeout_s=5)
    )


@pytest.mark.slow
async def test_as_a_webhook_it_takes_our_batches_and_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    async with consumer(path) as (process, port):
        posts = sink(port)
        assert await posts.send(told(kept(0), kept(1))) == Outcome(taken=2)
        assert await posts.send(told(kept(1), kept(2))) == Outcome(taken=2)
        async with aiohttp.ClientSession() as stranger:
            body = told(kept(7))[0].body
            async with stranger.post(f"http://127.0.0.1:{port}/", data=b'{"events":[' + body + b"]}") as answer:
                assert answer.status == 401
        await posts.close()
        process.send_signal(signal.SIGKILL)
    assert rows(path) == [0, 1, 2]
    async with consumer(path) as (process, port):
        posts = sink(port)
        assert await posts.send(told(kept(2), kept(3))) == Outcome(taken=2)
        await posts.close()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert rows(path) == [0, 1, 2, 3]
