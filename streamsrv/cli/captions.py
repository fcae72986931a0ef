"""Events as text for a terminal, or for a file.  Pure: events in, text out."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from streamsrv.client.messages import (
    AnyMessage,
    AudioGap,
    Degraded,
    Failed,
    Final,
    GoAway,
    Partial,
    Ready,
    Reconnecting,
    Warned,
)

CLEAR = "\r\x1b[2K"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
_CUT = "…"


class Captions:
    """Live captions: the open segment on the last line, its stable words plain, the others dim.

    Args:
        width: tells the terminal's columns; ``None`` where there is no terminal: only finals, one per line.
        dim: whether unstable words are set apart by an escape sequence.
        multichannel: whether a line begins with its channel's number.
    """

    def __init__(self, width: Callable[[], int] | None, *, dim: bool = True, multichannel: bool = False) -> None:
        self._width, self._dim, self._multichannel = width, dim, multichannel
        self._live = ""

    def show(self, event: AnyMessage) -> str:
        """What to write for this event; often nothing."""
        match event:
            case Partial() if self._width is not None:
                self._live = self._line(event, self._width())
                return CLEAR + self._live
            case Final():
                return self._final(event)
            case _:
                return ""

    def around(self) -> tuple[str, str]:
        """What to write before and after a line of another kind, so that the live line stays the last."""
        return (CLEAR, self._live) if self._live else ("", "")

    def _final(self, final: Final) -> str:
        clear = CLEAR if self._live else ""
        self._live = ""
        text = printable(final.text)
        return f"{clear}{self._prefix(final.channel)}{text}\n" if text else clear

    def _prefix(self, channel: int) -> str:
        return f"[{channel}] " if self._multichannel else ""

    def _line(self, partial: Partial, width: int) -> str:
        clusters, stable = split(printable(partial.text), partial.stable_chars)
        prefix = self._prefix(partial.channel)
        # One column stays free: a full last column makes some terminals wrap, and a wrapped line cannot be cleared.
        first = _first_that_fits(clusters, width - 1 - len(prefix))
        shown = ([_CUT] if first else []) + clusters[first:]
        stable = max(0, stable - first + bool(first))
        fixed, open_words = "".join(shown[:stable]), "".join(shown[stable:])
        if open_words and self._dim:
            open_words = DIM + open_words + PLAIN
        return prefix + fixed + open_words


def note(event: AnyMessage, *, again: bool = False) -> str:
    """An event as a remark for stderr; empty when it deserves none.

    Args:
        again: whether a ``Ready`` follows a lost connection.
    """
    match event:
        case Reconnecting():
            kept = f"; {event.unacknowledged_s:.1f} s of audio are kept" if event.unacknowledged_s else ""
            return f"connection lost ({printable(event.why)}), next attempt in {event.pause_s:.1f} s{kept}"
        case Ready() if again:
            return "connected again, nothing is lost"
        case Degraded():
            return f"{'degraded' if event.active else 'no longer degraded'}: {printable(event.message)}"
        case Warned():
            return f"warning: {printable(event.message)}"
        case AudioGap():
            return f"warning: {event.stop_ms - event.start_ms} ms of audio at {event.start_ms} ms did not arrive"
        case GoAway():
            return "the server is going away; the stream goes on with its successor"
        case Failed():
            return f"the server says: {printable(event.message)}"
        case _:
            return ""


def printable(text: str) -> str:
    """Text in NFC without anything that moves the cursor or turns the writing round; one character for each."""
    return "".join(" " if _commands(c) else c for c in unicodedata.normalize("NFC", text))


def split(text: str, stable_chars: int) -> tuple[list[str], int]:
    """Cut text into what a reader takes for characters: a base with the marks upon it.

    Returns:
        The characters, and how many of them lie wholly within the first ``stable_chars`` code points: a mark that may
        still be taken back keeps its base open.
    """
    clusters: list[str] = []
    for c in text:
        if clusters and _columns(c) == 0:
            clusters[-1] += c
        else:
            clusters.append(c)
    end = stable = 0
    for cluster in clusters:
        end += len(cluster)
        if end > stable_chars:
            break
        stable += 1
    return clusters, stable


def _first_that_fits(clusters: list[str], columns: int) -> int:
    """Index from which the end of the line fits into so many columns, with a sign that something is cut."""
    if sum(map(_wide, clusters)) <= columns:
        return 0
    taken, first = 1, len(clusters)
    while first and taken + _wide(clusters[first - 1]) <= columns:
        first -= 1
        taken += _wide(clusters[first])
    return first


def _wide(cluster: str) -> int:
    return max(1, sum(map(_columns, cluster)))


def _columns(c: str) -> int:
    if unicodedata.category(c) in ("Mn", "Me", "Mc", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def _commands(c: str) -> bool:
    turning = "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
    return turning or unicodedata.category(c) in ("Cc", "Zl", "Zp")
