"""The event stream on real sockets: what browsers' ``EventSource`` needs, and peers that stop reading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from streamsrv import events
from streamsrv.server import sse as module
from streamsrv.server.viewer import FANOUT
from streamsrv.settings import ServerSettings
from streamsrv.stores.base import StreamKey
from tests.stores.builders import final
from tests.support.raw import Answer, Raw
from tests.support.server import Running, running
from tests.support.watching import WITHIN_S, peer, stored, until

KEY = StreamKey(interview="talk", stream="s", epoch=1)


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a browser takes it."""

    fields: dict[str, str]
    comment: str = ""

    @property
    def kind(self) -> str:
        return self.fields.get("event", "")

    @property
    def data(self) -> Any:
        return json.loads(self.fields["data"])


class Source:
    """What an ``EventSource`` reads."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.blocks: list[Block] = []

    async def block(self) -> Block | None:
        """The next block; ``None`` at the end."""
        fields: dict[str, str] = {}
        comment = ""
        while line := (await asyncio.wait_for(self.response.content.readline(), WITHIN_S)).decode():
            if line == "\n":
                self.blocks.append(Block(fields=fields, comment=comment))
                return self.blocks[-1]
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "":
                comment = value
            else:
                fields[name] = value
        return None

    async def until(self, kind: str) -> Block:
        while (block := await self.block()) is not None:
            if block.kind == kind:
                return block
        raise AssertionError(f"it ended before {kind}")

    @property
    def finals(self) -> list[str]:
        return [block.fields["id"] for block in self.blocks if block.kind == "final"]


@asynccontextmanager
async def source(server: Running, last: str | None = None, query: str = "") -> AsyncIterator[Source]:
    headers = {} if last is None else {"Last-Event-ID": last}
    url = f"{server.http}/transcription/talk/events{query}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        assert response.status == 200
        found = Source(response)
        ready = await found.block()
        assert ready is not None
        assert ready.kind == "ready"
        yield found


async def ask(server: Running, headers: dict[str, str] | None = None, *, method: str = "GET") -> Answer:
    """What answers at once."""
    lines = [f"{method} /transcription/talk/events HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    raw = await Raw.connect(server.port)
    try:
        await raw.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        return await raw.answer(body=method != "HEAD")
    finally:
        raw.close()


async def names(server: Running) -> list[str]:
    return [":".join(map(str, name)) for name in await stored(server)]


async def test_it_tells_what_viewers_see(tmp_path: Path) -> None:
    async with running(tmp_path) as server, peer(server, query="speaker=Ada") as speaker:
        await speaker.say(2)
        async with source(server) as found:
            assert found.response.headers["Content-Type"].startswith("text/event-stream")
            assert found.response.headers["Cache-Control"] == "no-store"
            (ready,) = found.blocks
            assert ready.fields["retry"] == "2000"
            assert (ready.data["role"], ready.data["streams"][0]["speaker"]) == ("viewer", "Ada")
            await speaker.say()
            await speaker.finish()
            await found.until("stream_ended")
        assert found.finals == await names(server) != []
        assert all(block.kind == block.data["type"] for block in found.blocks)
        assert not any("id" in block.fields for block in found.blocks if block.kind != "final")


@pytest.mark.parametrize("how", ["header", "query"])
async def test_it_goes_on_after_the_last_final(tmp_path: Path, how: str) -> None:
    async with running(tmp_path) as server, peer(server) as speaker:
        await speaker.say(3)
        known = (await names(server))[1]
        last, query = (known, "") if how == "header" else (None, f"?after={known}")
        async with source(server, last, query) as found:
            await speaker.say()
            while len(found.finals) < 2:
                await found.until("final")
        assert found.finals == (await names(server))[2:]


async def test_a_final_that_only_a_spool_has_is_no_place_to_go_on_from(tmp_path: Path) -> None:
    async with running(tmp_path) as server, source(server) as heard:
        for segment, durable in enumerate(("store", "spool")):
            told = msgspec.structs.replace(final(segment), durable=durable)
            server.app[FANOUT].tell(KEY, told)
        named = [(await heard.until("final")).fields.get("id") for _ in range(2)]
    assert named == ["s:0:0", None]


async def test_silence_is_filled_with_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_S", 0.01)
    async with running(tmp_path) as server, source(server) as found:
        for _ in range(3):
            ping = await found.block()
            assert ping == Block(fields={}, comment="ping")


async def test_a_deleted_interview_ends_it_for_good(tmp_path: Path) -> None:
    async with running(tmp_path) as server, aiohttp.ClientSession() as http:
        async with peer(server) as speaker:
            await speaker.say()
            await speaker.finish()
        async with source(server) as found:
            known = (await found.until("final")).fields["id"]
            async with http.delete(f"{server.http}/transcription/talk") as answer:
                assert answer.status == 204
            error = await found.until("error")
            assert (error.data["code"], error.data["retryable"]) == ("stopped", False)
            assert await found.block() is None
        assert (await ask(server, {"Last-Event-ID": known})).status == 204


async def test_a_server_that_stops_ends_it(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        opened = source(server)
        found = await opened.__aenter__()
        last = asyncio.create_task(found.until("error"))
        await asyncio.sleep(0)
    assert (await last).data["code"] == "draining"
    await opened.__aexit__(None, None, None)


@pytest.mark.parametrize("last", ["x", "s:1", "s:1:2:", "s:-1:2"])
async def test_a_broken_id_is_refused(tmp_path: Path, last: str) -> None:
    async with running(tmp_path) as server:
        answer = await ask(server, {"Last-Event-ID": last})
        assert (answer.status, answer.code) == (400, "bad_request")


async def test_too_many_are_refused(tmp_path: Path) -> None:
    settings = ServerSettings(max_viewers=1)
    async with running(tmp_path, server=settings) as server, source(server):
        answer = await ask(server)
        assert (answer.status, "retry-after" in answer.headers) == (503, True)


async def test_a_peer_that_stops_reading_is_cut_and_nobody_else_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_WITHIN_S", 0.2)
    async with running(tmp_path) as server, source(server) as found:
        stuck = await Raw.connect(server.port, receive_buffer=4_096)
        await stuck.send(f"GET /transcription/talk/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        await until(lambda: server.app[FANOUT].viewers == 2)
        text = "w" * 100_000
        for segment in range(40):
            server.app[FANOUT].tell(KEY, final(segment, text=text))
            block = await found.until("final")
            assert (block.data["segment"], len(block.data["text"])) == (segment, len(text))
        await until(lambda: server.app[FANOUT].viewers == 1)
        server.app[FANOUT].tell(KEY, events.StreamOver())
        await found.until("stream_ended")
        stuck.close()


async def test_a_peer_that_leaves_is_noticed_with_the_next_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_S", 0.01)
    async with running(tmp_path) as server:
        async with source(server):
            assert server.app[FANOUT].viewers == 1
        await until(lambda: server.app[FANOUT].viewers == 0)


async def test_head_does_not_hang(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        assert (await ask(server, method="HEAD")).status == 405


async def test_text_cannot_break_out_of_its_line(tmp_path: Path) -> None:
    async with running(tmp_path) as server, source(server) as found:
        text = 'a\ndata: {"type": "final"}\r\n\nid: 7\r b'
        server.app[FANOUT].tell(KEY, final(0, text=text))
        server.app[FANOUT].tell(KEY, events.StreamOver())
        block = await found.until("final")
        assert (block.data["text"], block.fields["id"]) == (text, "s:0:0")
        after = await found.block()
        assert after is not None
        assert after.kind == "stream_ended"
