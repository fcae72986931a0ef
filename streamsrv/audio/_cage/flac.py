"""FLAC as it arrives: frames, each as soon as the next one begins.

The parser we have wants ten frames before it lets go of the first: that is a second and more of somebody's speech.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamsrv.audio._cage.session import Input, Refused

READ_BYTES: Final = 16_384
FRAME_BYTES: Final = 1 << 20
"""So long a frame cannot be at the rates and channels taken here; what is longer is given to the decoder as it is."""
MOST_BLOCKS: Final = 1_000
"""Metadata blocks before the samples; a stream with more is refused."""
_SHORTEST: Final = 6
_INFO_BYTES: Final = 34
_RATE_TAILS: Final = {12: 1, 13: 2, 14: 2}
_SIZE_TAILS: Final = {6: 1, 7: 2}


def _table() -> bytes:
    values = []
    for value in range(256):
        for _ in range(8):
            value = ((value << 1) ^ 0x07) & 0xFF if value & 0x80 else value << 1
        values.append(value)
    return bytes(values)


_CRC8: Final = _table()


class Flac:
    """A FLAC stream, up to its frames.

    Raises:
        Refused: there is none.
    """

    def __init__(self, source: Input) -> None:
        self._source = source
        self._held = bytearray()
        self.info = b""
        """STREAMINFO, as decoders want it."""
        self._metadata()

    @property
    def rate_hz(self) -> int:
        return int.from_bytes(self.info[10:13], "big") >> 4

    @property
    def channels(self) -> int:
        return ((self.info[12] >> 1) & 7) + 1

    @property
    def samples(self) -> int:
        """Of each channel, as the header states; 0 when it does not know."""
        return int.from_bytes(self.info[13:18], "big") & 0xF_FFFF_FFFF

    def _metadata(self) -> None:
        self._take(4)
        for _ in range(MOST_BLOCKS):
            header = self._take(4)
            size = int.from_bytes(header[1:], "big")
            if header[0] & 0x7F == 0:
                self.info = self._take(_INFO_BYTES) if size >= _INFO_BYTES else b""
                size -= len(self.info)
            for _ in range(0, size, READ_BYTES):
                self._take(min(size, READ_BYTES))
                size -= READ_BYTES
            if header[0] & 0x80:
                break
        if not self.info or not self.rate_hz:
            raise Refused("broken")

    def packets(self) -> Iterator[bytes]:
        """One frame each."""
        searched = 0
        while True:
            start = self._follower(searched)
            if start is not None:
                yield self._cut(start)
                searched = 0
                continue
            searched = max(len(self._held) - 16, 0)
            if len(self._held) > FRAME_BYTES:
                yield self._cut(len(self._held))
                searched = 0
            if not self._more():
                break
        if self._held:
            yield bytes(self._held)

    def _follower(self, start: int) -> int | None:
        """Where the frame behind the first one begins: a header with the right checksum and the right number."""
        at = max(start, _SHORTEST)
        while (at := self._held.find(b"\xff", at)) >= 0:
            number = self._number(at)
            if number is not None and number == self._next_number():
                return at
            at += 1
        return None

    def _next_number(self) -> int | None:
        """Number the next header bears: one more frame, or as many more samples as the first frame holds."""
        first = self._number(0)
        if first is None:
            return None
        return first + (self._block() if self._held[1] & 1 else 1)

    def _block(self) -> int:
        """Samples of the first frame."""
        code = self._held[2] >> 4
        if code in _SIZE_TAILS:
            at = 4 + _number_bytes(self._held[4])
            return int.from_bytes(self._held[at : at + _SIZE_TAILS[code]], "big") + 1
        return 192 if code == 1 else 144 << code if code <= 5 else 1 << code

    def _number(self, at: int) -> int | None:
        """Frame or sample number of the header at ``at``, if it is one and all there."""
        head = self._held[at : at + 16]
        if len(head) < _SHORTEST or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
            return None
        count = _number_bytes(head[4])
        size = 4 + count + _SIZE_TAILS.get(head[2] >> 4, 0) + _RATE_TAILS.get(head[2] & 15, 0)
        if not count or len(head) <= size:
            return None
        checksum = 0
        for byte in head[:size]:
            checksum = _CRC8[checksum ^ byte]
        if checksum != head[size]:
            return None
        value = head[4] if count == 1 else head[4] & (0x7F >> count)
        for byte in head[5 : 4 + count]:
            value = value << 6 | byte & 0x3F
        return value

    # --- bytes -----------------------------------------------------------------------------------------------

    def _more(self) -> bool:
        data = self._source.read(READ_BYTES)
        self._held += data
        return bool(data)

    def _cut(self, size: int) -> bytes:
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            if not self._more():
                raise Refused("broken")
        return self._cut(size)


def _number_bytes(first: int) -> int:
    """Bytes of a number that begins so, as UTF-8 has them; 0 for none."""
    if first < 0x80:
        return 1
    ones = 8 - (first ^ 0xFF).bit_length()
    return ones if 2 <= ones <= 7 else 0
