"""Decisions of a voice activity detector -> where segments begin and end.  Body: native/segmenter.pyx."""

from collections.abc import Callable
from typing import Final, final

from streamsrv._native.ring import RingBuffer
from streamsrv._native.told import Told

BEGAN: Final = 0
ENDED: Final = 1
ADVANCED: Final = 2

@final
class Segmenter:
    def __new__(
        cls,
        ring: RingBuffer,
        decide: Callable[[bytes, int], bool],
        reset: Callable[[], None],
        *,
        preroll: int,
        hangover: int,
        shortest: int,
        longest: int,
        most_gain: int = 1,
        begin: int = 0,
    ) -> Segmenter: ...
    @property
    def ring(self) -> RingBuffer: ...
    @property
    def position(self) -> int: ...
    @property
    def restart(self) -> int: ...
    @property
    def in_speech(self) -> bool: ...
    @property
    def silence(self) -> int: ...
    @property
    def loudest(self) -> float: ...
    def keep_from(self, position: int) -> None: ...
    def hold(self, earliest: int) -> None: ...
    def advance(self, now: float) -> list[Told] | None: ...
    def flush(self, now: float) -> list[Told]: ...
    def part(self, now: float) -> list[Told]: ...
    def finish(self, now: float) -> list[Told]: ...
