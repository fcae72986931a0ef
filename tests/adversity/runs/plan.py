"""A run before it is run: who says what, and what goes wrong when.  Pure: the same seed gives the same plan."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

import msgspec

from tests.adversity.runs.speech import LOW_WORDS, Speech, Utterance, recordings
from tests.models import tone

Shape: TypeAlias = Literal["alone", "pair"]
"""One node on SQLite; or two nodes behind a balancer on MongoDB, with Redis, Kafka and a webhook."""
Spoken: TypeAlias = Literal["tones", "digits"]
FileKind: TypeAlias = Literal["WAV", "FLAC"]
ViewerKind: TypeAlias = Literal["socket", "events"]
"""By WebSocket or by Server-Sent Events."""
LineHarm: TypeAlias = Literal["cut", "close", "half_up", "half_down", "stall", "hole", "throttle", "delay", "refuse"]
NodeHarm: TypeAlias = Literal["kill", "term", "freeze", "disk_full"]
LoneHarm: TypeAlias = Literal["garble", "age", "ahead", "behind"]

SHAPES: tuple[Shape, ...] = ("alone", "pair")
DIGITS_EVERY = 7
"""One run of so many speaks recorded digits; odd, so that both shapes do."""
LINE_HARMS: dict[LineHarm, tuple[float, float]] = {
    "cut": (0, 0),
    "close": (0, 0),
    "half_up": (0, 0),
    "half_down": (0, 0),
    "stall": (0.2, 2.0),
    "hole": (0, 0),
    "throttle": (0.5, 2.0),
    "delay": (0.5, 2.0),
    "refuse": (0.2, 1.5),
}
"""What can happen to a speaker's line, and for how long at least and at most, in seconds."""
NODE_HARMS: dict[NodeHarm, tuple[float, float]] = {
    "kill": (0.0, 1.0),
    "term": (0.0, 1.0),
    "freeze": (0.2, 2.0),
    "disk_full": (0.5, 2.5),
}
"""What can happen to a node; after ``kill`` and ``term`` it stays away for so long."""
LONE_HARMS: dict[LoneHarm, tuple[float, float]] = {
    "garble": (0, 0),
    "age": (0, 0),
    "ahead": (0.5, 4.0),
    "behind": (0.5, 4.0),
}
"""What can happen to a node that is alone: its database is damaged, or from a later release, while it is down (row
68); its wall clock jumps by an hour, and back (row 65)."""
ENDS = frozenset({"kill", "term", "garble", "age"})
"""What ends a process."""
ENDS_SOON = 0.8
"""Share of files that are sent just before that."""
LONE_EVERY = 3
"""Of the runs of one node, one of so many has one of these; and of the others, one of so many a webhook that redirects
(row 39)."""
AWAY: tuple[float, float] = (0.3, 4.0)
"""Outages of services: up to a minute, fifteen times shorter."""
SERVICE_HARMS: dict[str, tuple[str, ...]] = {
    "mongo": ("kill", "stop", "freeze", "cut", "stall", "refuse", "delay"),
    "redis": ("kill", "stop", "freeze", "cut", "stall", "refuse", "flush"),
    "redis_streams": ("kill", "freeze", "cut", "stall", "refuse"),
    "kafka": ("freeze", "cut", "stall", "refuse", "delay"),
    "webhook": ("away", "hang", "lose_answers"),
}
"""What can happen to each service, itself or the line to it."""
REDIS_HARMS: dict[str, tuple[str, ...]] = {"redis": ("full", "replica"), "redis_streams": ("full",)}
"""Its memory is full, or it is made a replica, which takes no writes."""
LATER = 0.5
"""Share of runs that have one of these, or on a lone node one of the webhook's."""
MOST_KNOCKS = 2
"""Somebody comes with a wrong token so many times."""
KAFKA_KILLED_EVERY = 13
"""Kafka takes seconds to come back, of which a run has few: it is killed in one run of so many."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong."""

    at_s: float
    """Since the speakers began."""
    what: str
    whom: str
    """``line 3`` (of that speaker; those of the viewers and of the files come after), ``node 0``, ``mongo`` ..."""
    lasts_s: float = 0.0

    @property
    def short(self) -> str:
        return self.what if self.whom.startswith(("line", "node")) else f"{self.whom}-{self.what}"

    def __str__(self) -> str:
        lasting = f" for {self.lasts_s:.2f} s" if self.lasts_s else ""
        return f"{self.at_s:6.2f} s  {self.what} {self.whom}{lasting}"


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """One speaker."""

    interview: str
    speech: Speech
    pace: float
    """Seconds of audio sent in a second."""
    step_ms: int
    """Audio in one call of ``send``."""

    def __str__(self) -> str:
        speech = self.speech
        return (
            f"{self.interview}: {speech.seconds:.1f} s at {self.pace:.1f} times, {self.step_ms} ms a message, "
            f"{speech.rate_hz} Hz {speech.encoding}, {len(speech.channels)} channel(s)"
        )


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One uploaded recording."""

    at_s: float
    interview: str
    kind: FileKind
    speech: Speech

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} s  {self.interview}: a file, {self.kind}, {self.speech.seconds:.1f} s"


class Knock(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody tries to resume a stream of this interview with a token that is not its own (row 17)."""

    at_s: float
    interview: str

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} s  {self.interview}: a wrong token"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run."""

    seed: int
    shape: Shape
    spoken: Spoken
    voices: tuple[Voice, ...]
    faults: tuple[Fault, ...]
    files: tuple[File, ...] = ()
    knocks: tuple[Knock, ...] = ()

    @property
    def nodes(self) -> int:
        return 2 if self.shape == "pair" else 1

    @property
    def viewers(self) -> tuple[tuple[ViewerKind, str], ...]:
        """How each looks, and at which interview."""
        return ("socket", self.voices[0].interview), ("events", self.voices[-1].interview)

    @property
    def lines(self) -> int:
        """One for each speaker, one for each viewer, one for the files."""
        return len(self.voices) + len(self.viewers) + 1

    @property
    def interviews(self) -> list[str]:
        return sorted({voice.interview for voice in self.voices})

    def __str__(self) -> str:
        head = f"seed {self.seed}: {self.shape}, {self.spoken}, {len(self.voices)} speakers"
        voices = (f"  {n}  {voice}" for n, voice in enumerate(self.voices))
        return "\n".join([head, *voices, *map(str, self.files), *map(str, self.knocks), *map(str, self.faults)])


