"""What the log must never hold, and what must never break it (rows 21, 25 and 70)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamsrv.engines.base import About, Hypothesis
from streamsrv.facts import Word
from streamsrv.runtime.settings import SessionSettings
from streamsrv.settings import ServerSettings
from tests.adversity.arena import UTTERANCE, Arena, arena
from tests.support.engines import CountingEngine, CountingListener
from tests.support.raw import BINARY, frame, handshake, text

KEY = "CANARY-key-12345678"
CRLF = 'x\r\n{"level":"error","event":"forged"}\u2028\u0085\x1b[31m'
"""Everything that ends a line somewhere, and a colour."""


class LeakyListener(CountingListener):
    """Hears words nobody may find in the log, with line ends in them."""

    async def hear(self, samples: bytes, *, final: bool) -> Hypothesis:
        heard = await super().hear(samples, final=final)
        words = tuple(
            Word(text=f"CANARY{CRLF}", start=word.start, stop=word.stop, confidence=0.5) for word in heard.words
        )
        return Hypothesis(words=words, language="en-US")


class LeakyEngine(CountingEngine):
    def __init__(self) -> None:
        super().__init__()
        self.about = About(name="counting", model=CRLF, device="cpu", note=CRLF)

    def listen(self, *, language: str | None, background: bool = False) -> LeakyListener:
        super().listen(language=language)
        return LeakyListener(self)


def clean(ring: Arena, *secrets: str) -> None:
    """No secret is in the log, and each of its lines is one JSON object we made."""
    for secret in ("CANARY", *secrets):
        assert secret not in ring.log_text()
    assert len(ring.log()) >= 2, "something was logged at all"
    assert all(set(line) >= {"time", "level", "event", "room"} for line in ring.log())
    assert not any(line["event"] == "forged" for line in ring.log())


async def test_row_21_keys_never_reach_the_log(tmp_path: Path) -> None:
    async with arena(tmp_path, server=ServerSettings(api_keys=(KEY,)), bystander=False) as ring:
        stream = "/transcription/stream/raw"
        tries: list[dict[str, str | None]] = [
            {"Authorization": f"Bearer {KEY}"},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": f"Bearer {KEY}x"},
            {"Authorization": KEY},
            {"Sec-WebSocket-Protocol": f"bearer.{KEY}"},
            {"Sec-WebSocket-Protocol": f"streamsrv, bearer.{KEY}"},
            {"Sec-WebSocket-Protocol": f"bearer.{KEY}x"},
            {"Cookie": f"token={KEY}", "Referer": f"https://a.example/?token={KEY}", "User-Agent": KEY},
            {"Authorization": f"Bearer {KEY}", "Sec-WebSocket-Key": KEY},
            {"Authorization": f"Bearer {KEY}", "Sec-WebSocket-Version": KEY},
            {"Authorization": f"Bearer {KEY}", "Upgrade": KEY},
            {"Authorization": f"Bearer {KEY}", "Origin": f"https://{KEY}.example"},
            {"Authorization": f"Bearer {KEY}", "Content-Encoding": KEY},
            {"Authorization": f"Bearer {KEY}", "Content-Length": KEY},
            {"Authorization": f"Bearer {KEY}\x00"},
        ]
        statuses = []
        for headers in tries:
            peer = await ring.connect()
            statuses.append(
                (await peer.ask(handshake(f"{stream}?token={KEY}&api_key={KEY}", ring.port, headers))).status
            )
        assert statuses == [101, 401, 401, 401, 101, 101, 401, 401, 400, 426, 426, 403, 415, 400, 400]
        await ring.ask(f"{KEY}\r\n\r\n")
        await ring.get(f"/{KEY}?x={KEY}", headers=f"Authorization: Bearer {KEY}\r\n")
        authorized = await ring.get("/metrics", headers=f"Authorization: Bearer {KEY}\r\n")
        assert b"CANARY" not in authorized.body
        assert b"CANARY" not in (await ring.get("/health")).body
        clean(ring)


async def test_row_21_resume_tokens_never_reach_the_log(tmp_path: Path) -> None:
    async with arena(tmp_path, session=SessionSettings(resume_window_s=600.0), bystander=False) as ring:
        first = await ring.join("raw")
        token = first.seen[0]["resume_token"]
        second = await ring.join("raw", f"resume={token}")
        assert await first.end() == 4409
        for query in (f"resume={token}x", f"resume=CANARY.{token}", f"resume={token}&resume={token}CANARY"):
            await ring.ask(handshake(f"/transcription/stream/raw?{query}", ring.port))
        await ring.ask(handshake(f"/transcription/stream/CANARY%20?resume={token}", ring.port))
        await second.utter()
        assert await second.finish() == 1000
        clean(ring, token, token.partition(".")[2])


async def test_row_25_what_people_say_never_reaches_the_log_nor_breaks_it(tmp_path: Path) -> None:
    async with arena(tmp_path, engine=LeakyEngine(), bystander=False) as ring:
        speaker = "CANARY%0d%0a%7b%22level%22:%22error%22%7d%e2%80%a8%1b%5b31m%00"
        talker = await ring.join("raw", f"speaker={speaker}&CANARY%0a=1")
        await talker.tell("CANARY" + CRLF)
        final = await talker.utter()
        assert "CANARY" in final["text"], "it is heard and shown"
        assert await talker.finish() == 1000
        assert "CANARY" in (await ring.get("/transcription/raw?format=txt")).body.decode()
        clean(ring)


@pytest.mark.parametrize("name", ["a%0d%0aforged", "a%0aCANARY", "a%1b%5b31m", "a%e2%80%a8", "%00"])
async def test_row_25_ids_and_headers_forge_no_line(ring: Arena, name: str) -> None:
    await ring.get(f"/transcription/{name}", headers="User-Agent: CANARY\x1b[31m\r\nX-Request-Id: CANARY\r\n")
    await ring.get(f"/transcription/raw?format={name}")
    await ring.ask(handshake(f"/transcription/stream/{name}", ring.port))
    await ring.ask(handshake(f"/transcription/stream/raw?{name}={name}&encoding={name}", ring.port))
    clean(ring)


async def test_errors_of_sessions_hold_no_words(ring: Arena) -> None:
    for message in (
        frame(BINARY, b'{"type":"CANARY"}'),
        text('{"type":"CANARY'),
        text('{"type":"configure","encoding":"CANARY"}'),
    ):
        peer = await ring.raw()
        await peer.send(frame(BINARY, UTTERANCE) + message)
        assert (await peer.end()).code in (1003, 1007, 1008)
    clean(ring)


async def test_metrics_hold_no_names(ring: Arena) -> None:
    """Ids are never labels: the number of series does not grow with them."""
    before = (await ring.get("/metrics")).body.count(b"\n")
    for number in range(20):
        talker = await ring.join(f"CANARY-{number}", "speaker=CANARY")
        assert await talker.finish() == 1000
        await ring.get(f"/CANARY-{number}")
        await ring.get(f"/transcription/CANARY-{number}..")
    after = (await ring.get("/metrics")).body
    assert b"CANARY" not in after
    assert after.count(b"\n") <= before + 10


async def test_health_tells_no_secrets(tmp_path: Path) -> None:
    async with arena(tmp_path, server=ServerSettings(api_keys=(KEY,)), bystander=False) as ring:
        told = json.loads((await ring.get("/health")).body)
        assert set(told) == {"status", "version", "engines", "shared_state", "sessions", "draining"}
        assert told["shared_state"] == "alone"
