"""What the native core must do, in plain Python: slow, short, and written to be read beside the body it checks."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence

from streamsrv._native.told import Told

# --- pcm --------------------------------------------------------------------------------------------------------

WIDTHS = {"pcm_s16le": 2, "pcm_s24le": 3, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}


def mulaw(code: int) -> int:
    """ITU-T G.711, table 2: sign, three bits of chord, four of step."""
    code = ~code & 0xFF
    chord, step = (code >> 4) & 7, code & 15
    magnitude = ((2 * step + 33) << chord) - 33
    return -4 * magnitude if code & 0x80 else 4 * magnitude


def alaw(code: int) -> int:
    """ITU-T G.711, table 1; even bits are inverted on the line."""
    code ^= 0x55
    chord, step = (code >> 4) & 7, code & 15
    magnitude = 2 * step + 1 if chord == 0 else (2 * step + 33) << (chord - 1)
    return 8 * magnitude if code & 0x80 else -8 * magnitude


def decode_sample(encoding: str, data: bytes) -> tuple[float, bool]:
    """One sample in int16 units, not rounded, and whether it was finite."""
    if encoding == "pcm_s16le":
        return float(struct.unpack("<h", data)[0]), True
    if encoding == "pcm_s24le":
        return int.from_bytes(data, "little", signed=True) / 256, True
    if encoding == "pcm_f32le":
        value = struct.unpack("<f", data)[0]
        if not math.isfinite(value):
            return 0.0, False
        return 32768.0 * min(max(value, -1.0), 1.0), True
    return float(mulaw(data[0]) if encoding == "mulaw" else alaw(data[0])), True


def decode(encoding: str, channels: int, tracks: int, data: bytes) -> tuple[list[list[float]], int, int]:
    """Whole frames of ``data``: values per track in int16 units, how many were not finite, bytes left over."""
    width = WIDTHS[encoding]
    frame = width * channels
    values: list[list[float]] = [[] for _ in range(tracks)]
    broken = 0
    whole = len(data) // frame * frame
    for at in range(0, whole, frame):
        row = []
        for channel in range(channels):
            value, finite = decode_sample(encoding, data[at + channel * width : at + (channel + 1) * width])
            broken += not finite
            row.append(value)
        if tracks == 1:
            row = [sum(row) / channels]
        for track, value in zip(values, row, strict=True):
            track.append(value)
    return values, broken, len(data) - whole


def round_sample(value: float) -> int:
    """Nearest int16, halves to even, clipped; NaN is silence."""
    if math.isnan(value):
        return 0
    return round(min(max(value, -32768.0), 32767.0))


# --- ring -------------------------------------------------------------------------------------------------------


class RingOracle:
    """Every sample ever written, and what of it may still be read."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.start = 0
        self.samples: list[int] = []

    @property
    def end(self) -> int:
        return len(self.samples)

    def fits(self, count: int) -> bool:
        return self.end + count - self.start <= self.capacity

    def write(self, samples: Sequence[int]) -> None:
        self.samples += samples

    def read(self, begin: int, stop: int) -> list[int]:
        return self.samples[begin:stop]

    def release(self, position: int) -> None:
        self.start = min(max(self.start, position), self.end)


# --- segmenter --------------------------------------------------------------------------------------------------

FRAME = 320
ONSET, WINDOW = 4, 6
GRID, SPACING, PRIMING, WARMING = 1_920, 15_360, 24, 6
BURST = 150
FLOOR = 100
STANDS_OUT = 2.5
LOUDEST_FLOOR, FIRST_GAIN = 4_274.0, 8
AROUND, TRAILING, PAUSE, LOUDNESS = 3, 3, 10, 5
MEMORY = 256


def frame_energy(samples: Sequence[int]) -> float:
    """Variance: energy without DC."""
    total = sum(samples)
    return (sum(s * s for s in samples) - total * total / FRAME) / FRAME


