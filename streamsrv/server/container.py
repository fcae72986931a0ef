"""A speaker's binary messages: samples go on as they are, a container's bytes through a decoder.

A container is found by its first bytes when the client did not say what it sends.  It is decoded while it arrives; the
session hears samples either way, and never knows.  A resumed container comes again from its first byte, and what of it
was heard before is dropped here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
from aiohttp import web

from streamsrv import commands
from streamsrv.audio.decode import Layout, LiveDecoding, sniff
from streamsrv.audio.formats import AudioFormat
from streamsrv.commands import Options
from streamsrv.errors import BadMedia, ServerFault, StreamsrvError, UnsupportedMedia
from streamsrv.runtime.decoders import Decoders
from streamsrv.runtime.driver import Driver
from streamsrv.session.states import TAKES_AUDIO

DECODERS = web.AppKey("decoders", Decoders)
SNIFF_BYTES = 12
"""Bytes that tell whether it is a container; shorter first messages wait for more."""


class Fail(Protocol):
    """Ends the session with an error."""

    def __call__(self, error: StreamsrvError) -> None: ...


class Intake:
    """The first bytes of one connection, and all of them when they are a container.

    Args:
        driver: hears.
        decoders: where containers are decoded.
        fail: told when the decoder gives up, from a task of its own.
        guess: whether a container may come that the options do not speak of.
    """

    def __init__(self, driver: Driver, decoders: Decoders, fail: Fail, *, guess: Callable[[], bool]) -> None:
        self.plain = False
        """What comes are samples: there is nothing more to do here."""
        self._driver = driver
        self._decoders = decoders
        self._fail = fail
        self._guess = guess
        self._head = b""
        self._decoding: LiveDecoding | None = None
        self._pump: asyncio.Task[None] | None = None

    async def take(self, data: bytes) -> bytes:
        """Take a message; waits while the decoder has enough.

        Returns:
            Samples for the session; empty when none are told apart yet, or all go through the decoder.

        Raises:
            UnsupportedMedia, BadMedia, MediaTooLong, DecoderLost, Full: it cannot be decoded.
        """
        if self._decoding is not None:
            await self._driver.command(commands.KeepAlive())
            await self._decoding.feed(data)
            return b""
        if not self._may_be_container():
            self.plain = True
            return self._head + data
        self._head += data
        if len(self._head) < SNIFF_BYTES:
            return b""
        return await self._decide()

    async def rest(self) -> None:
        """No more bytes come: what is there is heard to its end.

        Raises:
            As ``take``.
        """
        if self._decoding is not None and self._pump is not None:
            await self._decoding.end()
            await asyncio.wait({self._pump})
        elif not self.plain and self._head:
            head, self._head = self._head, b""
            await self._driver.audio(head)

    async def close(self) -> None:
        """Let go of the decoder.  Safe to call twice."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        if self._decoding is not None:
            await self._decoding.close()

    # --- inside -----------------------------------------------------------------------------------------------------

    @property
    def _options(self) -> Options:
        return self._driver.machine.options

    def _may_be_container(self) -> bool:
        return self._options.encoding == "container" or (self._options.encoding == "pcm_s16le" and self._guess())

    async def _decide(self) -> bytes:
        kind, head, self._head = sniff(self._head), self._head, b""
        named = self._options.encoding == "container"
        if kind is None and named:
            raise UnsupportedMedia(
                "the first bytes are those of no container this server knows",
                hint="send a container from its first byte on, also after a resume, or say what the samples are",
            )
        if kind is None or (head[0] == 0xFF and not named):  # frames of MP3 and AAC look like loud samples
            self.plain = True
            return head
        cage = await self._decoders.cage()
        self._decoding = cage.open_live()
        self._pump = asyncio.create_task(self._decode(self._decoding), name="container")
        await self._decoding.feed(head)
        return b""

    async def _decode(self, decoding: LiveDecoding) -> None:
        try:
            skip = await self._configure(await decoding.layout())
            async for piece in decoding:
                if skip < len(piece):
                    await self._driver.audio(piece[skip:] if skip else piece)
                skip = max(0, skip - len(piece))
        except StreamsrvError as error:
            self._fail(error)
        except Exception:
            self._fail(ServerFault("the server failed inside"))
            raise

    async def _configure(self, layout: Layout) -> int:
        """Have the session hear what the container holds.

        Returns:
            Bytes of samples that it has heard before.
        """
        have = self._options
        options = msgspec.structs.replace(
            have, encoding="container", sample_rate=layout.rate_hz, channels=layout.channels
        )
        if options != have:
            await self._driver.command(commands.Configure(options=options))
        if self._options != options and self._driver.machine.state in TAKES_AUDIO:
            raise BadMedia(
                f"the container holds {layout.channels} channels at {layout.rate_hz} Hz, "
                f"the stream began with {have.channels} at {have.sample_rate} Hz",
                hint="resume with the same recording from its first byte, or begin a new stream",
            )
        form = AudioFormat.of(options)
        return form.samples(self._driver.resume_at) * form.frame_bytes
