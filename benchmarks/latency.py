"""How soon words are there: ``python -m benchmarks.latency [--sessions N --audio PLACE --engine NAME]``.

Speakers in real time over real sockets to a real server process, open loop: every latency counts from the time the
audio was meant to be sent.  Percentiles pool all words of all sessions.  ``--engine whisper`` measures words whose ends
are known, with the models of the tests (``benchmarks.whispered``).

Guards, which alone decide the exit code: no stable word is ever taken back, every segment gets one final, all audio is
accounted for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.figures import begin, engine_of, finish, spread, table
from benchmarks.judging import Judged, judge
from benchmarks.listening import Heard, play
from benchmarks.script import Script, constructed, recordings
from benchmarks.served import process, speech_file

POOLS = ("first_partial", "commit", "final", "endpoint", "finalise", "flush")
STAGGER_S = 0.37
"""Between the first samples of two sessions, so that their partials do not fall together."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    engine: str = "sphinx"
    """``null``: a server whose engine makes up one word each half second; what is left is the server's own share."""
    sessions: int = 2
    repeat: int = 2
    frame_ms: int = 20
    audio: Path


async def measure(plan: Plan, *, constructed_too: bool = True) -> dict[str, Judged]:
    """Latencies by kind of speech.  Constructed speech needs an engine that hears words."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        null = ("benchmarks.serving", "talking", "--data-dir", folder)
        real = ("streamsrv", "serve", "--port", "0", "--engine", plan.engine, "--data-dir", folder)
        async with process(*(null if plan.engine == "null" else real)) as port:
            return await _measure(plan, port, constructed_too and plan.engine != "null")


async def _measure(plan: Plan, port: int, constructed_too: bool) -> dict[str, Judged]:
    pools = {"constructed": Judged(), "recorded": Judged()}
    scripts = [("recorded", script) for script in recordings(plan.audio)]
    if constructed_too:
        scripts.append(("constructed", constructed(speech_file())))
    async with aiohttp.ClientSession() as http:
        speakers = [_speaker(http, port, plan, scripts, number) for number in range(plan.sessions)]
        for said in await asyncio.gather(*speakers):
            for kind, heard in said:
                pools[kind].add(judge(heard))
    return {kind: pool for kind, pool in pools.items() if pool.late}


async def _speaker(
    http: aiohttp.ClientSession, port: int, plan: Plan, scripts: Sequence[tuple[str, Script]], number: int
) -> list[tuple[str, Heard]]:
    """All scripts one after the other, each speaker beginning with another one."""
    said: list[tuple[str, Heard]] = []
    for turn in range(plan.repeat * len(scripts)):
        kind, script = scripts[(number + turn) % len(scripts)]
        url = f"ws://127.0.0.1:{port}/transcription/stream/latency-{number}"
        after_s = STAGGER_S * number if turn == 0 else 0.0
        said.append((kind, await play(http, url, script, plan.frame_ms, after_s=after_s)))
    return said


# --- telling -----------------------------------------------------------------------------------------------------


def figures(pool: Judged) -> dict[str, object]:
    """As they are kept."""
    spreads = {f"{name}_ms": msgspec.to_builtins(spread(getattr(pool, name))) for name in (*POOLS, "late")}
    return spreads | {
        "words": pool.words,
        "stable_before_final": _share(pool.stable, pool.words),
        "stable_before_final_over_3_s": _share(pool.long_stable, pool.long_words),
        "upwr": _share(pool.withdrawn, pool.words),
        "constructed_words_heard": _share(pool.matched, pool.truth),
        "word_error_rate": _share(pool.errors, pool.written),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def shown(pools: dict[str, Judged]) -> str:
    """The tables for people."""
    names = {
        "first_partial": "word -> first partial",
        "commit": "word -> stable",
        "final": "last word -> final",
        "endpoint": "  of it: waiting for silence",
        "finalise": "  of it: finalising",
        "flush": "flush -> final",
        "late": "(speaker's own lateness)",
    }
    parts = []
    for kind, pool in pools.items():
        rows = [
            (f"{names[name]}", str(len(getattr(pool, name))), *spread(getattr(pool, name)).cells()) for name in names
        ]
        parts += [table((f"{kind} speech, ms", "count", "p50", "p95", "p99", "max"), rows), _counts(pool), ""]
    return "\n".join(parts)


def _counts(pool: Judged) -> str:
    told = {
        "words": pool.words,
        "stable before the final": _share(pool.stable, pool.words),
        "over 3 s": _share(pool.long_stable, pool.long_words),
        "withdrawn words per word": _share(pool.withdrawn, pool.words),
        "constructed words heard": _share(pool.matched, pool.truth),
        "word error rate": _share(pool.errors, pool.written),
    }
    return ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)


def plan_of(arguments: Sequence[str]) -> tuple[Plan, bool]:
    """What the command line asks for, and whether the figures are kept."""
    usual = Plan(audio=speech_file())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--engine", default=usual.engine, help="any engine of the server, or 'null' for its own share")
    parser.add_argument("--sessions", type=int, default=usual.sessions, help="speakers at once")
    parser.add_argument("--repeat", type=int, default=usual.repeat, help="times each speaks everything")
    parser.add_argument("--frame-ms", type=int, default=usual.frame_ms, help="audio in one message")
    parser.add_argument("--audio", type=Path, default=usual.audio, help="a recording or a folder of them; texts beside")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(arguments)
    keep = not asked.__dict__.pop("dry")
    return Plan(**vars(asked)), keep


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if engine_of(given) == "whisper":
        from benchmarks import whispered  # needs the extra 'whisper'

        return whispered.main(given)
    plan, keep = plan_of(given)
    measured = begin("latency", given)
    pools = asyncio.run(measure(plan))
    told = msgspec.structs.asdict(plan) | {"audio": plan.audio.name}
    measured.figures = {"plan": told, **{kind: figures(pool) for kind, pool in pools.items()}}
    measured.broken = [f"{kind}: {what}" for kind, pool in pools.items() for what in pool.broken]
    return finish(measured, "latency" if plan.engine == "sphinx" else f"latency-{plan.engine}", shown(pools), keep=keep)


if __name__ == "__main__":
    sys.exit(main())
