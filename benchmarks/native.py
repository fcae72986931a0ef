"""Nanoseconds per 20 ms of audio in the native core, beside the floor (plain C) and the usual way, in one run.

``python -m benchmarks.native [--quick] [--dry]``: ``--quick`` is for guards, not for figures; ``--dry`` keeps no file.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr  # type: ignore[import-untyped]
import webrtcvad

from benchmarks import report
from benchmarks.report import Pair
from streamsrv._native.pcm import Decoder
from streamsrv._native.ring import RingBuffer
from streamsrv.audio.formats import AudioFormat
from streamsrv.audio.front import Front
from streamsrv.audio.resample import Resampler
from streamsrv.commands import Options
from streamsrv.facts import SpeechBegan, SpeechEnded

SAMPLES = 320
MESSAGES = 1_000
"""Messages of 20 ms in one round: 20 s."""
FULL = 480_000
"""Samples held in the ring rows: 30 s."""


def sound(level: float, messages: int = MESSAGES) -> bytes:
    """Bursts of noise at ``level`` (int16 units) between pauses, much as speech comes."""
    chance = np.random.default_rng(1)
    beat = np.repeat(chance.uniform(0.05, 1.0, messages // 5), 5 * SAMPLES)
    talking = np.repeat(np.arange(messages // 5) // 10 % 2 == 0, 5 * SAMPLES)
    return bytes((chance.standard_normal(messages * SAMPLES) * (1 + level * beat * talking)).astype(np.int16).tobytes())


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def row(
    name: str,
    a: tuple[str, Callable[[], object]],
    b: tuple[str, Callable[[], object]],
    *,
    target: tuple[str, float],
    guard: bool,
    rounds: int,
) -> Pair:
    """``target`` is ``(">=", x)``: b costs at least x times a; ``("<=", x)``: a costs at most x times b."""
    a_ns, b_ns = report.pairs(a[1], b[1], rounds=rounds, pieces=MESSAGES)
    sign, limit = target
    ratios = [y / x if sign == ">=" else x / y for x, y in zip(a_ns, b_ns, strict=True)]
    low, high = report.interval(ratios)
    ratio = statistics.median(ratios)
    return Pair(
        name=name,
        a=a[0],
        b=b[0],
        a_ns=statistics.median(a_ns),
        b_ns=statistics.median(b_ns),
        ratio=ratio,
        low=low,
        high=high,
        target=f"{sign} {limit:g}",
        reached=ratio >= limit if sign == ">=" else ratio <= limit,
        guard=guard,
    )


# --- ingest -----------------------------------------------------------------------------------------------------


class Ingest:
    """Our decoder into a ring that holds 30 s all the time, message by message."""

    def __init__(self, messages: list[bytes]) -> None:
        self.messages = messages
        self.decoder = Decoder("pcm_s16le", 1, 1)
        self.ring = RingBuffer(2 * FULL)
        self.ring.write(bytes(2 * FULL))
        self.rings = (self.ring,)

    def __call__(self) -> None:
        self.ring.release(self.ring.end - FULL)
        take, rings = self.decoder.into_rings, self.rings
        for message in self.messages:
            take(message, rings)

    def guard(self) -> bool:
        self()
        last = np.frombuffer(self.messages[-1], np.int16).astype(float) / 32_768
        data = b"".join(self.messages)
        same = self.ring.read(self.ring.end - len(data) // 2, self.ring.end) == data
        return same and abs(self.decoder.energy(0) - float(np.mean(last**2))) < 1e-9


def usual(messages: list[bytes]) -> None:
    for message in messages:
        np.frombuffer(message, np.int16).astype(np.float32) / 32_768


@contextmanager
def compiled() -> Iterator[ctypes.CDLL]:
    """``floor.c`` as a library, with the machine's own compiler."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "floor.so"
        source = Path(__file__).parent / "floor.c"
        subprocess.run(["cc", "-O3", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        yield ctypes.CDLL(str(library))


def ingest_rows(rounds: int) -> Iterator[Pair]:
    data = sound(3_000)
    messages = split(data, 2 * SAMPLES)
    ours = Ingest(messages)
    guard = ours.guard()
    yield row(
        "ingest, usual way", ("ours", ours), ("numpy", partial(usual, messages)), target=(">=", 10), guard=guard,
        rounds=rounds,
    )  # fmt: skip
    samples = np.frombuffer(data, np.int16)
    floats, copies = np.empty(len(samples), np.float32), np.empty(len(samples), np.int16)
    with compiled() as floor:
        for name, function, out in (("to float32", floor.run_floats, floats), ("same job", floor.run_copy, copies)):
            function.restype = ctypes.c_double
            call = partial(
                function, ctypes.c_void_p(samples.ctypes.data), ctypes.c_void_p(out.ctypes.data), SAMPLES, MESSAGES
            )
            call()
            want = samples / np.float32(32_768) if out is floats else samples
            yield row(
                f"ingest, C loop, {name}", ("ours", ours), ("C -O3", call), target=("<=", 2),
                guard=guard and bool(np.array_equal(out, want)), rounds=rounds,
            )  # fmt: skip


# --- ring -------------------------------------------------------------------------------------------------------


class Push:
    """Append 20 ms, 30 s held; forget 20 ms each time, or (as the front does after a final) once in a while."""

    def __init__(self, messages: list[bytes], *, trim: bool) -> None:
        self.messages = messages
        self.trim = trim
        self.ring = RingBuffer(2 * FULL)
        self.ring.write(bytes(2 * FULL))

    def __call__(self) -> None:
        write, release = self.ring.write, self.ring.release
        if not self.trim:
            release(self.ring.end - FULL + MESSAGES * SAMPLES)
            for message in self.messages:
                write(message)
            return
        oldest = self.ring.start + SAMPLES
        for message, keep in zip(self.messages, range(oldest, oldest + MESSAGES * SAMPLES, SAMPLES), strict=True):
            write(message)
            release(keep)


class Append:
    def __init__(self, messages: list[bytes]) -> None:
        self.messages = messages
        self.held = bytearray(2 * FULL)

    def __call__(self) -> None:
        held = self.held
        for message in self.messages:
            held += message
            del held[: 2 * SAMPLES]


def ring_rows(rounds: int) -> Iterator[Pair]:
    messages = split(sound(3_000), 2 * SAMPLES)
    for name, trim, least in (("push", False, 3), ("push and trim each", True, 2)):
        ours, theirs = Push(messages, trim=trim), Append(messages)
        ours()
        theirs()
        guard = ours.ring.read(ours.ring.start, ours.ring.end) == theirs.held
        yield row(
            f"ring, {name}",
            ("ours", ours),
            ("bytearray", theirs),
            target=(">=", least),
            guard=guard,
            rounds=rounds,
        )


# --- front ------------------------------------------------------------------------------------------------------


def feed(front: Front, messages: list[bytes]) -> None:
    take = front.feed
    for message in messages:
        for mark in take(message, 0.0):
            if isinstance(mark, SpeechEnded):
                front.release(0, mark.stop)


def bare_vad(messages: list[bytes]) -> None:
    is_speech = webrtcvad.Vad(2).is_speech
    for message in messages:
        is_speech(message, 16_000)


def boundaries(messages: list[bytes]) -> tuple[list[object], int]:
    front = Front(Options())
    marks = [mark for message in messages for mark in front.feed(message, 0.0)] + front.finish(0.0)
    return [mark for mark in marks if isinstance(mark, SpeechBegan | SpeechEnded)], front.position


def front_rows(rounds: int) -> Iterator[Pair]:
    for name, level, least in (("silence", 4.0, 0), ("speech", 3_000.0, 2)):
        data = sound(level)
        messages = split(data, 2 * SAMPLES)
        pieces, whole = boundaries(messages), boundaries([data])
        guard = pieces == whole and len(pieces[0]) >= least and pieces[1] == MESSAGES * SAMPLES
        yield row(
            f"front, 16 kHz, {name}", ("ours", partial(feed, Front(Options()), messages)),
            ("webrtcvad", partial(bare_vad, messages)), target=("<=", 1.5), guard=guard, rounds=rounds,
        )  # fmt: skip


# --- resampling -------------------------------------------------------------------------------------------------


def bare_soxr(floats: Sequence[npt.NDArray[np.float32]]) -> list[object]:
    stream = soxr.ResampleStream(48_000, 16_000, 1, dtype="float32", quality="HQ")
    return [stream.resample_chunk(message) for message in floats]


def resample(messages: list[bytes]) -> RingBuffer:
    """Decode, resample and round as the front does, without detector."""
    layout = AudioFormat.of(Options(sample_rate=48_000))
    decoder, ring = Decoder("pcm_s16le", 1, 1), RingBuffer(2 * MESSAGES * SAMPLES)
    push = Resampler(layout, (ring,)).push
    for message in messages:
        push(decoder.into_floats(message))
    return ring


def resample_row(rounds: int) -> Pair:
    messages = split(sound(3_000, 3 * MESSAGES), 6 * SAMPLES)
    floats = [np.frombuffer(message, np.int16).astype(np.float32) / np.float32(32_768) for message in messages]
    ring = resample(messages)
    want = np.rint(np.concatenate([np.asarray(out) for out in bare_soxr(floats)]) * 32_768).astype(np.int16)
    guard = ring.read(0, ring.end) == want.tobytes()
    return row(
        "48 -> 16 kHz with decode and round",
        ("ours", partial(resample, messages)),
        ("soxr HQ", partial(bare_soxr, floats)),
        target=("<=", 1.5),
        guard=guard,
        rounds=rounds,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: for the guards")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    chosen = parser.parse_args(arguments)
    rounds = 3 if chosen.quick else 41
    out = report.begin("python -m benchmarks.native" + (" --quick" if chosen.quick else ""))
    out.gauge["before_ms"] = report.gauge()
    out.rows += [*ingest_rows(rounds), *ring_rows(rounds), *front_rows(rounds), resample_row(rounds)]
    out.gauge["after_ms"] = report.gauge()
    return report.finish(out, "native", keep=not chosen.dry and not chosen.quick)


if __name__ == "__main__":
    sys.exit(main())
