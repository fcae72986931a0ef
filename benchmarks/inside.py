"""Whether those inside keep their words: ``python -m benchmarks.load --engine whisper --inside``.

Speakers who talk six tenths of their time come to one server, one after the other, until it refuses one at the door.
Then those inside talk without a pause and twice as fast as people do: for five seconds, and after a rest for two
minutes.

Guards, which alone decide the exit code: the refusal is a 503 with ``Retry-After`` and a body that says why; no audio,
no final and no word is lost; whoever hears fewer partials than promised was told so.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import aiohttp
import msgspec
import numpy as np

from benchmarks import plot
from benchmarks.figures import Spread, begin, finish, spread, table
from benchmarks.judging import edits, judge, violations
from benchmarks.listening import Arrival, Heard, converse
from benchmarks.script import Script
from benchmarks.spoken import turns
from benchmarks.trials import FRAME_MS, model_folder, server

Load: TypeAlias = Literal["normal", "burst", "rest", "overload"]
EVERY_S: Final = 0.7
"""Between two newcomers."""
MOST: Final = 40
"""Newcomers at most."""
RAMP_S: Final = 30.0
"""In which all of them have come."""
CALM: Final = (0.6, 1.0)
RUSH: Final = (1.0, 2.0)
"""Share of speech, and seconds of audio sent per second."""
FLOOR_S: Final = 5
GOAL: Final = 2.0
"""Finals' p95 in the overload against normal."""
THIN: Final = 1.6
"""Partials so many times fewer than normal must have been announced."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of everybody's time."""

    name: Load
    seconds: float
    share: float
    pace: float


def parts(normal_s: float, burst_s: float, overload_s: float) -> tuple[Part, ...]:
    """What happens after the newcomers came."""
    (share, pace), (rushed, fast) = CALM, RUSH
    return (
        Part(name="normal", seconds=normal_s, share=share, pace=pace),
        Part(name="burst", seconds=burst_s, share=rushed, pace=fast),
        Part(name="rest", seconds=normal_s, share=share, pace=pace),
        Part(name="overload", seconds=overload_s, share=rushed, pace=fast),
    )


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """A session that was let in."""

    heard: Heard
    began_s: float
    """After the ramp began."""

    def finals(self, begin_s: float, end_s: float) -> list[Arrival]:
        """Said in that time after the ramp began."""
        return [one for one in self._within(begin_s, end_s) if one.message["type"] == "final"]

    def partials(self, begin_s: float, end_s: float) -> int:
        return sum(one.message["type"] == "partial" for one in self._within(begin_s, end_s))

    def _within(self, begin_s: float, end_s: float) -> list[Arrival]:
        return [one for one in self.heard.arrivals if begin_s <= one.at_ms / 1000 + self.began_s < end_s]

    @property
    def told(self) -> bool:
        """Whether it was told of too much load."""
        return any(one.message["type"] == "degraded" and one.message["active"] for one in self.heard.arrivals)


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """All sessions in one part."""

    name: Load
    final_ms: Spread
    """Last speech sample -> final, the wait for silence included."""
    served_ms: Spread
    """The same without that wait, which is shorter for those who talk faster than people: the server's own share."""
    partials_per_s: float
    """Of one session."""


async def run(model: str, after: Sequence[Part]) -> tuple[list[Inside], list[str]]:
    """Fill the server, then overload it; those inside, and what is wrong with the refusal."""
    async with (
        model_folder(model) as folder,
        server(folder, f"whisper.window_floor_s={FLOOR_S}") as port,
        aiohttp.ClientSession() as http,
    ):
        talks: list[asyncio.Task[Inside]] = []
        wrong = ["nobody was refused"]
        for number in range(MOST):
            url = f"ws://127.0.0.1:{port}/transcription/stream/inside-{number}"
            try:
                socket = await http.ws_connect(url, params={"sample_rate": "16000"}, max_msg_size=0)
            except aiohttp.WSServerHandshakeError as refusal:
                wrong = [*_refusal(refusal), *await _why(http, url)]
                break
            talks.append(asyncio.create_task(_talk(socket, number, number * EVERY_S, after)))
            await asyncio.sleep(EVERY_S)
        return list(await asyncio.gather(*talks)), wrong


async def _talk(socket: aiohttp.ClientWebSocketResponse, number: int, began_s: float, after: Sequence[Part]) -> Inside:
    share, pace = CALM
    ramp = Part(name="normal", seconds=RAMP_S - began_s, share=share, pace=pace)
    everything = (ramp, *after)
    stretches = [(part.seconds * part.pace, part.share) for part in everything]
    script = await asyncio.to_thread(turns, number, stretches)
    return Inside(heard=await converse(socket, script, FRAME_MS, _dues(script, everything)), began_s=began_s)


