"""How soon words are there when a browser sends WebM: ``python -m benchmarks.media_recorder [--repeat N]``.

A headless Chromium hears a recording of a voice as its microphone, has ``MediaRecorder`` make WebM with Opus of it and
sends each piece to a real server process.  Times are the page's own, so they hold all there is: the browser's encoder,
the wait for a piece to be full, the socket, the decoder, the engine.

Guards, which alone decide the exit code: partials come while it is recorded, every segment gets one final, words are
heard.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import soundfile
from playwright.async_api import Page

from benchmarks.figures import begin, finish, spread, table
from benchmarks.served import process
from tests.services.browser import seat, wav

SLICE_MS = 100
"""Audio in one piece, as the page asks for it."""
WITHIN_S = 60.0
"""How long anything awaited of the page may take."""
SPEECH = Path(__file__).resolve().parent.parent / "tests" / "data" / "speech"
QUIET_S = 1.0
"""Silence recorded after the voice: longer than what ends an utterance."""

TALK = """() => {
  window.Talk = class {
    constructor(path) {
      this.path = path;
      this.pieces = []; // all of the recording: a container is resumed from its first byte
      this.arrivals = [];
      this.closes = []; // of the connections that were greeted
      this.stopped = false;
      this.waiting = new Set();
      this.over = new Promise((resolve) => (this.end = resolve));
    }
    async record(length_ms, slice_ms) {
      const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      const media = await navigator.mediaDevices.getUserMedia({ audio });
      const recorder = new MediaRecorder(media, { mimeType: "audio/webm;codecs=opus" });
      recorder.onstart = () => (this.began_ms = performance.now());
      recorder.ondataavailable = ({ data }) => {
        this.first_ms ??= performance.now();
        this.pieces.push(data);
        this.flow();
      };
      recorder.onstop = () => {
        for (const track of media.getTracks()) track.stop();
        this.close();
      };
      this.connect();
      await this.seen("ready");
      recorder.start(slice_ms);
      setTimeout(() => {
        this.stopped_ms = performance.now();
        recorder.stop();
      }, length_ms);
    }
    replay(pieces) {
      this.pieces = pieces;
      this.stopped = true;
      this.connect();
    }
    close() {
      this.stopped = true;
      this.flow();
    }
    connect() {
      const token = this.token ? `?resume=${encodeURIComponent(this.token)}` : "";
      const socket = new WebSocket(`ws://${location.host}/transcription/stream/${this.path}${token}`);
      let greeted = false;
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        this.arrivals.push({ at_ms: performance.now(), link: this.closes.length, event });
        if (event.type === "ready") {
          greeted = true;
          this.token = event.resume_token;
          this.socket = socket;
          this.sent = 0;
          this.finished = false;
          this.flow();
        }
        for (const waiting of this.waiting) waiting(event);
      };
      socket.onclose = ({ code }) => {
        this.socket = null;
        if (greeted) this.closes.push(code);
        if (code === 1000) this.end();
        else setTimeout(() => this.connect(), 250);
      };
    }
    flow() {
      if (!this.socket) return;
      while (this.sent < this.pieces.length) this.socket.send(this.pieces[this.sent++]);
      if (this.stopped && !this.finished) {
        this.finished = true;
        this.socket.send(JSON.stringify({ type: "finish" }));
      }
    }
    seen(type, segment) {
      return new Promise((resolve) => {
        const waiting = (event) => {
          if (event.type !== type || (segment !== undefined && event.segment !== segment)) return;
          this.waiting.delete(waiting);
          resolve();
        };
        this.waiting.add(waiting);
        for (const { event } of this.arrivals) waiting(event);
      });
    }
    told() {
      const { arrivals, closes, began_ms = 0, first_ms = 0, stopped_ms = 0 } = this;
      return { arrivals, closes, began_ms, first_ms, stopped_ms, pieces: this.pieces.length };
    }
  };
}"""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the server."""

    at_ms: float
    """On the page's clock."""
    link: int
    """Number of the connection it came on, from 0."""
    event: dict[str, Any]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A talk that has ended, as its page saw it."""

    arrivals: list[Arrival]
    closes: list[int]
    """Close code of each connection that was greeted."""
    began_ms: float
    """When the recorder said that it had begun, on the page's clock."""
    first_ms: float
    """When the recorder gave its first piece."""
    stopped_ms: float
    """When the recorder was told to stop."""
    pieces: int

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [arrival.event for arrival in self.arrivals if arrival.event["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (event,) = self.all(kind)
        return event

    @property
    def words(self) -> list[str]:
        """Of all finals, in the order of the audio."""
        finals = sorted(self.all("final"), key=lambda final: int(final["segment"]))
        return [word for final in finals for word in str(final["text"]).split()]

    @property
    def early(self) -> int:
        """Partials that came while the recorder was running."""
        return sum(one.event["type"] == "partial" and one.at_ms < self.stopped_ms for one in self.arrivals)

    @property
    def first_partial_ms(self) -> float:
        """From the first piece of the recording to the first partial."""
        return next(one.at_ms for one in self.arrivals if one.event["type"] == "partial") - self.first_ms

    @property
    def zero_ms(self) -> float:
        """When the first sample was recorded, at the earliest: the audio ended no later than the recorder.  Latencies
        that count from it are the worst they can have been, by less than one Opus frame of 60 ms."""
        return min(self.began_ms, self.stopped_ms - float(self.one("closed")["audio_ms"]))

    @property
    def partials_ms(self) -> list[float]:
        """From the moment the newest audio of each partial was spoken to its arrival."""
        partials = [one for one in self.arrivals if one.event["type"] == "partial"]
        return [one.at_ms - self.zero_ms - float(one.event["stop_ms"]) for one in partials]

    @property
    def finals_ms(self) -> list[float]:
        """From the end of the last word of each final to its arrival."""
        finals = [one for one in self.arrivals if one.event["type"] == "final" and one.event["words"]]
        return [one.at_ms - self.zero_ms - float(one.event["words"][-1]["stop_ms"]) for one in finals]


class Talk:
    """Somebody who speaks through ``MediaRecorder`` in an open page.

    Args:
        page: of the server that is spoken to.
        interview: its name; one talk for each.
    """

    def __init__(self, page: Page, interview: str) -> None:
        self._page = page
        self._interview = interview

    async def record(self, length_s: float, *, slice_ms: int = SLICE_MS) -> None:
        """Begin to record the microphone for so long; a lost connection is resumed."""
        await self._page.evaluate(TALK)
        make = "([name, length, slice]) => (window[name] = new Talk(name)).record(length, slice)"
        async with asyncio.timeout(WITHIN_S):
            await self._page.evaluate(make, [self._interview, 1000 * length_s, slice_ms])

    async def replay(self, other: Talk) -> None:
        """Send the recording of another talk, all at once."""
        make = "([name, other]) => { (window[name] = new Talk(name)).replay(window[other].pieces); }"
        await self._page.evaluate(make, [self._interview, other._interview])

    async def seen(self, kind: str, segment: int | None = None) -> None:
        """Wait for an event of this kind."""
        wait = "([name, kind, segment]) => window[name].seen(kind, segment ?? undefined)"
        async with asyncio.timeout(WITHIN_S):
            await self._page.evaluate(wait, [self._interview, kind, segment])

    async def told(self) -> Told:
        """All there is to tell, once the stream has ended."""
        wait = "async (name) => { await window[name].over; return window[name].told(); }"
        async with asyncio.timeout(WITHIN_S):
            return msgspec.convert(await self._page.evaluate(wait, self._interview), Told)


def microphone(path: Path, *recordings: str, before_s: float = 0.5, after_s: float = QUIET_S) -> tuple[Path, float]:
    """A WAV file to hear as microphone, of recordings of the tests with silence around each.

    Returns:
        The file, and its length in seconds.
    """
    audio = b""
    for name in recordings:
        samples, rate_hz = soundfile.read(SPEECH / f"{name}.flac", dtype="int16")
        assert rate_hz == 16_000
        audio += bytes(2 * round(before_s * rate_hz)) + samples.tobytes() + bytes(2 * round(after_s * rate_hz))
    return wav(path, audio), len(audio) / 32_000


def text(*recordings: str) -> list[str]:
    """The words that are spoken in them."""
    return [word for name in recordings for word in (SPEECH / f"{name}.txt").read_text("utf-8").split()]


# --- measuring ---------------------------------------------------------------------------------------------------


async def measure(recording: str, repeat: int) -> list[Told]:
    """Talks one after the other, each in a browser of its own: its microphone begins with the recording."""
    talks: list[Told] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        spoken, length_s = await asyncio.to_thread(microphone, Path(folder) / "voice.wav", recording)
        serve = ("streamsrv", "serve", "--port", "0", "--engine", "sphinx", "--data-dir", f"{folder}/data")
        async with process(*serve) as port:
            for number in range(repeat):
                async with seat(f"http://127.0.0.1:{port}", microphone=spoken) as one:
                    talk = Talk(one.page, f"recorder-{number}")
                    await talk.record(length_s)
                    talks.append(await talk.told())
    return talks


def broken(told: Told, recording: str) -> list[str]:
    """What is wrong with a talk; empty when its figures may be believed."""
    finals = told.all("final")
    wrong = {
        "no partial while it was recorded": not told.early,
        "segments without their one final": [one["segment"] for one in finals] != list(range(len(finals))),
        "hardly a word was heard": len(set(text(recording)) & set(told.words)) < 5,
        "it did not end well": told.closes != [1000],
    }
    return [what for what, true in wrong.items() if true]


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.media_recorder", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--repeat", type=int, default=5, help="talks, one after the other")
    parser.add_argument("--recording", default="austen-0870", help="name of a recording of the tests")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(given)
    measured = begin("media_recorder", given)
    talks = asyncio.run(measure(asked.recording, asked.repeat))
    ended = [told for told in talks if told.all("closed")]
    pools = {
        "first_partial": ("first piece -> first partial", [told.first_partial_ms for told in talks if told.early]),
        "partial": ("newest audio spoken -> partial", [late for told in ended for late in told.partials_ms]),
        "final": ("last word spoken -> final", [late for told in ended for late in told.finals_ms]),
    }
    measured.figures = {f"{name}_ms": msgspec.to_builtins(spread(pool)) for name, (_, pool) in pools.items()}
    measured.figures["plan"] = {"recording": asked.recording, "talks": asked.repeat, "slice_ms": SLICE_MS}
    measured.broken = [f"talk {n}: {what}" for n, told in enumerate(talks) for what in broken(told, asked.recording)]
    rows = [(said, str(len(pool)), *spread(pool).cells()) for said, pool in pools.values()]
    shown = table(("WebM from MediaRecorder, ms", "count", "p50", "p95", "p99", "max"), rows)
    return finish(measured, "media-recorder", shown, keep=not asked.dry)


if __name__ == "__main__":
    sys.exit(main())
