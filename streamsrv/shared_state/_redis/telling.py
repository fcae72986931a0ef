"""What happens here, told to the nodes that want to know: interviews nobody watches elsewhere cost a look-up.

Who wants to know, Redis knows itself: it counts the subscribers of an interview's channel.  That is asked when an
interview is first spoken of and at every beat, and a node that begins to watch says so besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from streamsrv import events, telemetry
from streamsrv.events import ViewerEvent
from streamsrv.shared_state._redis.link import Away, Command, Link
from streamsrv.shared_state._redis.numbers import Numbers
from streamsrv.shared_state._redis.waiting import Event, Waiting
from streamsrv.shared_state._redis.wire import Live, Names, Word, encode

BATCH: Final = 128
"""Messages sent in one go."""
MAX_INTERVIEWS: Final = 20_000
"""Interviews spoken of that are known; beyond, the one known longest is forgotten, and asked about anew."""
IDLE_BEATS: Final = 20
"""Beats after which an interview nobody spoke of is forgotten."""
ASKED_AT_ONCE: Final = 200
"""Channels whose subscribers are counted by one command."""

log = telemetry.logger("shared_state")


class _Spoken:
    """An interview that is spoken of on this node."""

    __slots__ = ("count", "idle", "wanted")

    def __init__(self) -> None:
        self.count = 0
        """As others are told it; meaningless until it is wanted."""
        self.idle = 0
        self.wanted = False


class Telling:
    """Sends to the others.

    Args:
        run: names this process.
        own: whether this node itself is subscribed to an interview's channel; that subscriber does not count.
    """

    def __init__(self, link: Link, names: Names, numbers: Numbers, run: str, *, own: Callable[[str], bool]) -> None:
        self._link = link
        self._names = names
        self._numbers = numbers
        self._run = run
        self._own = own
        self._number = 0
        self._wants = 0
        self._spoken: dict[str, _Spoken] = {}
        self._waiting = Waiting()
        self._work = asyncio.Event()

    # --- what callers do: never waits ---------------------------------------------------------------------------

    def tell(self, interview: str, stream: str, event: ViewerEvent) -> None:
        """Something happened here."""
        spoken = self._spoken.get(interview) or self._first(interview)
        spoken.idle = 0
        if not spoken.wanted:
            return
        if isinstance(event, events.Ready):
            event = events.Ready(  # the finals of a resumed stream are in the store
                epoch=event.epoch, resume_at=event.resume_at, channels=event.channels, options=event.options
            )
        if not isinstance(event, events.Partial):
            spoken.count += 1
        self._put(Event(interview, spoken.count, stream, event))

    def word(self, word: Word) -> None:
        """Something all nodes should know."""
        self.order(("PUBLISH", self._names.nodes, encode(word)))

    def order(self, command: Command | None) -> None:
        """Have a command sent."""
        if command is None:
            return
        if self._link.well.is_set():
            self._numbers.dropped.inc(self._waiting.order(command))
            self._work.set()

    def watched(self, interview: str) -> None:
        """Another node says that it watches the interview."""
        spoken = self._spoken.get(interview)
        if spoken is not None:
            self._want(interview, spoken)

    # --- who wants to know --------------------------------------------------------------------------------------

    def questions(self) -> list[tuple[list[str], Command]]:
        """What is to be asked about the interviews spoken of: their names, and the command."""
        for interview, spoken in list(self._spoken.items()):
            spoken.idle += 1
            if spoken.idle > IDLE_BEATS:
                del self._spoken[interview]
        names = list(self._spoken)
        parts = [names[at : at + ASKED_AT_ONCE] for at in range(0, len(names), ASKED_AT_ONCE)]
        return [(part, ("PUBSUB", "NUMSUB", *map(self._names.live, part))) for part in parts]

    def answered(self, interviews: Iterable[str], answer: object) -> None:
        """How many subscribers there are, as Redis says it: name, number, name, number ..."""
        if not isinstance(answer, list):
            return
        for interview, number in zip(interviews, answer[1::2], strict=False):
            spoken = self._spoken.get(interview)
            if spoken is not None and isinstance(number, int):
                self._count(interview, spoken, number)

    def signs(self) -> None:
        """Let all who watch see that nothing is missing, or that something is."""
        for interview, spoken in self._spoken.items():
            if spoken.wanted:
                self._put(Event(interview, spoken.count, "", None))

    def _first(self, interview: str) -> _Spoken:
        if len(self._spoken) >= MAX_INTERVIEWS:
            del self._spoken[next(iter(self._spoken))]
        self._spoken[interview] = spoken = _Spoken()
        self.order(("PUBSUB", "NUMSUB", self._names.live(interview)))
        return spoken

    def _count(self, interview: str, spoken: _Spoken, receivers: int) -> None:
        if receivers > self._own(interview):
            self._want(interview, spoken)
        else:
            spoken.wanted = False

    def _want(self, interview: str, spoken: _Spoken) -> None:
        if not spoken.wanted:  # who has heard an earlier count sees by the new one that it was not told something
            spoken.wanted = True
            self._wants += 1
            spoken.count = self._wants << 32
            self._put(Event(interview, spoken.count, "", None))

    # --- sending ------------------------------------------------------------------------------------------------

    def _put(self, event: Event) -> None:
        if not self._link.well.is_set():
            self._numbers.dropped.inc()
            return
        self._numbers.dropped.inc(self._waiting.put(event))
        self._work.set()

    async def run(self) -> None:
        """Send what waits, for as long as this node lives; what cannot be sent is dropped."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                try:
                    await self._send()
                except Away:
                    pass
                except Exception as error:  # an event that cannot be written must not silence this node
                    log.error("shared_state.not_told", error=error)
                if not self._link.well.is_set():
                    self._numbers.dropped.inc(self._waiting.clear())

    async def _send(self) -> None:
        commands, told = self._waiting.take(BATCH)
        messages: list[Command] = [("PUBLISH", self._names.live(one.interview), self._message(one)) for one in told]
        try:
            answers = await self._link.run([*commands, *messages])
        except Away:
            self._numbers.dropped.inc(len(commands) + len(told))
            raise
        for command, answer in zip(commands, answers, strict=False):
            if command[:2] == ("PUBSUB", "NUMSUB"):
                self._asked(str(command[2]), answer)
        for one, answer in zip(told, answers[len(commands) :], strict=True):
            self._published(one, answer)

    def _message(self, one: Event) -> bytes:
        self._number += 1
        return encode(Live(self._run, self._number, one.count, one.stream, one.event))

    def _asked(self, channel: str, answer: object) -> None:
        interview = self._names.interview_of(channel)
        if interview is not None:
            self.answered([interview], answer)

    def _published(self, one: Event, answer: object) -> None:
        if not isinstance(answer, int):
            self._numbers.dropped.inc()
            return
        self._numbers.published.inc()
        spoken = self._spoken.get(one.interview)
        if spoken is not None:
            self._count(one.interview, spoken, answer)
