"""A run before it is run: who says what, and what goes wrong when.  Pure: the same seed gives the same plan."""

from __future__ import annotations

import math
import random

import msgspec

from tests.adversity.runs.odds import (
    AWAY,
    CLOCK_HARMS,
    CONSUMERS,
    DIGITS_EVERY,
    DISK_HARMS,
    ENDS,
    ENDS_SOON,
    KAFKA_KILLED_EVERY,
    LATER,
    LEAVES_FOR,
    LEAVES_FOR_GOOD,
    LINE_HARMS,
    LONE_EVERY,
    LONE_HARMS,
    MOST_KNOCKS,
    MOST_VOICES,
    NODE_HARMS,
    OVER_BY_S,
    REDIS_HARMS,
    RIVALS,
    SELDOM_EVERY,
    SERVICE_HARMS,
    SHAPES,
    SPOKEN_WITHIN_S,
    STRICT_EVERY,
    TAKES_S,
    WAYS,
    FileKind,
    Shape,
    Spoken,
    ViewerKind,
)
from tests.adversity.runs.speech import LOW_WORDS, Speech, Utterance, recordings
from tests.models import tone

FIRST_S = 0.2
"""Faults begin no sooner."""
BEGUN_S = 0.5
"""Those that begin sooner than they were drawn do not before this: by then speakers speak."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong."""

    at_s: float
    """Since the speakers began."""
    what: str
    whom: str
    """``line 3`` (of that speaker; those of the viewers and of the files come after), ``way 0`` (from the balancer to
    that node), ``node 0``, ``speaker 3``, ``consumer kafka``, ``mongo`` ..."""
    lasts_s: float = 0.0

    @property
    def place(self) -> str:
        """Faults in one place come after one another; nodes are one."""
        return "node" if self.whom.startswith("node") else self.whom

    @property
    def takes_s(self) -> float:
        """Beside the time that it lasts."""
        return TAKES_S.get(self.short, TAKES_S.get(self.what, 0.0))

    @property
    def short(self) -> str:
        return self.what if self.whom.startswith(("line", "node")) else f"{self.whom}-{self.what}".replace(" ", "-")

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
    foreign: bool = False
    """It is one of a stream of another interview, if there is any by then."""

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} s  {self.interview}: {'a foreign' if self.foreign else 'a wrong'} token"


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody says something, goes away, and comes back with the token, perhaps too late (row 19)."""

    at_s: float
    interview: str
    away_s: float
    speech: Speech

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} s  {self.interview}: speaks, is away for {self.away_s:.2f} s, and comes back"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run."""

    seed: int
    shape: Shape
    spoken: Spoken
    voices: tuple[Voice, ...]
    faults: tuple[Fault, ...]
    files: tuple[File, ...] = ()
    knocks: tuple[Knock, ...] = ()
    leaves: tuple[Leave, ...] = ()
    strict: bool = False
    """Nodes run as strict hosts run them."""

    @property
    def consumer(self) -> str:
        """The sink that somebody reads while the run lasts, if anybody does."""
        return next((fault.whom.split()[1] for fault in self.faults if fault.whom.startswith("consumer")), "")

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
        head += ", strict" if self.strict else ""
        voices = (f"  {n}  {voice}" for n, voice in enumerate(self.voices))
        rest = (*self.files, *self.knocks, *self.leaves, *self.faults)
        return "\n".join([head, *voices, *map(str, rest)])


def undisturbed(plan: Plan) -> Plan:
    """The same run when nothing goes wrong."""
    return msgspec.structs.replace(plan, faults=(), leaves=(), strict=False)


def make(seed: int, shape: Shape | None = None) -> Plan:
    """The plan of a seed: even ones are one node alone, odd ones two, unless ``shape`` says otherwise."""
    shape = shape or SHAPES[seed % 2]
    chance = random.Random(f"{shape} {seed}")
    spoken: Spoken = "digits" if seed % DIGITS_EVERY == DIGITS_EVERY - 1 else "tones"
    voices = tuple(_voice(chance, seed, spoken) for _ in range(chance.randint(2, MOST_VOICES)))
    over_s = max(voice.speech.seconds / voice.pace for voice in voices)
    faults = _line_faults(chance, range(len(voices) + 1), over_s, rarely=shape == "pair")
    faults += _node_faults(chance, over_s, 2 if shape == "pair" else 1)
    if shape == "pair":
        faults += _service_faults(chance, seed, over_s)
    more = random.Random(f"{shape} {seed} more")  # what was added later leaves what was there before as it is
    faults += _line_faults(more, range(len(voices) + 1, len(voices) + 3), over_s, rarely=shape == "pair")
    faults += _rare_faults(more, shape, over_s)
    chance = random.Random(f"{shape} {seed} still more")
    faults += _later_faults(chance, shape, over_s)
    knocks = tuple(
        Knock(
            at_s=round(chance.uniform(0.2, over_s), 2),
            interview=chance.choice(voices).interview,
            foreign=number % 2 == 1,
        )
        for number in range(MOST_KNOCKS)
    )
    chance = random.Random(f"{shape} {seed} and more")
    faults = _in_time([*faults, *_newer_faults(chance, shape, len(voices), over_s)])
    return Plan(
        seed=seed,
        shape=shape,
        spoken=spoken,
        voices=voices,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        files=(_file(more, voices, faults, over_s),) if spoken == "tones" else (),
        knocks=knocks,
        leaves=_leaves(chance, shape, voices) if spoken == "tones" else (),
        strict=random.Random(f"{shape} {seed} strict").randrange(STRICT_EVERY) == 0,
    )


