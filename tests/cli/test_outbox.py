"""``streamsrv outbox``: on the data of a stopped server, beside a running one, and through it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streamsrv.cli import main
from streamsrv.settings import ServerSettings
from streamsrv.stores.base import StreamStats
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.stores.builders import NOW_MS, begin, final
from tests.support.server import running
from tests.support.sinks import ScriptedSink
from tests.support.watching import until


async def park(folder: Path, *, finals: int = 2) -> None:
    """A stopped server's data: finals that the webhook refused, a completion that Kafka refused."""
    store = SqliteStore(SqliteSettings(data_dir=str(folder)))
    store.hand_to(("kafka", "webhook"))
    await store.open()
    try:
        _, key = await begin(store)
        for segment in range(finals):
            await store.keep_final(key, final(segment, text="secret words"))
        await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
        for one in (await store.waiting("webhook", "talk", limit=99)).handoffs[:finals]:
            await store.refused("webhook", "talk", one.place, reason="status_422", dead=True, now_ms=NOW_MS)
        last = (await store.waiting("kafka", "talk", limit=99)).handoffs[-1]
        await store.refused("kafka", "talk", last.place, reason="MessageSizeTooLargeError", dead=True, now_ms=NOW_MS)
    finally:
        await store.close()


def test_a_list_tells_which_and_why_but_no_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(park(tmp_path))
    assert main(["outbox", "list", "--data-dir", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "status_422" in told
    assert "talk s1 channel 0 segment 1" in told
    assert "talk revision 1" in told
    assert "kafka: 2 wait, 1 parked" in told
    assert "webhook: 1 wait, 2 parked" in told
    assert "secret" not in told
    assert main(["outbox", "list", "--data-dir", str(tmp_path), "--sink", "webhook", "--json"]) == 0
    letters = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["sink"], one["segment"], one["attempts"]) for one in letters] == [("webhook", 0, 1), ("webhook", 1, 1)]


def test_an_empty_list_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(park(tmp_path, finals=0))
    assert main(["outbox", "list", "--data-dir", str(tmp_path), "--sink", "webhook"]) == 0
    assert "nothing is parked" in capsys.readouterr().out


def test_without_data_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "list", "--data-dir", str(tmp_path / "none")]) == 3
    assert main(["outbox", "retry", "--data-dir", str(tmp_path / "none")]) == 3
    assert "--data-dir" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_stopped_servers_letters_are_made_pending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(park(tmp_path))
    assert main(["outbox", "retry", "--data-dir", str(tmp_path), "--sink", "webhook"]) == 0
    assert "2 made pending" in capsys.readouterr().out
    assert main(["outbox", "retry", "--data-dir", str(tmp_path), "--interview", "other"]) == 0
    assert "0 made pending" in capsys.readouterr().out


async def test_a_running_server_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await park(tmp_path / "data")
    key = tmp_path / "key.txt"
    sink = ScriptedSink("webhook")
    settings = ServerSettings(api_keys=("a-key-that-opens",))
    key.write_text(settings.api_keys[0] + "\n")
    async with running(tmp_path / "data", server=settings, sinks=[sink]) as server:
        await until(lambda: len(sink.got) == 1)  # the completion
        words = ["outbox", "retry", "--data-dir", str(tmp_path / "data"), "--url", server.http]
        listing = ["outbox", "list", "--url", server.http, "--api-key-file", str(key)]
        assert await asyncio.to_thread(main, listing) == 0
        told = capsys.readouterr().out
        assert told.count("status_422") == 2
        assert told.endswith("kafka: 2 wait, 1 parked\nwebhook: 0 wait, 2 parked\n")
        assert await asyncio.to_thread(main, [*listing, "--json"]) == 0
        letters = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["sink"] for one in letters] == ["webhook", "webhook", "kafka"]
        assert await asyncio.to_thread(main, [*words, "--sink", "webhook"]) == 1
        assert "API key" in capsys.readouterr().err
        assert await asyncio.to_thread(main, [*words, "--sink", "webhook", "--api-key-file", str(key)]) == 0
        assert capsys.readouterr().out == "2 made pending\n"
        await until(lambda: sink.segments() == [0, 1])
        assert await asyncio.to_thread(main, ["outbox", "list", "--data-dir", str(tmp_path / "data")]) == 0
        assert "kafka" in capsys.readouterr().out


async def test_a_server_that_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(tmp_path):
        words = ["outbox", "retry", "--data-dir", str(tmp_path), "--url", "http://127.0.0.1:1"]
        assert await asyncio.to_thread(main, words) == 3
    assert "with --url" in capsys.readouterr().err
