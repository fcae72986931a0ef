"""A world for one machine: a front that marks, an engine that answers late and out of order, a store that takes time.

Everything is decided by one seeded random source and a clock wound by hand, so a failure can be replayed by its seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamsrv import commands, events
from streamsrv.commands import Options
from streamsrv.facts import (
    RATE_HZ,
    Advanced,
    Answer,
    ChannelStart,
    CutMade,
    FinalKept,
    ProgressKept,
    Settled,
    SpeechBegan,
    SpeechEnded,
    Word,
)
from streamsrv.session.effects import AnyEffect, Close, Cut, Hear, Hold, Keep, Leave, Note, Release, Say, Settle
from streamsrv.session.machine import Machine
from streamsrv.session.settings import MachineSettings

WORD = RATE_HZ // 4
"""A word each quarter of a second."""
VOCABULARY = ("red", "green", "blue", "white", "black", "gold")


def spoken(position: int) -> str:
    """The word truly spoken at a position."""
    return VOCABULARY[(position // WORD * 7919) % len(VOCABULARY)] + str(position // WORD)


@dataclass
class World:
    """Runs one machine.  ``unsteady``: share of words a partial hypothesis gets wrong."""

    seed: int
    channels: int = 1
    unsteady: float = 0.2
    settings: MachineSettings = field(default_factory=lambda: MachineSettings(partial_every_s=0.3))
    starts: tuple[ChannelStart, ...] = ()
    mute: bool = False
    """The engine never answers by itself."""
    make_machine: type[Machine] = Machine

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 100.0
        self.options = Options(channels=self.channels, multichannel=True)
        self.starts = self.starts or (ChannelStart(),) * self.channels
        self.machine = self.make_machine(
            self.settings, options=self.options, epoch=1, resume_at=0, starts=self.starts, now=self.now
        )
        self.said: list[events.AnyEvent] = []
        self.effects: list[AnyEffect] = []
        self.kept: list[events.Final] = []
        self.noted: list[tuple[int, ...]] = []
        self.released = [0] * self.channels
        self.held = [0] * self.channels
        self.closed: int | None = None
        self.left = False
        self.open: dict[int, int] = {}
        self.position = [start.restart for start in self.starts]
        self._later: list[tuple[float, int, Callable[[], Sequence[AnyEffect]]]] = []
        self._count = 0
        self._store_free_at = 0.0
        self.run(self.machine.open())

    # --- time ---------------------------------------------------------------------------------------------------

    def after(self, delay: float, what: Callable[[], Sequence[AnyEffect]]) -> None:
        self._count += 1
        heapq.heappush(self._later, (self.now + delay, self._count, what))

    def wind(self, until: float) -> None:
        while self._later and self._later[0][0] <= until:
            self.now, _, what = heapq.heappop(self._later)
            self.run(what())
        self.now = until
        self.run(self.machine.tick(self.now))

    def settle(self) -> None:
        while self._later:
            self.wind(self._later[0][0])

    # --- effects ------------------------------------------------------------------------------------------------

    def run(self, effects: Sequence[AnyEffect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            self._carry_out(effect)

    def _carry_out(self, effect: AnyEffect) -> None:
        match effect:
            case Say(event=event):
                assert not self.left, "said after leaving"
                self.said.append(event)
            case Hear() as question if not self.mute:
                self.after(self.random.uniform(0.01, 0.8), lambda: self._answer(question))
            case Keep(final=final):
                self._store(lambda: self._keep(final))
            case Note(restarts=restarts):
                self._store(lambda: self._note(restarts))
            case Settle():
                self._store(lambda: self.machine.stored(Settled(), self.now))
            case Release(channel=channel, position=position):
                self.released[channel] = position
            case Hold(channel=channel, earliest=earliest):
                self.held[channel] = earliest
            case Cut(cause=cause, channels=channels):
                self.cut(cause, channels if cause == "part" else tuple(self.open))
            case Close(code=code):
                self.closed = code
            case Leave():
                self.left = True

    def _store(self, what: Callable[[], Sequence[AnyEffect]]) -> None:
        """In order, each write in its own time."""
        self._store_free_at = max(self._store_free_at, self.now) + self.random.uniform(0.0, 0.3)
        self.after(self._store_free_at - self.now, what)

    def _keep(self, final: events.Final) -> Sequence[AnyEffect]:
        self.kept.append(final)
        return self.machine.stored(FinalKept(channel=final.channel, segment=final.segment), self.now)

    def _note(self, restarts: tuple[int, ...]) -> Sequence[AnyEffect]:
        self.noted.append(restarts)
        return self.machine.stored(ProgressKept(restarts=restarts), self.now)

    def _answer(self, question: Hear) -> Sequence[AnyEffect]:
        words = []
        for at in range(question.start, question.stop - WORD + 1, WORD):
            text = spoken(at)
            if not question.final and self.random.random() < self.unsteady:
                text = self.random.choice(VOCABULARY)
            words.append(Word(text=text, start=at, stop=at + WORD, confidence=0.5))
        return self.machine.heard(
            Answer(request=question.request, words=tuple(words), language="en", engine="scripted"), self.now
        )

    # --- the front ----------------------------------------------------------------------------------------------

    def receive(self, command: commands.AnyCommand) -> None:
        self.run(self.machine.receive(command, self.now))

    def pass_audio(self, channel: int, seconds: float) -> None:
        """Audio arrives at real-time pace, in steps of 100 ms."""
        self.receive(commands.Audio(data=b""))
        for _ in range(round(seconds * 10)):
            self.wind(self.now + 0.1)
            self.machine.last_heard = self.now
            self.position[channel] += RATE_HZ // 10
            restart = min([self.position[channel] - 8_000, *([self.open[channel]] if channel in self.open else [])])
            self.run(
                self.machine.marked(
                    Advanced(
                        channel=channel, position=self.position[channel], restart=max(0, restart // 1_920 * 1_920)
                    ),
                    self.now,
                )
            )

    def speak(self, channel: int, seconds: float, *, cause: str = "vad") -> None:
        """One utterance; ``cause="length"`` leaves its next segment open."""
        if channel not in self.open:
            self.open[channel] = self.position[channel]
            self.run(
                self.machine.marked(
                    SpeechBegan(channel=channel, start=self.position[channel], position=self.position[channel]),
                    self.now,
                )
            )
        self.pass_audio(channel, seconds)
        self._end(channel, cause)

    def _end(self, channel: int, cause: str) -> None:
        if channel not in self.open:  # the stream ended meanwhile, and its tail was cut
            return
        over = cause != "length"
        stop = self.position[channel]
        mark = SpeechEnded(
            channel=channel,
            stop=stop,
            speech_stop=stop,
            speech_at=self.now,
            cause=cause,  # type: ignore[arg-type]
            over=over,
            position=stop,
        )
        if over:
            del self.open[channel]
        else:
            self.open[channel] = stop
        self.run(self.machine.marked(mark, self.now))

    def cut(self, cause: str, channels: Sequence[int]) -> None:
        for channel in channels:
            self._end(channel, "flush" if cause == "part" else cause)
        self.run(self.machine.marked(CutMade(cause=cause, position=max(self.position)), self.now))  # type: ignore[arg-type]

    # --- what came of it ----------------------------------------------------------------------------------------

    def of(self, kind: type[events.AnyEvent]) -> list[events.AnyEvent]:
        return [event for event in self.said if isinstance(event, kind)]

    @property
    def finals(self) -> list[events.Final]:
        return [event for event in self.said if isinstance(event, events.Final)]

    @property
    def acks(self) -> list[int]:
        return [event.position for event in self.said if isinstance(event, events.Ack)]


@dataclass
class Waiting(World):
    """A world whose engine lets questions wait, and hears their newest form when their turn comes."""

    waits_s: tuple[float, float] = (0.0, 0.3)
    takes_s: tuple[float, float] = (0.01, 0.3)
    spans: list[Hear] = field(default_factory=list)

    def _carry_out(self, effect: AnyEffect) -> None:
        if isinstance(effect, Hear):
            self.after(self.random.uniform(*self.waits_s), lambda: self._pick(effect))
            return
        super()._carry_out(effect)

    def _pick(self, question: Hear) -> Sequence[AnyEffect]:
        newest = self.machine.picked(question.request, self.now)
        if newest is not None:
            self.spans.append(newest)
            self.after(self.random.uniform(*self.takes_s), lambda: self._answer(newest))
        return ()
