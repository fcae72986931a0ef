#!/usr/bin/env python3
"""A consumer of streamsrv's events that has each effect once, although events come at least once.

    analysis_consumer.py kafka   --bootstrap localhost:9092
    analysis_consumer.py redis   --url redis://localhost:6379/0
    analysis_consumer.py webhook --port 8080           (the shared secret in WEBHOOK_SECRET)

It keeps transcripts in a SQLite file.  An event and its effect are one transaction, and only then the broker is told:
a crash in between brings the event again, and ``Inbox`` knows it.  Copy this file; it needs nothing of streamsrv, only
aiokafka, redis or aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from typing import Any

TOLERANCE_S = 300
"""Signatures older than this are refused: somebody may have kept a request."""
MOST_BYTES = 4 * 1_048_576
"""Largest request taken."""
BLOCK_MS = 1_000
SESSION_S = 6.0
"""A consumer that died without a word holds its share of a Kafka topic for so long; brokers take no less by default."""


class Inbox:
    """Transcripts, and the memory of what was taken.

    Args:
        path: of a SQLite file.
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS finals (stream TEXT, channel INTEGER, segment INTEGER, epoch INTEGER,
                interview TEXT, speaker TEXT, start_utc_ms INTEGER, text TEXT, PRIMARY KEY (stream, channel, segment));
            CREATE TABLE IF NOT EXISTS completed (interview TEXT, started_utc_ms INTEGER, revision INTEGER,
                streams TEXT, PRIMARY KEY (interview, started_utc_ms));
            CREATE TABLE IF NOT EXISTS gone (stream TEXT PRIMARY KEY)"""
        )

    def take(self, events: Iterable[dict[str, Any]]) -> int:
        """Apply events, in order, all or none; how many were news."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            news = sum(self._apply(event) for event in events)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return news

    def transcript(self, interview: str) -> list[str]:
        """What was said, by time."""
        rows = self._db.execute(
            "SELECT text FROM finals WHERE interview = ? ORDER BY start_utc_ms, stream, channel, segment", (interview,)
        )
        return [text for (text,) in rows if text]

    def missing(self, interview: str) -> dict[str, int]:
        """Per stream, how many finals a completed interview lacks: ask the server for its transcript then."""
        rows = self._db.execute("SELECT streams FROM completed WHERE interview = ?", (interview,)).fetchall()
        counts = dict(
            self._db.execute("SELECT stream, count(*) FROM finals WHERE interview = ? GROUP BY stream", (interview,))
        )
        wanted = {one["stream"]: one["finals"] for row in rows for one in json.loads(row[0])}
        return {
            stream: count - counts.get(stream, 0) for stream, count in wanted.items() if count > counts.get(stream, 0)
        }

    def close(self) -> None:
        self._db.close()

    def _apply(self, event: dict[str, Any]) -> bool:
        match event.get("type"):
            case "transcript.final":
                return self._final(event)
            case "transcript.completed":
                return self._completed(event)
            case "transcript.deleted":
                return self._deleted(event)
            case _:  # a type that a later version brought
                return False

    def _final(self, event: dict[str, Any]) -> bool:
        """One row per segment; of two epochs the higher one counts.  Nothing comes back after its deletion."""
        if self._is_gone(event["stream"]):
            return False
        row = self._db.execute(
            """INSERT INTO finals VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream, channel, segment) DO UPDATE
                SET epoch = excluded.epoch, speaker = excluded.speaker, start_utc_ms = excluded.start_utc_ms,
                text = excluded.text WHERE excluded.epoch > epoch""",
            [event[name] for name in ("stream", "channel", "segment", "epoch")]
            + [event[name] for name in ("interview", "speaker", "start_utc_ms", "text")],
        )
        return row.rowcount == 1

    def _completed(self, event: dict[str, Any]) -> bool:
        """The highest revision counts.  Here the analysis of the whole would begin."""
        if event["streams"] and all(self._is_gone(one["stream"]) for one in event["streams"]):
            return False
        row = self._db.execute(
            """INSERT INTO completed VALUES (?, ?, ?, ?) ON CONFLICT (interview, started_utc_ms) DO UPDATE
                SET revision = excluded.revision, streams = excluded.streams WHERE excluded.revision > revision""",
            (event["interview"], event["started_utc_ms"] or 0, event["revision"], json.dumps(event["streams"])),
        )
        return row.rowcount == 1

    def _deleted(self, event: dict[str, Any]) -> bool:
        """Words go; the names of the streams stay, so that what comes late finds them."""
        news = 0
        for stream in event["streams"]:
            news += self._db.execute("INSERT OR IGNORE INTO gone VALUES (?)", (stream,)).rowcount
            self._db.execute("DELETE FROM finals WHERE stream = ?", (stream,))
        for started, streams in self._db.execute(
            "SELECT started_utc_ms, streams FROM completed WHERE interview = ?", (event["interview"],)
        ).fetchall():
            if all(self._is_gone(one["stream"]) for one in json.loads(streams)):
                self._db.execute(
                    "DELETE FROM completed WHERE interview = ? AND started_utc_ms = ?", (event["interview"], started)
                )
        return news > 0

    def _is_gone(self, stream: str) -> bool:
        return self._db.execute("SELECT 1 FROM gone WHERE stream = ?", (stream,)).fetchone() is not None


