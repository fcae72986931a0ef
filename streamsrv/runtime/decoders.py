"""The server's decoder processes: started once, with the server or when they are first needed."""

from __future__ import annotations

import asyncio

from streamsrv.audio.decode import Cage, CageSettings


class Decoders:
    """One cage for files and live containers."""

    def __init__(self, settings: CageSettings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._cage: Cage | None = None

    async def cage(self) -> Cage:
        """The cage, started.

        Raises:
            SetupError: no decoder process comes up on this machine.
        """
        async with self._lock:
            if self._cage is None:
                cage = Cage(self._settings)
                await cage.start()
                self._cage = cage
            return self._cage

    async def close(self) -> None:
        """End all decoders; what they were decoding fails.  Safe to call twice."""
        cage, self._cage = self._cage, None
        if cage is not None:
            await cage.close()
