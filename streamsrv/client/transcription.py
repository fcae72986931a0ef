"""A stream of speech that outlives its connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Self

import msgspec
from yarl import URL

from streamsrv.client.address import query, stream_url
from streamsrv.client.clock import SystemTime, Time
from streamsrv.client.inbox import Inbox
from streamsrv.client.link import AUDIO_BYTES, BROKEN, Link, open_link
from streamsrv.client.messages import Ack, AnyMessage, Closed, Final, Ready, Reconnecting
from streamsrv.client.nodes import Nodes
from streamsrv.client.pauses import Pauses
from streamsrv.client.progress import Delivered
from streamsrv.client.refusals import SUPERSEDED, Cut, GaveUp, Misused, Refused, Unreachable
from streamsrv.client.supply import Supply
from streamsrv.commands import Options

BACKLOG_S = 120.0
"""Audio kept while it is not acknowledged; ``send`` waits when it is full, nothing is dropped."""
LEAST_BACKLOG_S = 30.0
"""Less could not hold the longest segment (20 s) and its surroundings: the server could never acknowledge."""
GIVE_UP_S = 300.0
KEEPALIVE_S = 20.0
QUIET_S = 15.0
"""A server that was silent for so long gets a ping."""
STALLED_S = 40.0
"""A server that was silent for so long, pings too, is taken for gone: well before the 60 s are over for which one that
was killed and started again waits for its speakers."""
TICK_S = 5.0
STEADY_S = 10.0
"""A connection that lasted so long has worked, even if there was nothing to tell."""


class Transcription:
    """One speaker's stream: audio in, events out, across cut connections and restarted servers.

    ::

        async with Transcription("ws://localhost:3004", "interview-7", Options(sample_rate=8000)) as stream:
            reading = asyncio.create_task(show(stream))       # async for event in stream.events(): ...
            async for block in microphone():
                await stream.send(block)
            await stream.finish()

    ``events`` must be read while audio is sent: a reader that stops holds up the server in the end.

    Args:
        url: of the server, ``ws://``, ``wss://``, ``http://`` or ``https://``, with a path prefix where there is one.
            Or several, which share a store: the next one is asked when one goes away, is full or does not answer.
        interview: whose transcript it becomes part of.
        options: encoding, rate, channels, language and so on; what is at its default is left to the server.
        api_key: for servers that want one.
        backlog_s: seconds of audio kept until acknowledged, at least 30.
        give_up_s: seconds without a working connection after which the stream fails with ``GaveUp``.
        time: clock and alarm; the system's when omitted.
        chance: a number from 0.0 to 1.0, for the pauses between attempts.

    Raises (from entering, ``send``, ``events`` and ``finish`` alike):
        Refused: the server said no: ``status``, ``code``, ``message``, ``hint``.
        Unreachable: only on entering: no first connection came about.
        GaveUp: a lost connection did not come back.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        interview: str,
        options: Options = Options(),  # noqa: B008 - frozen
        *,
        api_key: str | None = None,
        backlog_s: float = BACKLOG_S,
        give_up_s: float = GIVE_UP_S,
        time: Time | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if backlog_s < LEAST_BACKLOG_S:
            raise Misused(f"backlog_s is {backlog_s:g}", hint=f"give at least {LEAST_BACKLOG_S:g} s")
        self._nodes = Nodes([stream_url(one, interview) for one in ((url,) if isinstance(url, str) else url)])
        self._options = options
        self._api_key, self._give_up_s = api_key, give_up_s
        self._time = time or SystemTime()
        self._supply = Supply(options, backlog_s)
        self._pauses = Pauses(chance)
        self._delivered = Delivered()
        self._inbox = Inbox()
        self._work, self._room, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._lost_at: float | None = None
        self._strays = 0
        self._error: Exception | None = None
        self._closed: Closed | None = None
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None

    # --- what a speaker does ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._link = link = await self._begin()
        self._task = asyncio.create_task(self._live(link))
        return self

    async def _begin(self) -> Link:
        """The first connection: each server is asked once."""
        while True:
            try:
                return await open_link(self._url(), self._api_key, self._time)
            except (Cut, Unreachable, Refused) as failure:
                refusal = failure.as_refused() if isinstance(failure, Cut) else failure
                if not refusal.retryable or not self._nodes.turn():
                    raise refusal from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the stream as ``finish`` does; after an exception in the block, without waiting for the answers."""
        try:
            if kind is None:
                await self.finish()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        if self._task is not None and self._link is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._link.close()  # a task that was never begun has not done it
        self._end()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Give audio in the stream's encoding, any number of bytes; waits while the backlog is full."""
        if self._supply.finishing:
            raise Misused("audio was sent after 'finish'", hint="begin a new stream")
        rest = memoryview(data).cast("B")
        while rest:
            self._raise_if_over()
            rest = rest[self._supply.append(rest) :]
            self._work.set()
            # A caller in a tight loop must not keep the connection from its work.
            await asyncio.sleep(0)
            if rest:
                await self._until_room()

    async def flush(self) -> None:
        """Ask for the finals of what was given so far; the answer is an ``Ack`` with ``flushed``."""
        self._raise_if_over()
        while not self._supply.flush():
            await self._until_room()
            self._raise_if_over()
        self._work.set()

    async def finish(self) -> Closed:
        """End the stream: everything given is transcribed and stored when this returns."""
        self._supply.finishing = True
        self._work.set()
        await self._over.wait()
        if self._error is not None:
            raise self._error
        if self._closed is None:
            raise Misused("the stream was left before it ended", hint="call finish() inside 'async with'")
        return self._closed

    async def events(self) -> AsyncIterator[AnyMessage]:
        """What the server says, and ``Reconnecting``, until the stream has ended.  For one reader.

        Each final comes once, also when it was stored while the connection was away.  Partials and acks that the reader
        was too slow for are replaced by newer ones.
        """
        while (event := await self._inbox.get()) is not None:
            yield event

    @property
    def ready(self) -> Ready | None:
        """What the server said when the connection there is, or was last, began."""
        return self._link.ready if self._link else None

    @property
    def unacknowledged_s(self) -> float:
        """Seconds of audio that are not known to be stored."""
        return self._supply.unacknowledged_s

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error
        if self._over.is_set() or self._task is None:
            raise Misused("the stream is not open", hint="use it inside 'async with', before it ends")

    async def _until_room(self) -> None:
        self._room.clear()
        if not self._over.is_set() and not self._supply.forget():
            await self._room.wait()

    # --- the life of the stream, over all its connections -------------------------------------------------------

    async def _live(self, link: Link) -> None:
        try:
            there: Link | None = link
            while there is not None and (cut := await self._serve(there)) is not None:
                there = await self._come_back(cut, going=there.leave_at is not None)
        except Exception as error:
            # Whatever it is belongs to whoever uses the stream; there is nobody else to tell.
            self._error = error
        finally:
            self._end()

    def _end(self) -> None:
        self._inbox.end(self._error)
        for waiting in (self._over, self._room):
            waiting.set()

    async def _serve(self, link: Link) -> Cut | None:
        """Use one connection to its end; ``None`` when that was the stream's end too."""
        self._link = link
        self._nodes.works()
        helpers: list[asyncio.Task[None]] = []
        try:
            self._supply.begin(link.ready)
            helpers = [asyncio.create_task(_guarded(link, work)) for work in (self._speak, self._watch)]
            cut = await self._listen(link)
        finally:
            for helper in helpers:
                helper.cancel()
            outcomes = await asyncio.gather(*helpers, return_exceptions=True)
            await link.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        if self._time.now() - link.opened_at >= STEADY_S:
            self._works()
        return cut

    def _works(self) -> None:
        """Something came forward: the next cut begins a new count of attempts.

        Only stored words and moved acks say so.  A server that takes the connection and dies of the same audio each
        time must meet growing pauses.
        """
        self._lost_at = None
        self._pauses.reset()

    async def _listen(self, link: Link) -> Cut | None:
        ended = False
        try:
            await self._tell(link.ready)
            while True:
                event = await link.receive()
                await self._tell(event)
                if isinstance(event, Closed):
                    ended = True
                    if link.farewell(event):
                        self._closed = event
                        return None
        except Cut as cut:
            refusal = cut.as_refused() if ended else self._refusal(cut)
            if refusal is not None:
                raise refusal from None
            return cut

    async def _tell(self, event: AnyMessage) -> None:
        """Act on an event, then hand it to the reader."""
        match event:
            case Ready():
                await self._inbox.put(event)
                for final in event.finals:
                    await self._deliver(msgspec.structs.replace(final, session=event.session, stream=event.stream))
                return
            case Final():
                await self._deliver(event)
            case Ack():
                if self._supply.acknowledge(event):
                    self._works()
                await self._inbox.put(event)
            case _:
                await self._inbox.put(event)
        self._supply.note(event)
        if self._supply.forget() or isinstance(event, Ack):
            self._room.set()

    async def _deliver(self, final: Final) -> None:
        if self._delivered.fresh(final.stream, final):
            self._works()
            await self._inbox.put(final)

    async def _come_back(self, cut: Cut, *, going: bool) -> Link | None:
        """Try until there is a connection again; ``None`` when the stream has ended well meanwhile."""
        if self._lost_at is None:
            self._lost_at = self._time.now()
        why, at_least_s = cut.why, 0.0 if self._nodes.lost(cut, going=going) else cut.retry_after_s
        while True:
            await self._pause(why, at_least_s)
            try:
                return await open_link(self._url(), self._api_key, self._time)
            except Cut as again:
                if refusal := self._refusal(again):
                    raise refusal from None
                why, at_least_s = again.why, again.retry_after_s
            except Unreachable as failure:
                self._strays += failure.asked
                why, at_least_s = failure.message, 0.0
            except Refused as failure:
                if not failure.retryable and not (failure.code == "superseded" and self._stray()):
                    await self._late(failure)
                    return None
                why, at_least_s = failure.message, failure.retry_after_s or 0.0
            if self._nodes.turn():  # what one server asks for does not hold for the next
                at_least_s = 0.0

    async def _late(self, failure: Refused) -> None:
        """The stream has ended while the connection was away: well, when ``finish`` was heard and all before it.

        Raises:
            Refused: it did not, or that is not known; the finals it has were delivered.
        """
        ended, ready = failure.ended, self.ready
        if ended is None or ready is None:
            raise failure
        for final in ended.finals:
            await self._deliver(msgspec.structs.replace(final, stream=ready.stream))
        if ended.samples is None or not self._supply.heard_all(ended.samples):
            raise failure
        self._closed = Closed(stream=ready.stream, audio_ms=ended.audio_ms or 0, finals=ended.count)
        await self._inbox.put(self._closed)

    def _refusal(self, cut: Cut) -> Refused | None:
        """The reason not to come back, if there is one."""
        return None if cut.code == SUPERSEDED and self._stray() else cut.refusal()

    def _stray(self) -> bool:
        """Whether the stream may have been taken by an attempt of our own, given up and still under way: a slow network
        delivers it late, and the server takes it for the newest.  Each can do so once."""
        self._strays, strays = max(0, self._strays - 1), self._strays
        return strays > 0

    async def _pause(self, why: str, at_least_s: float) -> None:
        pause_s = self._pauses.next_s(at_least_s)
        if self._lost_at is not None and self._time.now() + pause_s - self._lost_at > self._give_up_s:
            raise GaveUp(
                f"the connection did not come back within {self._give_up_s:g} s ({why}); "
                f"{self.unacknowledged_s:.1f} s of audio are not acknowledged"
            )
        attempt = self._pauses.attempt
        await self._inbox.put(
            Reconnecting(attempt=attempt, pause_s=pause_s, why=why, unacknowledged_s=self.unacknowledged_s)
        )
        await self._time.sleep(pause_s)

    # --- the tasks beside the listener --------------------------------------------------------------------------

    async def _speak(self, link: Link) -> None:
        """Send what was given, from the cursor on, each flush at its place, at last ``finish``."""
        most = min(AUDIO_BYTES, link.ready.limits.binary_bytes)
        while True:
            self._work.clear()
            match self._supply.take(most):
                case None:
                    await self._work.wait()
                case bytes(audio):
                    await link.send_audio(audio)
                case command:
                    await link.send_command(command)

    async def _watch(self, link: Link) -> None:
        """Show the server that we are here, and find out whether it is."""
        while True:
            await self._time.sleep(TICK_S)
            now = self._time.now()
            if link.waiting and now - link.heard_at >= STALLED_S:
                return link.cut(f"the server was silent for {STALLED_S:g} s")
            if link.leave_at is not None and now >= link.leave_at:
                return link.cut("the server is going away")
            if link.writing:
                continue  # audio is on its way, or held by back-pressure: nothing may block behind it
            if now - link.sent_at >= KEEPALIVE_S and not self._supply.finish_sent:
                await link.send_command("keepalive")
            if now - link.heard_at >= QUIET_S:
                await link.ping()

    def _url(self) -> URL:
        if self._link is not None:
            return self._nodes.url.with_query(resume=self._link.ready.resume_token)
        return self._nodes.url.with_query(query(self._options))


async def _guarded(link: Link, work: Callable[[Link], Coroutine[object, object, None]]) -> None:
    """Run a helper of a connection; when it fails the connection goes too, so that the listener wakes."""
    try:
        await work(link)
    except BROKEN:
        link.cut("")
    except Exception:
        link.cut("a fault of the client")
        raise
