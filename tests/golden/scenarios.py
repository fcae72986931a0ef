"""The conversations that are kept as files, each a script over the session tests' world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamsrv import commands
from streamsrv.facts import Answer, ChannelStart, Mark, Outdated, Receipt
from streamsrv.session.effects import AnyEffect
from streamsrv.session.machine import Machine
from streamsrv.session.settings import MachineSettings
from tests.golden.tape import Entrance, Head, Tape
from tests.session.world import World


class TapedMachine(Machine):
    """Writes down what it is asked and what it gives."""

    calls: list[Entrance]

    def open(self) -> list[AnyEffect]:
        self.calls = []
        return self._taped(Entrance(now=100.0), super().open())

    def receive(self, command: commands.AnyCommand, now: float) -> list[AnyEffect]:
        return self._taped(Entrance(now=now, receive=command), super().receive(command, now))

    def marked(self, mark: Mark, now: float) -> list[AnyEffect]:
        return self._taped(Entrance(now=now, marked=mark), super().marked(mark, now))

    def heard(self, answer: Answer, now: float) -> list[AnyEffect]:
        return self._taped(Entrance(now=now, heard=answer), super().heard(answer, now))

    def stored(self, receipt: Receipt, now: float) -> list[AnyEffect]:
        return self._taped(Entrance(now=now, stored=receipt), super().stored(receipt, now))

    def tick(self, now: float) -> list[AnyEffect]:
        gave = super().tick(now)
        return self._taped(Entrance(now=now, tick=True), gave) if gave else gave

    def _taped(self, call: Entrance, gave: Sequence[AnyEffect]) -> list[AnyEffect]:
        self.calls.append(
            Entrance(
                now=call.now,
                receive=call.receive,
                marked=call.marked,
                heard=call.heard,
                stored=call.stored,
                tick=call.tick,
                gave=tuple(gave),
            )
        )
        return list(gave)


def _two_utterances(world: World) -> None:
    """Two utterances and a clean finish."""
    world.pass_audio(0, 0.4)
    world.speak(0, 1.2)
    world.pass_audio(0, 0.6)
    world.speak(0, 0.8)
    world.receive(commands.Finish())


def _monologue(world: World) -> None:
    """One utterance cut twice by length, then by flush, then cut off by the end."""
    world.speak(0, 2.0, cause="length")
    world.speak(0, 2.0, cause="length")
    world.pass_audio(0, 0.5)
    world.receive(commands.Flush())
    world.speak(0, 0.5, cause="length")
    world.receive(commands.Finish())


def _two_channels(world: World) -> None:
    """Interviewer and candidate on two channels, finishing in the middle of an answer."""
    world.speak(0, 1.0)
    world.speak(1, 1.5)
    world.speak(0, 0.7)
    world.speak(1, 1.0, cause="length")
    world.receive(commands.Finish())


def _cut(world: World) -> None:
    """The line is cut in mid-utterance and nobody comes back."""
    world.speak(0, 1.0, cause="length")
    world.pass_audio(0, 0.3)
    world.receive(commands.Disconnect(clean=False))
    world.wind(world.now + 61.0)


def _drain(world: World) -> None:
    """The server goes away in mid-utterance."""
    world.pass_audio(0, 0.5)
    world.speak(0, 0.9, cause="length")
    world.pass_audio(0, 2.0)
    world.receive(commands.Drain(within_s=30.0))


def _superseded(world: World) -> None:
    """A newer connection takes the stream over while a final is on its way into the store."""
    world.speak(0, 1.0)
    world.pass_audio(0, 0.2)
    world.run(world.machine.stored(Outdated(), world.now))


def _idle(world: World) -> None:
    """A speaker connects and says nothing at all."""
    world.wind(world.now + 61.0)
    world.wind(world.now + 61.0)


def _resumed(world: World) -> None:
    """A stream that was taken over goes on counting where it was."""
    world.pass_audio(0, 0.4)
    world.speak(0, 1.0)
    world.receive(commands.Finish())


_RESUMED_AT = ChannelStart(restart=19_200, kept_to=25_000, next_segment=2, next_utterance=2)

SCENARIOS: Mapping[str, tuple[Callable[[World], None], World]] = {
    "two_utterances": (_two_utterances, World(1)),
    "monologue": (_monologue, World(2)),
    "two_channels": (_two_channels, World(3, channels=2)),
    "cut": (_cut, World(4)),
    "drain": (_drain, World(5)),
    "superseded": (_superseded, World(6)),
    "idle": (_idle, World(7)),
    "resumed": (_resumed, World(8, starts=(_RESUMED_AT,))),
}


def play(name: str) -> Tape:
    """Run the scenario and give its tape."""
    script, pattern = SCENARIOS[name]
    world = World(
        pattern.seed,
        channels=pattern.channels,
        settings=MachineSettings(partial_every_s=0.3),
        starts=pattern.starts,
        make_machine=TapedMachine,
    )
    script(world)
    world.settle()
    machine = world.machine
    assert isinstance(machine, TapedMachine)
    head = Head(
        about=(script.__doc__ or "").strip(),
        settings=machine.settings,
        options=world.options,
        epoch=1,
        resume_at=0,
        starts=world.starts,
        now=100.0,
    )
    return head, machine.calls
