"""WAV, read here: the demuxer we have waits for 64 KiB before its first sample, and believes every length.

Lengths lie: recorders that were cut leave them wrong, writers to pipes cannot know them.  What is there is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamsrv.audio._cage.session import Input, Refused

MOST_CHUNKS: Final = 1_000
"""Chunks before the samples; a file with more is refused."""
MOST_FORMAT_BYTES: Final = 4_096
"""Longest format chunk looked at."""
UNKNOWN: Final = 0x7FFF_FF00
"""Writers to pipes claim this much or more, or nothing."""
READ_BYTES: Final = 16_384
_PCM: Final = {1: "pcm_u8", 2: "pcm_s16le", 3: "pcm_s24le", 4: "pcm_s32le"}
_FLOAT: Final = {4: "pcm_f32le", 8: "pcm_f64le"}
_CODECS: Final[dict[int, dict[int, str]]] = {1: _PCM, 3: _FLOAT, 6: {1: "pcm_alaw"}, 7: {1: "pcm_mulaw"}}
"""Format tag, bytes of a sample: the only ones that are decoded."""
_EXTENSIBLE: Final = 0xFFFE
_NAMES: Final = {0x02: "adpcm_ms", 0x11: "adpcm_ima_wav", 0x50: "mp2", 0x55: "mp3"}


class Wav:
    """A WAV file or stream, up to its samples.

    Args:
        source: its bytes, from the first one.

    Raises:
        Refused: it holds no samples, or such as are not taken.
    """

    def __init__(self, source: Input) -> None:
        self._source = source
        self._held = bytearray()
        self.codec = ""
        self.rate_hz = 0
        self.channels = 0
        self.frame_bytes = 0
        self.claimed = 0
        """Bytes of samples the header states; 0 when it does not know."""
        self.short = False
        """Whether there was less than that."""
        self.contradicted = False
        """Whether something else follows than the header announces."""
        self._read = 0
        self._ends = 0
        self._long = 0
        self._head()

    @property
    def held(self) -> int:
        """Bytes that were read and not yet taken."""
        return len(self._held)

    def _head(self) -> None:
        self._ends = int.from_bytes(self._take(12)[4:8], "little") + 8
        for _ in range(MOST_CHUNKS):
            header = self._take(8)
            size = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                if not self.codec:
                    raise Refused("broken")
                self.claimed = self._long or (0 if size >= UNKNOWN else size)
                return
            if header[:4] == b"fmt ":
                self._format(self._take(min(size, MOST_FORMAT_BYTES)))
                size -= min(size, MOST_FORMAT_BYTES)
            elif header[:4] == b"ds64" and size >= 16:
                self._long = int.from_bytes(self._take(16)[8:], "little")
                size -= 16
            self._skip(size + size % 2)
        raise Refused("broken")

    def _format(self, chunk: bytes) -> None:
        if len(chunk) < 16:
            raise Refused("broken")
        tag, self.channels = int.from_bytes(chunk[0:2], "little"), int.from_bytes(chunk[2:4], "little")
        self.rate_hz, self.frame_bytes = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[12:14], "little")
        if tag == _EXTENSIBLE and len(chunk) >= 26:
            tag = int.from_bytes(chunk[24:26], "little")
        if not self.channels or not self.rate_hz:
            raise Refused("rate", 0) if self.channels else Refused("channels", 0)
        width, rest = divmod(self.frame_bytes, self.channels)
        codec = _CODECS.get(tag, {}).get(width)
        if codec is None or rest:
            raise Refused("codec", _NAMES.get(tag, f"wav_{tag}"))
        self.codec = codec

    def packets(self) -> Iterator[bytes]:
        """Whole frames, as many as are there; bytes behind the last whole frame are no frame."""
        left = self.claimed or None
        while left is None or left > 0:
            self._fill()
            size = len(self._held) if left is None else min(len(self._held), left)
            size -= size % self.frame_bytes
            if size:
                left = None if left is None else left - size
                yield self._cut(size)
            elif left is not None and left < self.frame_bytes <= len(self._held):
                break  # the claim ends inside a frame
            elif not self._more():
                self.short = left is not None and left >= self.frame_bytes
                return
        self.contradicted = not self._fits(left or 0)
        if self.contradicted and self._within(left or 0):
            self.claimed = 0
            yield from self.packets()
            self.contradicted = True

    def _fits(self, rest: int) -> bool:
        """Whether nothing, or another chunk, follows the samples, of whose last frame ``rest`` bytes are left."""
        while len(self._held) < 9 + rest and self._more():
            pass
        padding = (self.claimed % 2) * (self._held[rest : rest + 1] == b"\0")
        header = self._held[rest + padding :][:8]
        return len(header) < 8 or all(0x20 <= byte < 0x7F for byte in header[:4])

    def _within(self, rest: int) -> bool:
        """Whether the file as a whole claims to go on: then these are more samples.  Else somebody put something
        behind a whole file, and it is no sound."""
        return self._read - len(self._held) + rest + 8 < self._ends

    # --- bytes -----------------------------------------------------------------------------------------------

    def _more(self) -> bool:
        data = self._source.read(READ_BYTES)
        self._read += len(data)
        self._held += data
        return bool(data)

    def _fill(self) -> None:
        if len(self._held) < self.frame_bytes:
            self._more()

    def _cut(self, size: int) -> bytes:
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            if not self._more():
                raise Refused("broken")
        return self._cut(size)

    def _skip(self, size: int) -> None:
        while size > len(self._held):
            size -= len(self._held)
            self._held.clear()
            if not self._more():
                raise Refused("broken")
        del self._held[:size]
