"""Bodies (rows 29 to 33, and 63 where a file is concerned): refused early, cut off in time, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamsrv.runtime.settings import UploadSettings
from streamsrv.server import pace
from tests.adversity.arena import Arena, arena, eventually
from tests.runtime.test_uploads import little_room
from tests.support.raw import Answer, Raw
from tests.support.recordings import wav
from tests.support.speech import silence, voice

EDGE = "line"
FILE = wav(silence(0.5) + voice(1.0) + silence(0.8))
PATH = "/transcription/upload?wait=20"


def part(name: str, value: bytes, *, filename: str | None = None, headers: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{headers}\r\n'
    return head.encode("utf-8", "surrogateescape") + value + b"\r\n"


WHO = part("interviewId", b"raw")
GOOD = part("file", FILE, filename="a.wav")
END = f"--{EDGE}--\r\n".encode()


def head(size: int | None, *, kind: str = f"multipart/form-data; boundary={EDGE}", more: str = "") -> bytes:
    length = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    return f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n{length}\r\n{more}\r\n".encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Hold:
    """A server whose uploads folder is looked at, too."""

    def __init__(self, ring: Arena, folder: Path) -> None:
        self.ring = ring
        self.uploads = folder / "uploads"

    def files(self) -> list[str]:
        return os.listdir(self.uploads) if self.uploads.exists() else []

    async def post(self, body: bytes, **changes: Any) -> Answer:
        return await self.ring.ask(head(len(body), **changes) + body)

    async def connect(self) -> Raw:
        return await self.ring.connect()


@asynccontextmanager
async def hold(folder: Path, upload: UploadSettings | None = None) -> AsyncIterator[Hold]:
    async with arena(folder, upload=upload) as ring:
        held = Hold(ring, folder)
        yield held
        await eventually(lambda: held.files() == [], held.files)
        assert ring.server.numbers.registry.get_sample_value("streamsrv_jobs", {"state": "receiving"}) in (0.0, None)
        # Decoders come with the first file and stay: the arena counts what they hold as what was there before.
        ring._tasks, ring._files = ring._tasks + SPARE, ring._files + SPARE


SPARE = 16
"""Tasks and descriptors of the decoder pool that the first file starts."""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Hold]:
    async with hold(tmp_path) as one:
        yield one


# --- row 29 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", WHO[:20], WHO + GOOD[:200]], ids=["nothing", "in a head", "in the file"])
async def test_row_29_a_stalled_body_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(pace, "STALL_S", 0.3)
    async with hold(tmp_path) as here:
        peer = await here.connect()
        answer = await peer.ask(head(100_000) + sent)
        assert (answer.status, answer.code) == (408, "too_slow")
        await peer.gone()


async def test_row_29_a_body_that_drips_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "GRACE_S", 0.3)
    async with hold(tmp_path, UploadSettings(min_bytes_per_s=100_000)) as here:
        peer = await here.connect()
        await peer.send(head(1_000_000) + WHO + GOOD[:100])
        answering = asyncio.create_task(peer.answer())
        while not answering.done():
            await peer.send(b"x")
            await asyncio.wait({answering}, timeout=0.02)
        assert answering.result().code == "too_slow"


async def test_row_29_a_body_that_never_ends_has_a_deadline(tmp_path: Path) -> None:
    async with hold(tmp_path, UploadSettings(within_s=1.0, min_bytes_per_s=1)) as here:
        peer = await here.connect()
        await peer.send(head(None) + chunk(WHO) + chunk(GOOD[:100]))
        answering = asyncio.create_task(peer.answer())
        while not answering.done():
            await peer.send(chunk(bytes(2_000)))
            await asyncio.wait({answering}, timeout=0.02)
        assert answering.result().code == "too_slow"


async def test_row_29_who_leaves_in_mid_body_leaves_nothing(here: Hold) -> None:
    for _ in range(5):
        peer = await here.connect()
        await peer.send(head(10_000_000) + WHO + GOOD[:500])
        await eventually(lambda: here.files() != [], lambda: "no file was begun")
        peer.reset()
        await eventually(lambda: here.files() == [], here.files)


# --- row 30 ---------------------------------------------------------------------------------------------------------


async def test_row_30_too_long_by_its_own_word_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    async with hold(tmp_path, UploadSettings(max_mb=1)) as here:
        peer = await here.connect()
        answer = await peer.ask(head(3_000_000))
        assert (answer.status, answer.code) == (413, "body_too_big")
        await peer.gone()


async def test_row_30_too_long_without_a_word_is_cut_off_early(tmp_path: Path) -> None:
    async with hold(tmp_path, UploadSettings(max_mb=1)) as here:
        peer = await here.connect()
        await peer.send(head(None) + chunk(WHO) + chunk(part("file", b"", filename="a")[:-2]))
        answering = asyncio.create_task(peer.answer())
        sent = 0
        while not answering.done() and sent < 50_000_000:
            await peer.send(chunk(bytes(100_000)))
            sent += 100_000
        answer = await answering
        assert (answer.status, answer.code) == (413, "body_too_big")
        assert sent < 20_000_000
        assert "1048576 bytes" in json.loads(answer.body)["error"]["message"]


async def test_row_30_expect_is_answered_only_when_the_body_is_wanted(here: Hold) -> None:
    body = WHO + GOOD + END
    peer = await here.connect()
    await peer.send(head(len(body), more="Expect: 100-continue\r\n"))
    assert (await peer.answer()).status == 100
    assert (await peer.ask(body)).status == 200
    refused = await (await here.connect()).ask(head(1 << 40, more="Expect: 100-continue\r\n"))
    assert refused.status == 413


# --- row 31 ---------------------------------------------------------------------------------------------------------

NESTED = part("file", b"", headers="Content-Type: multipart/mixed; boundary=inner\r\n")
CODED = part("file", b"UklGRg==", filename="a", headers="Content-Transfer-Encoding: base64\r\n")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (WHO + END, 400),
        (GOOD + END, 400),
        (END, 400),
        (b"", 400),
        (WHO + GOOD, 400),
        (WHO + GOOD + GOOD + END, 400),
        (WHO + WHO + GOOD + END, 400),
        (WHO + NESTED + END, 400),
        (WHO + CODED + END, 400),
        (b"".join(part(f"p{n}", b"x") for n in range(10_000)) + WHO + GOOD + END, 400),
        (part("interviewId", b"x" * 5_000) + GOOD + END, 413),
        (part("interviewId", b"\xff\xfe") + GOOD + END, 400),
        (part("interviewId", b"../etc") + GOOD + END, 400),
        (part("interviewId", b"upload") + GOOD + END, 400),
        (WHO + GOOD + part("other", bytes(100_000)) + END, 413),
        (WHO + GOOD + part("language", b"x") + END, 400),
        (part("_charset_", b"x" * 40) + WHO + GOOD + END, 400),
        (part("_charset_", b"utf-8") + WHO + GOOD + END, 400),
        (f"--{EDGE}\r\n".encode() + b"X: " + b"y" * 9_000 + b"\r\n\r\n", 400),
        (f"--{EDGE}\r\n".encode() + b"".join(b"X%d: y\r\n" % n for n in range(500)) + b"\r\n", 400),
        (b"x" * 300_000, 400),
    ],
    ids=[
        "no file",
        "no interview",
        "no part",
        "empty",
        "no end",
        "two files",
        "two interviews",
        "nested",
        "base64",
        "10 000 parts",
        "long id",
        "id no text",
        "id a path",
        "id reserved",
        "long unknown part",
        "bad option",
        "long charset",
        "charset",
        "long part header",
        "many part headers",
        "no form",
    ],
)
async def test_row_31_forms_that_are_none_are_refused(here: Hold, body: bytes, status: int) -> None:
    answer = await here.post(body)
    assert answer.status == status, answer.body
    assert json.loads(answer.body)["error"]["hint"]
    assert await here.ring.server.store.streams("raw") == ()


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 71}", "nonsense"],
)
async def test_row_31_bodies_without_a_boundary_are_refused(here: Hold, kind: str) -> None:
    answer = await here.post(WHO + GOOD + END, kind=kind)
    assert answer.status in (400, 415)
    assert json.loads(answer.body)["error"]["hint"]


async def test_row_31_unknown_parts_harm_nothing(here: Hold) -> None:
    body = part("hello", b"you") + part("attachment", bytes(60_000), filename="x") + GOOD + WHO + END
    assert (await here.post(body)).status == 200
    second = await here.post(part("file2", bytes(60_000), filename="x") + GOOD + WHO + END)
    assert second.status == 400, "whoever sends a second file means it to be heard"


# --- row 32 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "CON", "a\tb", "\u202egpj.exe", "x" * 5_000, "", "%00", "a" * 250 + ".wav\u2028"],
)
async def test_row_32_a_file_name_is_inert(here: Hold, name: str) -> None:
    answer = await here.post(WHO + part("file", FILE, filename=name) + END)
    assert answer.status == 200, answer.body
    job = json.loads((await here.ring.get(answer.headers["location"])).body)
    assert len(job["filename"] or "") <= 255
    assert all(c.isprintable() for c in job["filename"] or "")
    assert name not in here.ring.log_text() or not name


# --- row 33 ---------------------------------------------------------------------------------------------------------


async def test_row_33_compressed_forms_are_not_taken(here: Hold) -> None:
    assert (await here.post(WHO + GOOD + END, more="Content-Encoding: gzip\r\n")).status == 415
    zipped = part("file", b"\x1f\x8b", filename="a", headers="Content-Encoding: gzip\r\n")
    assert (await here.post(WHO + zipped + END)).status == 415


# --- row 63 ---------------------------------------------------------------------------------------------------------


async def test_row_63_a_full_disk_is_told_and_nothing_is_left(here: Hold) -> None:
    body = WHO + part("file", bytes(6_000_000), filename="a") + END
    with little_room(3_000_000):
        answer = await here.post(body)
    assert (answer.status, answer.code) == (507, "disk_full")
    assert here.files() == []
    assert (await here.post(WHO + GOOD + END)).status == 200


async def test_more_uploads_than_may_come_at_once_are_told_to_come_back(tmp_path: Path) -> None:
    async with hold(tmp_path, UploadSettings(max_receiving=2)) as here:
        slow = [await here.connect() for _ in range(2)]
        for peer in slow:
            await peer.send(head(10_000_000) + WHO + GOOD[:500])
        await eventually(lambda: len(here.files()) == 2, here.files)
        answer = await here.post(WHO + GOOD + END)
        assert (answer.status, answer.code) == (503, "full")
        assert int(answer.headers["retry-after"]) > 0
        for peer in slow:
            peer.reset()
        await eventually(lambda: here.files() == [], here.files)
        assert (await here.post(WHO + GOOD + END)).status == 200