class SegmenterOracle:
    """The segmenter over a whole recording; tells what ``Segmenter`` tells, except ADVANCED.

    Args:
        samples: the channel from position 0 on.
        decide, reset: the detector.
        preroll, longest: samples.
        hangover, shortest: frames.
        begin: a restart point.
        earliest: no cut before, as by ``hold`` at the beginning.
    """

    def __init__(
        self,
        samples: Sequence[int],
        decide: Callable[[bytes, int], bool],
        reset: Callable[[], None],
        *,
        preroll: int,
        hangover: int,
        shortest: int,
        longest: int,
        most_gain: int = 1,
        begin: int = 0,
        earliest: int = 0,
    ) -> None:
        self.samples = samples
        self.decide = decide
        self.reset = reset
        self.preroll, self.hangover, self.shortest, self.longest = preroll, hangover, shortest, longest
        self.most_gain = most_gain
        self.begin = begin
        self.earliest = earliest
        self.told: list[Told] = []
        self.resets: list[int] = []
        self.voiced: dict[int, bool] = {}  # by frame
        self.energies: dict[int, float] = {}  # by frame
        self.heard_from = begin // FRAME  # first frame the noise floor knows
        self.forget_before = begin // FRAME  # frames before do not count for an onset
        self.at = begin // FRAME  # the frame that is decided next
        self.heard = 0  # frames before are decided for the second time
        self.unsure = begin == 0  # nothing is announced yet of a stream whose noise is not known
        self.burst: int | None = None  # first voiced frame
        self.first = 0  # first voiced frame of the newest burst
        self.start: int | None = None  # of the open segment
        self.stop = begin
        self.segments: list[tuple[int, int]] = []

    def run(self, now: Callable[[int], float]) -> list[Told]:
        """Decide every whole frame; ``now(frame)`` is when it arrived."""
        self.now = now
        if self.begin:
            self.prime(self.begin)
        self.step_all()
        return self.told

    def step_all(self) -> None:
        while self.at < len(self.samples) // FRAME:
            self.at += 1
            self.step(self.at - 1)

    def hear_again(self) -> None:
        """All from the first frame on, with the noise and the gain that are known now."""
        self.unsure = False
        self.heard = self.at
        self.reset()
        quietest = min(range(max(self.heard_from, self.at - FLOOR), self.at), key=self.energy)
        for _ in range(WARMING):
            self.ask(quietest, self.gain(self.energy(quietest)))
        self.burst = None
        self.voiced.clear()
        self.forget_before = self.at = 0

    def hear_rest_again(self) -> None:
        if self.unsure and self.at:
            self.hear_again()
            self.step_all()

    def finish(self) -> list[Told]:
        self.hear_rest_again()
        rest = len(self.samples) % FRAME
        frame = len(self.samples) // FRAME
        if rest and frame * FRAME >= self.begin:
            self.step(frame)
        self.close_rest("finish", True)
        return self.told

    def flush(self) -> list[Told]:
        self.hear_rest_again()
        frame = len(self.samples) // FRAME - 1
        self.close_rest("flush", self.unvoiced_run(frame) >= TRAILING)
        return self.told

    def part(self) -> list[Told]:
        frame = len(self.samples) // FRAME - 1
        position = (frame + 1) * FRAME
        if self.start is None:
            return self.told
        oldest = max(frame + 1 - MEMORY, max(self.start // FRAME, self.first))
        voiced = [f for f in range(oldest, frame + 1) if self.voiced[f]]
        pauses = [(a + 1, b) for a, b in itertools.pairwise([*voiced, frame + 1]) if b - a > PAUSE]
        if pauses:
            begin, end = pauses[-1]
            stop = position if end == frame + 1 else (begin + end) // 2 * FRAME
            if stop >= self.earliest or self.earliest > position:
                self.close(stop, "flush", stop == position, position)
        return self.told

    # frames

    def frame_samples(self, frame: int) -> list[int]:
        samples = list(self.samples[frame * FRAME : (frame + 1) * FRAME])
        return samples + [0] * (FRAME - len(samples))

    def ask(self, frame: int, gain: int) -> bool:
        louder = self.frame_samples(frame)
        if gain > 1:
            mean = sum(louder) // FRAME
            louder = [min(max((s - mean) * gain, -32768), 32767) for s in louder]
        return bool(self.decide(struct.pack(f"{FRAME}h", *louder), FRAME))

    def energy(self, frame: int) -> float:
        if frame not in self.energies:
            self.energies[frame] = frame_energy(self.frame_samples(frame))
        return self.energies[frame]

    def floor(self, frame: int) -> float | None:
        frame = max(frame, self.heard)
        before = range(max(self.heard_from, frame - FLOOR), frame)
        return min(map(self.energy, before)) if before else None

    def gain(self, floor: float | None) -> int:
        if floor is None:
            return min(self.most_gain, FIRST_GAIN)
        gain = self.most_gain
        while gain > 1 and floor * gain * gain > LOUDEST_FLOOR:
            gain //= 2
        return gain

    def prime(self, position: int) -> None:
        self.reset()
        here = position // FRAME
        self.heard_from = max(0, here - PRIMING)
        gain = self.gain(self.floor(here))
        for frame in range(max(0, here - WARMING), here):
            self.ask(frame, gain)

    def window(self, frame: int) -> list[int]:
        """Voiced frames among the newest six."""
        return [f for f in range(max(self.forget_before, frame - WINDOW + 1), frame + 1) if self.voiced.get(f)]

    def unvoiced_run(self, frame: int) -> int:
        run = 0
        while frame - run >= self.begin // FRAME and not self.voiced[frame - run]:
            run += 1
        return run

    # states

    def step(self, frame: int) -> None:
        floor = self.floor(frame)
        verdict = self.ask(frame, self.gain(floor))
        known = max(frame, self.heard) - self.heard_from >= PRIMING
        self.voiced[frame] = verdict and (floor is None or not known or self.energy(frame) >= STANDS_OUT * floor)
        position = min((frame + 1) * FRAME, len(self.samples))
        if self.start is None and self.burst is None:
            voiced = self.window(frame)
            if len(voiced) >= ONSET:
                self.burst = self.first = voiced[0]
            elif self.unsure and position >= SPACING:
                return self.hear_again()
            elif frame < self.heard - 1:
                pass
            elif not voiced and position % GRID == 0 and position - max([self.begin, *self.resets]) >= SPACING:
                self.resets.append(position)
                self.prime(position)
                self.forget_before = frame + 1
        if self.burst is not None:
            self.step_burst(frame, position)
        if self.start is not None:
            self.step_segment(frame, position)

    def step_burst(self, frame: int, position: int) -> None:
        assert self.burst is not None
        voiced = sum(self.voiced[f] for f in range(self.burst, frame + 1))
        if voiced >= self.shortest or position - self.burst * FRAME >= BURST * FRAME:
            if self.unsure and self.burst * FRAME > self.preroll:
                return self.hear_again()
            self.announce(self.burst, position)
        elif self.unvoiced_run(frame) >= self.hangover:
            self.burst = None
            self.forget_before = frame + 1

    def announce(self, first_frame: int, position: int) -> None:
        self.burst = None
        self.unsure = False
        self.start = max(first_frame * FRAME - self.preroll, self.stop)
        self.told.append((0, self.start, position))

    def step_segment(self, frame: int, position: int) -> None:
        assert self.start is not None
        if self.unvoiced_run(frame) >= self.hangover:
            self.close(position, "vad", True, position)
            self.forget_before = frame + 1
        elif position - self.start >= self.longest:
            self.close(self.quietest(position), "length", False, position)

    def quietest(self, position: int) -> int:
        assert self.start is not None
        lowest = max(position - self.longest // 4, self.start + AROUND * FRAME)
        if self.earliest <= position:
            lowest = max(lowest, self.earliest)
        boundaries = range(-(-lowest // FRAME), position // FRAME - AROUND + 1)
        if not boundaries:
            return position // FRAME * FRAME

        def around(boundary: int) -> tuple[float, int]:
            return sum(self.energy(f) for f in range(boundary - AROUND, boundary + AROUND)), -boundary

        return min(boundaries, key=around) * FRAME

    def close(self, stop: int, cause: str, over: bool, position: int) -> None:
        assert self.start is not None
        inside = range(self.start // FRAME, -(-stop // FRAME))
        voiced = [f for f in inside if self.voiced.get(f)]
        last = voiced[-1] if voiced else inside[0] if inside else self.start // FRAME - 1
        speech_stop = min((last + 1) * FRAME, stop) if voiced else self.start
        ended = (1, stop, max(speech_stop, self.start), self.now(last), cause, over, position)
        self.told.append(ended)  # type: ignore[arg-type]
        self.segments.append((self.start, stop))
        self.stop = stop
        self.start = None if over else stop

    def close_rest(self, cause: str, over: bool) -> None:
        frame = -(-len(self.samples) // FRAME) - 1 if cause == "finish" else len(self.samples) // FRAME - 1
        position = min((frame + 1) * FRAME, len(self.samples))
        if self.start is None:
            voiced = self.window(frame)
            if self.burst is not None:
                self.announce(self.burst, position)
            elif len(voiced) >= 2:
                self.announce(voiced[0], position)
        if self.start is not None and (cause == "finish" or position > self.start):
            self.close(position, cause, over, position)
            if over:
                self.forget_before = frame + 1


# --- mel --------------------------------------------------------------------------------------------------------


def log_mel(samples: Sequence[int], hop: int, filters: Sequence[Sequence[float]]) -> list[float]:
    """log10 of the mel energies of one hop, by the definition of the discrete Fourier transform.

    Args:
        samples: the whole stream so far; mirrored before its beginning, zero after its end.
    """
    frame = []
    for n in range(400):
        place = abs(160 * hop - 200 + n)
        value = samples[place] / 32_768 if place < len(samples) else 0.0
        frame.append(value * (0.5 - 0.5 * math.cos(math.tau * n / 400)))
    powers = []
    for k in range(201):
        re = sum(value * math.cos(math.tau * n * k / 400) for n, value in enumerate(frame))
        im = sum(value * math.sin(math.tau * n * k / 400) for n, value in enumerate(frame))
        powers.append(re * re + im * im)
    energies = (sum(a * b for a, b in zip(row, powers, strict=True)) for row in filters)
    return [math.log10(max(energy, 1e-10)) for energy in energies]


def mel_window(hops: Sequence[Sequence[float]], frames: int) -> list[list[float]]:
    """Features of a window from its hops: clamped to 8 decades, scaled, silence behind; one row per band."""
    floor = max(max(map(max, hops)) - 8, -10)
    rows = [[(max(hop[band], floor) + 4) / 4 for hop in hops] for band in range(len(hops[0]))]
    return [row + [(floor + 4) / 4] * (frames - len(row)) for row in rows]
