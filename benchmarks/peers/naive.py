"""The naive server: ``python -m benchmarks.peers.naive --model FOLDER --port N``.

What most people write first, after the example of whisper_streaming: a thread per session around one model without a
lock, which decodes everything it has with ``transcribe()`` whenever another second has come, padded to 30 s as always,
and commits what two successive answers agree on.  Audio longer than 15 s is cut where its committed words end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from aiohttp import WSMsgType, web

from benchmarks.tape import RATE_HZ

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

CHUNK_S = 1.0
"""New audio an answer waits for; whisper_streaming's ``--min-chunk-size``."""
TRIM_S = 15.0
"""Audio kept at most; its ``--buffer_trimming_sec``."""


class Word(NamedTuple):
    """As the model heard it, seconds of the stream."""

    start_s: float
    stop_s: float
    text: str


class Agreement:
    """LocalAgreement-2 as whisper_streaming does it, and the audio it is about."""

    def __init__(self) -> None:
        self.committed: list[Word] = []
        self.audio = np.zeros(0, np.float32)
        self._begins_s = 0.0
        self._before: list[Word] = []

    def hear(self, transcribe: Callable[[np.ndarray], list[Word]]) -> None:
        """Decode all audio there is and commit what agrees with the answer before."""
        spoken = [
            Word(word.start_s + self._begins_s, word.stop_s + self._begins_s, word.text)
            for word in transcribe(self.audio)
        ]
        last_s = self.committed[-1].stop_s if self.committed else 0.0
        fresh = [word for word in spoken if word.start_s > last_s - 0.1]
        fresh = self._without_repeated(fresh, last_s)
        agreed = next(
            (n for n, (a, b) in enumerate(zip(fresh, self._before, strict=False)) if a.text != b.text),
            min(len(fresh), len(self._before)),
        )
        self.committed += fresh[:agreed]
        self._before = fresh[agreed:]
        if len(self.audio) > TRIM_S * RATE_HZ and self.committed:
            self._cut(self.committed[-1].stop_s)

    def _without_repeated(self, fresh: list[Word], last_s: float) -> list[Word]:
        """Words at the seam that were committed already, said again."""
        if not fresh or abs(fresh[0].start_s - last_s) >= 1:
            return fresh
        for count in range(1, min(5, len(fresh), len(self.committed)) + 1):
            if [word.text for word in self.committed[-count:]] == [word.text for word in fresh[:count]]:
                return fresh[count:]
        return fresh

    def _cut(self, at_s: float) -> None:
        self.audio = self.audio[round((at_s - self._begins_s) * RATE_HZ) :]
        self._begins_s = at_s


class Session:
    """One connection and its thread."""

    def __init__(self, model: WhisperModel, say: Callable[[str], None]) -> None:
        self._model = model
        self._say = say
        self._fresh: list[bytes] = []
        self._ended = False
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def feed(self, samples: bytes) -> None:
        with self._more:
            self._fresh.append(samples)
            self._more.notify()

    def end(self) -> None:
        with self._more:
            self._ended = True
            self._more.notify()

    def _run(self) -> None:
        agreement = Agreement()
        while (samples := self._next()) is not None:
            agreement.audio = np.concatenate([agreement.audio, samples])
            before = len(agreement.committed)
            agreement.hear(self._transcribe)
            if len(agreement.committed) > before:
                self._say(" ".join(word.text for word in agreement.committed))

    def _next(self) -> np.ndarray | None:
        """All that came, once it is enough; ``None`` at the end."""
        enough = CHUNK_S * RATE_HZ * 2
        with self._more:
            self._more.wait_for(lambda: self._ended or sum(map(len, self._fresh)) >= enough)
            if self._ended:
                return None
            taken, self._fresh = b"".join(self._fresh), []
        return np.frombuffer(taken, "<i2").astype(np.float32) / 32_768

    def _transcribe(self, audio: np.ndarray) -> list[Word]:
        segments, _ = self._model.transcribe(
            audio, language="en", beam_size=1, word_timestamps=True, condition_on_previous_text=False
        )
        return [Word(word.start, word.end, word.word.strip()) for segment in segments for word in segment.words or ()]


def make_app(model: WhisperModel) -> web.Application:
    """One socket: samples in, ``{"committed": ...}`` out."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        loop = asyncio.get_running_loop()
        texts: asyncio.Queue[str] = asyncio.Queue()
        session = Session(model, lambda text: void(loop.call_soon_threadsafe(texts.put_nowait, text)))
        teller = asyncio.create_task(tell(socket, texts))
        await socket.send_str('{"ready": true}')
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                session.feed(message.data)
            else:
                break
        session.end()
        teller.cancel()
        if not socket.closed:
            await socket.send_str('{"closed": true}')
        return socket

    async def tell(socket: web.WebSocketResponse, texts: asyncio.Queue[str]) -> None:
        while True:
            await socket.send_str(json.dumps({"committed": await texts.get()}))

    app = web.Application()
    app.router.add_get("/", handle)
    return app


def void(_: object) -> None:
    """What nobody asks for."""


def main() -> None:
    from faster_whisper import WhisperModel

    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.naive", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    model = WhisperModel(asked.model, device="cpu", compute_type="int8", cpu_threads=os.cpu_count() or 1)
    web.run_app(make_app(model), host="127.0.0.1", port=asked.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