def undisturbed(plan: Plan) -> Plan:
    """The same run when nothing goes wrong."""
    return msgspec.structs.replace(plan, faults=())


def make(seed: int, shape: Shape | None = None) -> Plan:
    """The plan of a seed: even ones are one node alone, odd ones two, unless ``shape`` says otherwise."""
    shape = shape or SHAPES[seed % 2]
    chance = random.Random(f"{shape} {seed}")
    spoken: Spoken = "digits" if seed % DIGITS_EVERY == DIGITS_EVERY - 1 else "tones"
    voices = tuple(_voice(chance, seed, spoken) for _ in range(chance.randint(2, 8)))
    over_s = max(voice.speech.seconds / voice.pace for voice in voices)
    faults = _line_faults(chance, range(len(voices) + 1), over_s, rarely=shape == "pair")
    faults += _node_faults(chance, over_s, 2 if shape == "pair" else 1)
    if shape == "pair":
        faults += _service_faults(chance, seed, over_s)
    chance = random.Random(f"{shape} {seed} more")  # what was added later leaves what was there before as it is
    faults += _line_faults(chance, range(len(voices) + 1, len(voices) + 3), over_s, rarely=shape == "pair")
    faults += _rare_faults(chance, shape, over_s)
    files = (_file(chance, voices, faults, over_s),) if spoken == "tones" else ()
    chance = random.Random(f"{shape} {seed} still more")
    faults += _later_faults(chance, shape, over_s)
    knocks = tuple(
        Knock(at_s=round(chance.uniform(0.2, over_s), 2), interview=chance.choice(voices).interview)
        for _ in range(MOST_KNOCKS)
    )
    ordered = tuple(sorted(faults, key=lambda fault: fault.at_s))
    return Plan(seed=seed, shape=shape, spoken=spoken, voices=voices, faults=ordered, files=files, knocks=knocks)


def _file(chance: random.Random, voices: tuple[Voice, ...], faults: list[Fault], over_s: float) -> File:
    """Long, and mostly just before a process ends: a minute is heard in half a second."""
    rate_hz = chance.choice((16_000, 8_000))
    words = LOW_WORDS if rate_hz == 8_000 else tone.WORDS
    said = (chance.choices(words, k=chance.randint(1, 6)) for _ in range(chance.randint(15, 40)))
    track = tuple(Utterance(words=tuple(one), pause_s=round(chance.uniform(0.7, 1.5), 2)) for one in said)
    at_s = chance.uniform(0.2, over_s * 0.7)
    ends = [fault.at_s for fault in faults if fault.what in ENDS and fault.whom.startswith("node")]
    if ends and chance.random() < ENDS_SOON:
        at_s = max(0.1, chance.choice(ends) - chance.uniform(0.05, 0.7))
    return File(
        at_s=round(at_s, 2),
        interview=chance.choice(voices).interview,
        kind=chance.choice(("WAV", "FLAC")),
        speech=Speech(rate_hz=rate_hz, lead_s=1.0, channels=(track,)),
    )


