"""A speaker of a run: the project's own resuming client on a fast clock, with every event noted before it is used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from streamsrv.client import Ack, AnyMessage, Closed, Final, Ready, Refused, Transcription, Unreachable
from streamsrv.client import link as links
from streamsrv.commands import Options
from streamsrv.errors import StreamsrvError
from tests.adversity.runs.ledger import Acked, Greeted, Shown, Speaking
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.odds import FASTER
from tests.adversity.runs.plan import Voice

HANDSHAKE_S = 2.0
"""Its patience with a handshake, which is on the system's clock."""
AGAIN_S = 0.1
"""Pause before another first attempt."""
EDGE = 16_000


class FastTime:
    """See ``streamsrv.client.Time``."""

    def now(self) -> float:
        return time.monotonic() * FASTER

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / FASTER)


class Noting(Transcription):
    """Notes what the server says, before the client makes something of it."""

    def __init__(self, voice: Voice, port: int, noted: Speaking, clock: Callable[[], float]) -> None:
        speech = voice.speech
        options = Options(
            sample_rate=speech.rate_hz,
            encoding=speech.encoding,  # type: ignore[arg-type]
            channels=len(speech.channels),
            multichannel=len(speech.channels) > 1,
            interim=not any(one.recording for track in speech.channels for one in track),
        )
        super().__init__(f"ws://{HOST}:{port}", voice.interview, options, time=FastTime())
        self.interview = voice.interview
        self._rate_hz = speech.rate_hz
        self._frame_bytes = speech.frame_bytes
        self._noted = noted
        self._clock = clock
        self.given = 0
        """Bytes given so far."""

    def expect_rivals(self, count: int) -> None:
        """So many may take the stream away: each time it is taken back, as somebody does who is told and goes on."""
        self._strays += count

    async def _tell(self, event: AnyMessage) -> None:
        self._note(event)
        await super()._tell(event)

    def _note(self, event: AnyMessage) -> None:
        at = self._clock()
        match event:
            case Ready():
                greeted = Greeted(
                    at=at,
                    connection=event.session,
                    stream=event.stream,
                    epoch=event.epoch,
                    resume_at=self._position(event.resume_at),
                )
                self._noted.greeted.append(greeted)
                for final in event.finals:
                    self._show(final, at, event.session, event.stream, again=True)
            case Final():
                self._show(final=event, at=at, connection=event.session, stream=event.stream, again=False)
            case Ack():
                acked = Acked(
                    at=at,
                    stream=event.stream,
                    position=self._position(event.samples),
                    given=self._position(self.given // self._frame_bytes),
                )
                self._noted.acked.append(acked)
            case Closed():
                self._noted.closed_finals = event.finals
            case _:
                pass

    def _show(self, final: Final, at: float, connection: str, stream: str, *, again: bool) -> None:
        shown = Shown(
            at=at,
            connection=connection,
            again=again,
            stream=stream,
            channel=final.channel,
            segment=final.segment,
            text=final.text,
            durable=final.durable,
        )
        self._noted.shown.append(shown)

    def _position(self, samples: int) -> int:
        return samples * EDGE // self._rate_hz


async def speak(
    voice: Voice, port: int, noted: Speaking, clock: Callable[[], float], seat: Callable[[Noting], None]
) -> None:
    """Say everything and note how it ended; never raises what the client does.

    Args:
        seat: told each stream that is begun.
    """
    links.HANDSHAKE_S = HANDSHAKE_S
    audio = voice.speech.audio()
    while True:
        try:
            async with Noting(voice, port, noted, clock) as stream:
                seat(stream)
                await asyncio.gather(_read(stream), _talk(stream, voice, audio, clock))
                noted.ended = "closed"
                return
        except (Refused, Unreachable) as failure:
            # No stream came about yet: whoever wants to begin tries again, also while streams of attempts that nobody
            # heard of fill the interview.  Later it would be the end of one.
            if noted.greeted or not (failure.retryable or failure.code == "conflict"):
                noted.ended = f"{failure.code}: {failure}"
                return
        except StreamsrvError as failure:
            noted.ended = f"{failure.code}: {failure}"
            return
        await asyncio.sleep(AGAIN_S)


async def _read(stream: Noting) -> None:
    async for _ in stream.events():
        pass


async def _talk(stream: Noting, voice: Voice, audio: bytes, clock: Callable[[], float]) -> None:
    speech = voice.speech
    step = speech.rate_hz * voice.step_ms // 1_000 * speech.frame_bytes
    for at in range(0, len(audio), step):
        piece = audio[at : at + step]
        stream.given += len(piece)
        await stream.send(piece)
        # By the run's clock: who was let in late has said something meanwhile, and goes on with that.
        early_s = (at + step) / speech.frame_bytes / speech.rate_hz / voice.pace - clock()
        if early_s > 0:
            await asyncio.sleep(early_s)
    await stream.finish()
