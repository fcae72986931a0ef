"""What the others tell, in order and each once; where something is missing, the store is to be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from streamsrv import events, telemetry
from streamsrv.shared_state._redis.link import Link, end
from streamsrv.shared_state._redis.numbers import Numbers
from streamsrv.shared_state._redis.wire import Deleted, Live, Names, Taken, Watching, Word, read_live, read_word
from streamsrv.shared_state.base import Notices

if TYPE_CHECKING:
    from redis.asyncio.client import PubSub

SUBSCRIBED_AT_ONCE: Final = 200
"""Channels subscribed to by one command."""
MAX_SOURCES: Final = 64
"""Nodes whose counts are kept for one interview; beyond, all are forgotten, which reads as a gap."""
SILENT_S: Final = 10.0
"""A connection that brings nothing for so long, not even answers to our pings, is given up."""
PAUSES_S: Final = (0.1, 0.5, 2.0, 5.0)
"""Pauses before listening is tried again; the last one repeats."""

log = telemetry.logger("shared_state")


class _Source:
    """What was heard last of one node in one interview."""

    __slots__ = ("count", "number")

    def __init__(self, live: Live) -> None:
        self.number = live.number
        self.count = live.count


class Hearing:
    """Listens to the others.

    Args:
        run: names this process, whose own messages come back to it.
        begun: told when an interview is listened to from now on.
        watched: told that another node watches an interview.
    """

    def __init__(
        self,
        link: Link,
        names: Names,
        numbers: Numbers,
        run: str,
        *,
        begun: Callable[[str], None],
        watched: Callable[[str], None],
    ) -> None:
        self.notices: Notices | None = None
        self._link = link
        self._names = names
        self._numbers = numbers
        self._run = run
        self._begun = begun
        self._watched = watched
        self._wanted: dict[str, dict[str, _Source]] = {}  # as many as there are interviews watched here
        self._subscribed: set[str] = set()
        self._change = asyncio.Event()
        self._confirmed: set[str] = set()
        self._failures = 0
        self._given_up = asyncio.Event()
        self._pubsub: PubSub | None = None
        self._last_heard = 0.0

    def watch(self, interview: str) -> None:
        self._wanted.setdefault(interview, {})
        self._change.set()

    def unwatch(self, interview: str) -> None:
        self._wanted.pop(interview, None)
        self._change.set()

    def listens(self, interview: str) -> bool:
        """Whether this node is subscribed to the interview's channel."""
        return interview in self._confirmed

    # --- the connection -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen for as long as this node lives."""
        while True:
            await self._link.well.wait()
            try:
                await self._session()
            except Exception as error:  # whatever it is, a node that hears nothing is no use
                self._failures += 1
                if self._failures == 1 and self._link.well.is_set():
                    note = "viewers here follow other nodes by the store alone"
                    log.warning("shared_state.deaf", error=error, note=note)
            await asyncio.sleep(PAUSES_S[min(self._failures, len(PAUSES_S) - 1)])

    async def _session(self) -> None:
        pubsub = self._link.pubsub()
        self._subscribed = set()
        try:
            await pubsub.subscribe(self._names.to(self._run), self._names.nodes)
            self._pubsub, self._last_heard = pubsub, asyncio.get_running_loop().time()
            self._given_up.clear()
            self._change.set()
            ends = (self._link.lost.wait(), self._given_up.wait())
            await _first_of(self._read(pubsub), self._subscribe(pubsub), *ends)
        finally:
            self._pubsub = None
            self._confirmed.clear()
            self._link.deaf = True
            self._link.show()
            for sources in self._wanted.values():
                sources.clear()
            with suppress(*self._link.failures):
                async with asyncio.timeout(self._link.timeout_s):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def ping(self) -> None:
        """Have the connection say something; one that has been silent in spite of that is given up."""
        if self._pubsub is None:
            return
        if asyncio.get_running_loop().time() - self._last_heard > SILENT_S:
            self._given_up.set()
        try:
            with suppress(*self._link.failures):  # a connection that is gone ends the session by itself
                async with asyncio.timeout(self._link.timeout_s):
                    await self._pubsub.ping()
        except Exception as error:  # an AttributeError when it goes in just this moment; the beat must go on
            log.debug("shared_state.no_ping", error=error)
            self._given_up.set()

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Keep the subscriptions as they are wanted."""
        while True:
            await self._change.wait()
            self._change.clear()
            missing = [name for name in self._wanted if name not in self._subscribed]
            surplus = [name for name in self._subscribed if name not in self._wanted]
            for at in range(0, len(missing), SUBSCRIBED_AT_ONCE):
                part = missing[at : at + SUBSCRIBED_AT_ONCE]
                self._subscribed.update(part)
                await pubsub.subscribe(*map(self._names.live, part))
            for at in range(0, len(surplus), SUBSCRIBED_AT_ONCE):
                part = surplus[at : at + SUBSCRIBED_AT_ONCE]
                self._subscribed.difference_update(part)
                self._confirmed.difference_update(part)
                await pubsub.unsubscribe(*map(self._names.live, part))

    async def _read(self, pubsub: PubSub) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await pubsub.get_message(timeout=None)
            self._last_heard = loop.time()
            if message is not None:
                self._take(message)

    # --- what comes ---------------------------------------------------------------------------------------------

    def _take(self, message: Mapping[str, object]) -> None:
        kind, channel, data = message["type"], message["channel"], message["data"]
        if not isinstance(channel, bytes):
            return
        name = channel.decode("utf-8", "replace")
        interview = self._names.interview_of(name)
        if kind == "subscribe":
            self._subscription(interview)
        elif kind == "message" and isinstance(data, bytes):
            self._numbers.received.inc()
            if interview is not None:
                self._live(interview, read_live(data))
            else:
                self._word(read_word(data))

    def _subscription(self, interview: str | None) -> None:
        if interview is None:
            self._failures, self._link.deaf = 0, False
            self._link.show()
        elif interview in self._wanted:
            self._confirmed.add(interview)
            self._begun(interview)
            self._missed(interview)

    def _live(self, interview: str, live: Live | None) -> None:
        sources = self._wanted.get(interview)
        if live is None:
            self._numbers.unreadable.inc()
        elif sources is not None and live.node != self._run and self.notices is not None:
            source = sources.get(live.node)
            if source is not None and live.number <= source.number:
                return  # late, or twice
            counted = live.event is not None and not isinstance(live.event, events.Partial)
            if source is None or live.count != source.count + counted:
                self._numbers.missed.inc(source is not None)
                self._missed(interview)
            if source is None and len(sources) >= MAX_SOURCES:
                sources.clear()
            sources[live.node] = _Source(live)
            if live.event is not None:
                self.notices.told(interview, live.stream, live.event)

    def _word(self, word: Word | None) -> None:
        if word is None:
            self._numbers.unreadable.inc()
        elif word.node != self._run and self.notices is not None:
            match word:
                case Watching(interview=interview):
                    self._watched(interview)
                case Taken(interview=interview, stream=stream, epoch=epoch):
                    self.notices.taken(interview, stream, epoch, word.node)
                case Deleted(interview=interview):
                    self.notices.deleted(interview)

    def _missed(self, interview: str) -> None:
        if self.notices is not None:
            self.notices.missed(interview)


async def _first_of(*works: Awaitable[object]) -> None:
    """Work on all until one ends; the others are cancelled, and its failure is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
        # One connection often breaks under several of them: whoever fails last must be looked at too.
        failures = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for failure in failures:
        if failure is not None:
            raise failure