def say(taken: int, news: int) -> None:
    print(json.dumps({"taken": taken, "news": news}), flush=True)


# --- where events come from ---------------------------------------------------------------------------------------


async def from_kafka(inbox: Inbox, bootstrap: str, topic: str, group: str, session_s: float) -> None:
    """Commit by hand what the inbox has: a bare ``commit`` would count all that was fetched."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=round(session_s * 1_000),
        heartbeat_interval_ms=round(session_s * 1_000 / 3),
    )
    await consumer.start()
    try:
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=BLOCK_MS)).items():
                say(len(records), inbox.take(json.loads(record.value or b"{}") for record in records))
                await consumer.commit({partition: records[-1].offset + 1})
    finally:
        await consumer.stop()


async def from_redis(inbox: Inbox, url: str, stream: str, group: str, name: str) -> None:
    """First what this consumer took before and did not acknowledge, then what is new."""
    from redis.asyncio import Redis
    from redis.exceptions import ResponseError

    client: Any = Redis.from_url(url)
    async with client as redis:
        after = "0"
        while True:
            try:
                answer = await redis.xreadgroup(group, name, {stream: after}, count=100, block=BLOCK_MS)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await redis.xgroup_create(stream, group, id="0", mkstream=True)  # also after a FLUSHALL
                continue
            entries = answer[0][1] if answer else []
            if not entries:
                after = ">"
                continue
            events = [json.loads(fields[b"event"]) for _, fields in entries if fields]
            say(len(entries), inbox.take(events))
            await redis.xack(stream, group, *(entry for entry, _ in entries))


def signed(header: str, body: bytes, secret: str, now_s: float) -> bool:
    """``t=SECONDS,v1=HEX``: HMAC-SHA256 over the seconds, a full stop and the body."""
    pairs = [part.partition("=") for part in header.split(",")]
    at = next((value for name, _, value in pairs if name == "t" and value.isdecimal()), "0")
    if abs(now_s - int(at)) > TOLERANCE_S:
        return False
    wanted = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(value, wanted) for name, _, value in pairs if name == "v1")


async def from_webhook(inbox: Inbox, port: int, secret: str) -> None:
    """Answer 204 only when the inbox has the batch; the server sends it again otherwise."""
    from aiohttp import web

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if not signed(request.headers.get("Streamsrv-Signature", ""), body, secret, time.time()):
            return web.Response(status=401)
        events = json.loads(body)["events"]
        say(len(events), inbox.take(events))
        return web.Response(status=204)

    app = web.Application(client_max_size=MOST_BYTES)
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(json.dumps({"listening": runner.addresses[0][1]}), flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inbox", default="inbox.db", help="SQLite file of transcripts (%(default)s)")
    kinds = parser.add_subparsers(dest="kind", required=True)
    kafka = kinds.add_parser("kafka")
    kafka.add_argument("--bootstrap", default="localhost:9092")
    kafka.add_argument("--topic", default="streamsrv.transcripts")
    kafka.add_argument("--group", default="analysis")
    kafka.add_argument(
        "--session-s",
        type=float,
        default=SESSION_S,
        help="a dead one holds its share for so long; brokers want 6 or more (%(default)s)",
    )
    redis = kinds.add_parser("redis")
    redis.add_argument("--url", default="redis://localhost:6379/0")
    redis.add_argument("--stream", default="streamsrv:transcripts")
    redis.add_argument("--group", default="analysis")
    redis.add_argument("--name", default="consumer-1", help="of its own for each consumer of the group")
    webhook = kinds.add_parser("webhook")
    webhook.add_argument("--port", type=int, default=8080)
    return parser.parse_args()


async def consume(chosen: argparse.Namespace, inbox: Inbox) -> None:
    match chosen.kind:
        case "kafka":
            work = from_kafka(inbox, chosen.bootstrap, chosen.topic, chosen.group, chosen.session_s)
        case "redis":
            work = from_redis(inbox, chosen.url, chosen.stream, chosen.group, chosen.name)
        case _:
            work = from_webhook(inbox, chosen.port, os.environ["WEBHOOK_SECRET"])
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)


if __name__ == "__main__":
    chosen = arguments()
    with closing(Inbox(chosen.inbox)) as inbox:
        asyncio.run(consume(chosen, inbox))
