"""The servers a stream may be spoken to: any of those that share a store goes on where another one left off."""

from __future__ import annotations

from collections.abc import Sequence

from yarl import URL

from streamsrv.client.refusals import Cut, Misused

ELSEWHERE = frozenset({1012, 1013})
"""Close codes of a server that goes away or is full: its neighbour is asked first."""


class Nodes:
    """Addresses of one stream, one after the other.

    Args:
        urls: in the order they are tried; at least one.
    """

    __slots__ = ("_at", "_tried", "_urls")

    def __init__(self, urls: Sequence[URL]) -> None:
        if not urls:
            raise Misused("no server is named", hint="give its URL, or several that share a store")
        self._urls = tuple(urls)
        self._at = 0
        self._tried = 0

    @property
    def url(self) -> URL:
        """Where to go now."""
        return self._urls[self._at]

    def works(self) -> None:
        """The one there is serves."""
        self._tried = 0

    def turn(self) -> bool:
        """Go to the next one; False when all have been tried since one of them served."""
        self._at = (self._at + 1) % len(self._urls)
        self._tried += 1
        return self._tried < len(self._urls)

    def lost(self, cut: Cut, *, going: bool) -> bool:
        """The connection ended; whether another server is asked first.

        Args:
            going: the server had said ``goaway``.
        """
        return (going or cut.code in ELSEWHERE) and self.turn()
