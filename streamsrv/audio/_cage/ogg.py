"""Ogg, page by page: recordings that were put one behind the other are told apart.

Each pause of a recorder, and each song of a radio stream, begins a new *link*.  A demuxer that is not told goes on with
the first link's rate, gives up, or ends without a word; given one link at a time it hears them all.
"""

from __future__ import annotations

from typing import Final

from streamsrv.audio._cage.session import Input

HEADER_BYTES: Final = 27
PAGE_BYTES: Final = 65_307
"""Longest page there can be; so much is held at most, besides one read."""
READ_BYTES: Final = 32_768
_MARK: Final = b"OggS"
_BEGINS, _ENDS = 2, 4


class Links:
    """Reads one link of an Ogg stream at a time; an empty answer is the link's end."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._held = bytearray()
        self._ready = bytearray()
        self._inside = False
        """Whether the current link is past its beginning pages."""
        self._next = False
        self._over = False
        self.ended = False
        """Whether the last page so far said that its stream ends."""
        self.damaged = False
        """Whether bytes between pages were skipped."""

    def read(self, size: int = -1) -> bytes:
        if not self._ready and not self._next:
            self._turn()
        data = bytes(self._ready if size < 0 else memoryview(self._ready)[:size])
        del self._ready[: len(data)]
        return data

    def advance(self) -> bool:
        """Go to the next link, dropping what is left of this one; whether there is one."""
        while not self._next and not self._over:
            self._ready.clear()
            self._turn()
        self._ready.clear()
        if self._next:
            self._turn(new=True)
        return bool(self._ready)

    def _turn(self, *, new: bool = False) -> None:
        """Make the next page ready, unless it begins the next link."""
        page = self._page()
        if page is None:
            self._next = False
            return
        begins = bool(page[5] & _BEGINS)
        if begins and self._inside and not new:
            self._next = True
            return
        self._next, self._inside, self.ended = False, not begins, bool(page[5] & _ENDS)
        self._ready += page
        del self._held[: len(page)]

    def _page(self) -> bytes | None:
        """The page that comes next, left where it is; ``None`` at the end of everything."""
        while True:
            size = self._size()
            if size is not None and len(self._held) >= size:
                return bytes(self._held[:size])
            data = self._source.read(READ_BYTES)
            if not data:
                self._over = True
                self.ended = self.ended and not self._held
                return None
            self._held += data

    def _size(self) -> int | None:
        """Bytes of the page at the front, when its header is there; what is no page is skipped first."""
        if len(self._held) >= len(_MARK) and not self._held.startswith(_MARK):
            at = self._held.find(_MARK)
            del self._held[: at if at >= 0 else len(self._held) - len(_MARK) + 1]
            self.damaged = True
        if not self._held.startswith(_MARK) or len(self._held) < HEADER_BYTES:
            return None
        table = self._held[HEADER_BYTES : HEADER_BYTES + self._held[26]]
        return HEADER_BYTES + len(table) + sum(table) if len(table) == self._held[26] else None