def _voice(chance: random.Random, seed: int, spoken: Spoken) -> Voice:
    rate_hz = chance.choice((16_000, 16_000, 16_000, 8_000, 48_000)) if spoken == "tones" else 16_000
    words = LOW_WORDS if rate_hz == 8_000 else tone.WORDS
    tracks = 2 if spoken == "tones" and chance.random() < 0.2 else 1
    speech = Speech(
        rate_hz=rate_hz,
        encoding="pcm_f32le" if rate_hz == 48_000 else "pcm_s16le",
        lead_s=round(chance.uniform(0.5, 1.5), 2),
        channels=tuple(_track(chance, spoken, words) for _ in range(tracks)),
    )
    return Voice(
        interview=f"run-{seed}-{chance.randint(1, 2)}",
        speech=speech,
        pace=round(chance.uniform(2.0, 5.0), 1),
        step_ms=chance.choice((20, 40, 100, 100, 250)),
    )


def _track(chance: random.Random, spoken: Spoken, words: tuple[str, ...]) -> tuple[Utterance, ...]:
    length_s, most_s = 0.0, chance.uniform(9, 16)
    track: list[Utterance] = []
    while length_s < most_s:
        pause_s = round(chance.uniform(0.7, 2.2), 2)
        if spoken == "digits":
            name, said = chance.choice(recordings())
            one = Utterance(words=said, recording=name, pause_s=pause_s)
        else:
            one = Utterance(words=tuple(chance.choices(words, k=chance.randint(1, 9))), pause_s=pause_s)
        track.append(one)
        length_s += one.spoken_s + one.pause_s
    return tuple(track)


def _line_faults(chance: random.Random, lines: range, over_s: float, *, rarely: bool) -> list[Fault]:
    faults: list[Fault] = []
    for line in lines:
        for _ in range(chance.choice((0, 0, 1, 1) if rarely else (0, 1, 1, 2, 3))):
            what = chance.choice(list(LINE_HARMS))
            faults.append(_fault(chance, what, f"line {line}", over_s, LINE_HARMS[what]))
    return faults


def _node_faults(chance: random.Random, over_s: float, nodes: int) -> list[Fault]:
    """At most one of a kind; after one another, so that a node that is away is not asked for more."""
    faults: list[Fault] = []
    at_s = 0.0
    for what in chance.sample(list(NODE_HARMS), k=chance.choice((0, 1, 1, 2, 2))):
        fault = _fault(chance, what, f"node {chance.randrange(nodes)}", over_s, NODE_HARMS[what])
        faults.append(msgspec.structs.replace(fault, at_s=max(fault.at_s, round(at_s, 2))))
        at_s = faults[-1].at_s + fault.lasts_s + 0.5
    return faults


def _service_faults(chance: random.Random, seed: int, over_s: float) -> list[Fault]:
    """One service at a time twice, or several at once."""
    faults = [
        _fault(chance, chance.choice(SERVICE_HARMS[whom]), whom, over_s, AWAY)
        for whom in chance.sample(list(SERVICE_HARMS), k=chance.choice((1, 2, 2, 3)))
    ]
    if seed % KAFKA_KILLED_EVERY == 0:
        faults = [fault for fault in faults if fault.whom != "kafka"]
        faults.append(_fault(chance, "kill", "kafka", over_s, (0.0, 1.0)))
    return faults


def _rare_faults(chance: random.Random, shape: Shape, over_s: float) -> list[Fault]:
    if chance.randrange(LONE_EVERY):
        return []
    if shape == "pair":
        return [_fault(chance, "redirect", "webhook", over_s, AWAY)]
    what = chance.choice(list(LONE_HARMS))
    return [_fault(chance, what, "node 0", over_s, LONE_HARMS[what])]


def _later_faults(chance: random.Random, shape: Shape, over_s: float) -> list[Fault]:
    """A lone node's webhook; a Redis, of hints or of events, that takes no writes (row 54)."""
    whom = "webhook" if shape == "alone" else chance.choice(list(REDIS_HARMS))
    harms = SERVICE_HARMS["webhook"] if shape == "alone" else REDIS_HARMS[whom]
    return [_fault(chance, chance.choice(harms), whom, over_s, AWAY)] if chance.random() < LATER else []


def _fault(chance: random.Random, what: str, whom: str, over_s: float, lasts: tuple[float, float]) -> Fault:
    return Fault(
        at_s=round(chance.uniform(0.2, over_s), 2), what=what, whom=whom, lasts_s=round(chance.uniform(*lasts), 2)
    )