def _file(chance: random.Random, voices: tuple[Voice, ...], faults: list[Fault], over_s: float) -> File:
    """Long, and mostly just before a process ends: a minute is heard in half a second, in three while all else runs."""
    rate_hz = chance.choice((16_000, 8_000))
    words = LOW_WORDS if rate_hz == 8_000 else tone.WORDS
    said = (chance.choices(words, k=chance.randint(1, 6)) for _ in range(chance.randint(12, 24)))
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
        pace=round(max(chance.uniform(1.0, 2.4), speech.seconds / SPOKEN_WITHIN_S), 2),
        step_ms=chance.choice((20, 40, 100, 100, 250)),
    )


def _track(chance: random.Random, spoken: Spoken, words: tuple[str, ...]) -> tuple[Utterance, ...]:
    length_s, most_s = 0.0, chance.uniform(4.5, 8.5)
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
        _outage(chance, chance.choice(SERVICE_HARMS[whom]), whom, over_s)
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
        return [_outage(chance, "redirect", "webhook", over_s)]
    what = chance.choice(list(LONE_HARMS))
    return [_fault(chance, what, "node 0", over_s, LONE_HARMS[what])]


def _later_faults(chance: random.Random, shape: Shape, over_s: float) -> list[Fault]:
    """A lone node's webhook; a Redis, of hints or of events, that takes no writes (row 54)."""
    whom = "webhook" if shape == "alone" else chance.choice(list(REDIS_HARMS))
    harms = SERVICE_HARMS["webhook"] if shape == "alone" else REDIS_HARMS[whom]
    return [_outage(chance, chance.choice(harms), whom, over_s)] if chance.random() < LATER else []


def _newer_faults(chance: random.Random, shape: Shape, voices: int, over_s: float) -> list[Fault]:
    """Full disks beside the data, clocks, rivals; and between two nodes and what stands around, lines and readers."""

    def seldom() -> bool:
        return not chance.randrange(SELDOM_EVERY)

    faults: list[Fault] = []
    node = f"node {chance.randrange(2 if shape == 'pair' else 1)}"
    for harms in (DISK_HARMS, CLOCK_HARMS):
        if seldom():
            what = chance.choice(list(harms))
            faults.append(_fault(chance, what, node, over_s, harms[what]))
    if seldom():
        what = chance.choice(list(RIVALS))
        faults.append(_fault(chance, what, f"speaker {chance.randrange(voices)}", over_s * 0.8, (0.1, 1.0)))
    if shape == "pair":
        for _ in range(chance.choice(WAYS)):
            what = chance.choice(list(LINE_HARMS))
            faults.append(_fault(chance, what, f"way {chance.randrange(2)}", over_s, LINE_HARMS[what]))
        if seldom():
            sink = chance.choice(list(CONSUMERS))
            dies = range(chance.randint(1, 2))
            faults += [_fault(chance, CONSUMERS[sink], f"consumer {sink}", over_s, (0, 0)) for _ in dies]
    return faults


def _leaves(chance: random.Random, shape: Shape, voices: tuple[Voice, ...]) -> tuple[Leave, ...]:
    """Not where eight speak: an interview holds no ninth."""
    if chance.randrange(SELDOM_EVERY) or len(voices) == MOST_VOICES:
        return ()
    said = Utterance(words=tuple(chance.choices(tone.WORDS, k=chance.randint(2, 4))), pause_s=1.0)
    away = LEAVES_FOR_GOOD if shape == "alone" and chance.random() < 0.5 else LEAVES_FOR
    leave = Leave(
        at_s=round(chance.uniform(0.1, 0.6), 2),
        interview=chance.choice(voices).interview,
        away_s=round(chance.uniform(*away), 2),
        speech=Speech(rate_hz=tone.RATE_HZ, lead_s=0.5, channels=((said,),)),
    )
    return (leave,)


def _in_time(faults: list[Fault]) -> list[Fault]:
    """Those of each place where they come after one another so that all are over in time; others as they are."""
    placed: list[Fault] = []
    for place in sorted({fault.place for fault in faults}):
        some = sorted((fault for fault in faults if fault.place == place), key=lambda fault: fault.at_s)
        if place.startswith(("line", "way", "speaker", "consumer")):
            placed += some
            continue
        extra_s = sum(fault.takes_s for fault in some)
        lasting_s = sum(fault.lasts_s for fault in some)
        share = min(1.0, max(0.0, OVER_BY_S - BEGUN_S - extra_s) / lasting_s) if lasting_s else 1.0
        end_s = OVER_BY_S
        for fault in reversed(some):
            lasts_s = math.floor(fault.lasts_s * share * 100) / 100
            at_s = min(fault.at_s, end_s - lasts_s - fault.takes_s)
            end_s = round(max(at_s, min(fault.at_s, BEGUN_S)), 2)
            placed.append(msgspec.structs.replace(fault, at_s=end_s, lasts_s=lasts_s))
    return placed


def _outage(chance: random.Random, what: str, whom: str, over_s: float) -> Fault:
    least, most = AWAY
    lasts_s = least + (most - least) * chance.random() ** 2
    return _fault(chance, what, whom, max(0.5, min(over_s, OVER_BY_S - lasts_s)), (lasts_s, lasts_s))


def _fault(chance: random.Random, what: str, whom: str, over_s: float, lasts: tuple[float, float]) -> Fault:
    return Fault(
        at_s=round(chance.uniform(FIRST_S, over_s), 2), what=what, whom=whom, lasts_s=round(chance.uniform(*lasts), 2)
    )