def _dues(script: Script, everything: Sequence[Part]) -> list[float]:
    """When each frame is to be sent, seconds after the first one begins; the last part's pace goes on."""
    ends = list(itertools.accumulate(part.seconds * part.pace for part in everything))
    count = -(-script.duration_ms // FRAME_MS)
    steps, at = [], 0
    for frame in range(count):
        while at + 1 < len(ends) and frame * FRAME_MS / 1000 >= ends[at]:
            at += 1
        steps.append(FRAME_MS / 1000 / everything[at].pace)
    return [float(due) for due in np.cumsum(steps)]


def _refusal(refusal: aiohttp.WSServerHandshakeError) -> list[str]:
    after_s = 0 if refusal.headers is None else int(refusal.headers.get("Retry-After", 0))
    wrong = [] if refusal.status == 503 else [f"the refusal was a {refusal.status}"]
    return wrong if after_s > 0 else [*wrong, "the refusal had no Retry-After"]


async def _why(http: aiohttp.ClientSession, url: str) -> list[str]:
    """Ask again by hand, to see the body."""
    asked = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with http.get(url.replace("ws:", "http:"), headers=asked) as answer:
        told = (await answer.json()).get("error", {}) if answer.content_type == "application/json" else {}
    return [] if told.get("code") and told.get("message") else ["the refusal did not say why"]


# --- telling ----------------------------------------------------------------------------------------------------------


def stretches(inside: Sequence[Inside], after: Sequence[Part]) -> list[Stretch]:
    """Everybody pooled, part by part."""
    begin_s, found = RAMP_S, []
    for part in after:
        end_s = begin_s + part.seconds
        finals = [one for session in inside for one in session.finals(begin_s, end_s)]
        partials = sum(session.partials(begin_s, end_s) for session in inside)
        found.append(
            Stretch(
                name=part.name,
                final_ms=spread([float(one.message["latency_ms"]) for one in finals]),
                served_ms=spread([float(one.message["latency_ms"] - one.message["endpoint_ms"]) for one in finals]),
                partials_per_s=round(partials / part.seconds / max(1, len(inside)), 2),
            )
        )
        begin_s = end_s
    return found


def commits(inside: Sequence[Inside], normal: Part) -> Spread:
    """Words that end in the first part, to their being stable; behind it nobody talks at a pace that people do."""
    pool: list[float] = []
    for session in inside:
        judged, begin_ms = judge(session.heard), 1000 * (RAMP_S - session.began_s)
        ends = zip(judged.ends, judged.commit, strict=True)
        pool += [ms for end, ms in ends if begin_ms <= end < begin_ms + 1000 * normal.seconds]
    return spread(pool)


def broken(inside: Sequence[Inside], seen: Sequence[Stretch]) -> list[str]:
    """What must not be."""
    told = [
        f"session {number}: {what}"
        for number, one in enumerate(inside)
        for what in violations(one.heard)
        if what not in one.heard.script.expected
    ]
    for number, one in enumerate(inside):
        truth = [word.text for word in one.heard.script.truth]
        said = [
            word
            for arrival in one.heard.arrivals
            if arrival.message["type"] == "final"
            for word in str(arrival.message["text"]).split()
        ]
        if wrong := edits(truth, said):
            told.append(f"session {number}: {wrong} of {len(truth)} words wrong")
    normal, overload = seen[0], seen[-1]
    if overload.partials_per_s * THIN < normal.partials_per_s and not all(one.told for one in inside):
        told.append("partials thinned out, and somebody was not told")
    return told


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load --engine whisper --inside", description=__doc__)
    parser.add_argument("--engine", choices=("whisper",))
    parser.add_argument("--inside", action="store_true", required=True)
    parser.add_argument("--model", default="tone", help="tone or small-tone")
    parser.add_argument("--normal-s", type=float, default=20.0)
    parser.add_argument("--burst-s", type=float, default=5.0)
    parser.add_argument("--overload-s", type=float, default=120.0)
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(arguments)
    after = parts(asked.normal_s, asked.burst_s, asked.overload_s)
    measured = begin("load", arguments)
    inside, wrong = asyncio.run(run(asked.model, after))
    seen = stretches(inside, after)
    measured.broken = [*wrong, *broken(inside, seen)]
    ratio = seen[-1].final_ms.p95 / max(1.0, seen[0].final_ms.p95)
    served = seen[-1].served_ms.p95 / max(1.0, seen[0].served_ms.p95)
    commit = commits(inside, after[0])
    told = sum(one.told for one in inside)
    measured.figures = {
        "sessions": len(inside),
        "told": told,
        "finals_p95_ratio": round(ratio, 2),
        "served_p95_ratio": round(served, 2),
        "commit_ms_normal": msgspec.to_builtins(commit),
        "goal": GOAL,
        "parts": msgspec.to_builtins(seen),
    }
    rows = [(one.name, *one.final_ms.cells(), *one.served_ms.cells()[:2], f"{one.partials_per_s:.2f}") for one in seen]
    text = table(("finals, ms", "p50", "p95", "p99", "max", "served p50", "p95", "partials/s"), rows)
    verdict = (
        f"{len(inside)} let in, {told} told; finals' p95 {ratio:.2f} times normal (goal {GOAL:g}), "
        f"without the wait for silence {served:.2f} times; before the burst a word's end to its being stable "
        f"p50 {commit.p50:.0f}, p95 {commit.p95:.0f} ms"
    )
    if not asked.dry:
        drawn(plot.place("inside-whisper", measured.date), seen, len(inside))
    return finish(measured, "inside-whisper", f"{text}\n{verdict}", keep=not asked.dry)


def drawn(path: Path, seen: Sequence[Stretch], sessions: int) -> Path:
    """How long finals took, part by part; ``seen`` is what a kept report has as ``parts``."""
    told = {
        "p50": [one.final_ms.p50 for one in seen],
        "p95": [one.final_ms.p95 for one in seen],
        "p95 without the wait for silence": [one.served_ms.p95 for one in seen],
    }
    title = f"End of speech to final, {sessions} Whisper sessions that talk as usual, rush, rest, rush"
    limits = {f"goal: p95 {GOAL:g} times normal": GOAL * seen[0].final_ms.p95}
    return plot.bars(path, [one.name for one in seen], told, title=title, y="ms", limits=limits)
