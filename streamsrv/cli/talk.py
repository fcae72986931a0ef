"""One run of ``streamsrv stream``: audio up, captions down, remarks on stderr."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TextIO

import msgspec

from streamsrv.cli.captions import Captions, note
from streamsrv.cli.complaints import FAILED, OK, SETUP, complain
from streamsrv.cli.sources import SAMPLE_BYTES, Source, paced
from streamsrv.client import AnyMessage, Closed, Misused, Options, Ready, Transcription
from streamsrv.client.clock import SystemTime
from streamsrv.errors import SetupError, StreamsrvError


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What the command line asks for."""

    source: Source
    options: Options
    urls: tuple[str, ...]
    interview: str
    api_key: str | None
    realtime: bool
    json: bool
    give_up_s: float

    @property
    def transcript(self) -> str:
        """Where the words can be read afterwards."""
        base = self.urls[0].rstrip("/")
        web = base.replace("ws", "http", 1) if base.startswith("ws") else base
        return f"{web}/transcription/{self.interview}"


def talk(plan: Talk) -> int:
    """Run it; the exit code.

    Raises:
        Misused: URL or interview make no sense.
    """
    return asyncio.run(_talk(plan))


async def _talk(plan: Talk) -> int:
    stream = Transcription(plan.urls, plan.interview, plan.options, api_key=plan.api_key, give_up_s=plan.give_up_s)
    stop = _on_interrupt()
    begun = False
    try:
        async with stream:
            begun = True
            closed = await _converse(plan, stream, stop)
    except Misused:
        raise
    except StreamsrvError as error:
        complain(error)
        return SETUP if isinstance(error, SetupError) or not begun else FAILED
    except asyncio.CancelledError:
        print("left before the end; what was sent is kept", file=sys.stderr)
        return FAILED
    finals = f"{closed.finals} final{'' if closed.finals == 1 else 's'}"
    print(f"{closed.audio_ms / 1000:.1f} s of audio, {finals}; read again: {plan.transcript}", file=sys.stderr)
    return OK


def _on_interrupt() -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM; the second cancels the whole run."""
    stop = asyncio.Event()
    run = asyncio.current_task()

    def interrupted() -> None:
        if stop.is_set() and run is not None:
            run.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted)
    return stop


async def _converse(plan: Talk, stream: Transcription, stop: asyncio.Event) -> Closed:
    """Speak and show at once; the first failure of either ends both."""
    screen = Screen(plan, sys.stdout, sys.stderr)
    speaking = asyncio.create_task(_speak(plan, stream, stop))
    showing = asyncio.create_task(_show(stream, screen))
    try:
        # Showing ends with the stream; it fails early only when nobody reads our output.
        await asyncio.wait({speaking, showing}, return_when=asyncio.FIRST_EXCEPTION)
        for task in (showing, speaking):
            if task.done():
                task.result()
        return await speaking
    finally:
        for task in (speaking, showing):
            task.cancel()
        await asyncio.gather(speaking, showing, return_exceptions=True)


async def _speak(plan: Talk, stream: Transcription, stop: asyncio.Event) -> Closed:
    pumping = asyncio.create_task(_pump(plan, stream))
    halting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({pumping, halting}, return_when=asyncio.FIRST_COMPLETED)
        if pumping.done():
            pumping.result()
    finally:
        for task in (pumping, halting):
            task.cancel()
        await asyncio.gather(pumping, halting, return_exceptions=True)
    return await stream.finish()


async def _pump(plan: Talk, stream: Transcription) -> None:
    blocks: AsyncIterator[bytes] = plan.source.blocks()
    if plan.realtime:
        blocks = paced(blocks, plan.source.rate_hz * plan.source.channels * SAMPLE_BYTES, SystemTime())
    async for block in blocks:
        await stream.send(block)


async def _show(stream: Transcription, screen: Screen) -> None:
    async for event in stream.events():
        screen.show(event)


class Screen:
    """The terminal, or what stands in its place.

    Args:
        out: for words, or for JSON.
        err: for remarks.
    """

    def __init__(self, plan: Talk, out: TextIO, err: TextIO) -> None:
        self._plan, self._out, self._err = plan, out, err
        live = out.isatty() and os.environ.get("TERM") != "dumb"
        self._captions = Captions(
            (lambda: shutil.get_terminal_size().columns) if live else None,
            dim="NO_COLOR" not in os.environ,
            multichannel=plan.options.tracks > 1,
        )
        self._begun = False

    def show(self, event: AnyMessage) -> None:
        """Write what this event is worth."""
        remark = note(event, again=self._begun)
        if isinstance(event, Ready) and not self._begun:
            self._begun = True
            remark = self._welcome(event)
        if remark:
            self._remark(remark)
        self._write(self._json(event) if self._plan.json else self._captions.show(event))

    def _welcome(self, ready: Ready) -> str:
        source = self._plan.source
        hint = f" ({ready.engine.note})" if ready.engine.note else ""
        return (
            f"{source.name}, {source.rate_hz} Hz, {source.channels} channel{'s' * (source.channels > 1)}"
            f" as {self._plan.interview}; engine {ready.engine.name}{hint}"
        )

    def _json(self, event: AnyMessage) -> str:
        return msgspec.json.encode(event).decode() + "\n"

    def _remark(self, remark: str) -> None:
        before, after = ("", "") if self._plan.json else self._captions.around()
        self._write(before)
        print(remark, file=self._err, flush=True)
        self._write(after)

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
