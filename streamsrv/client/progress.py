"""What the server already has: which finals were delivered, and how far the audio may be forgotten."""

from __future__ import annotations

from streamsrv.client.messages import AnyMessage, Final, SpeechStarted, UtteranceEnd

MOST_AHEAD = 4_096
"""Finals of one channel remembered beyond the first gap in their numbers.  They come in order, so none is usual; when
it is full the gap is taken for closed."""


MOST_UNSURE = 10_000
"""Finals remembered that were told from a spool; the oldest are then taken for stored."""


class Delivered:
    """Segments whose final the reader has seen, per stream and channel: each is delivered once.

    A final told from a spool is delivered again when another server heard its segment anew and made something else of
    it: the later one counts.
    """

    def __init__(self) -> None:
        self._below: dict[tuple[str, int], int] = {}
        self._above: dict[tuple[str, int], set[int]] = {}
        self._unsure: dict[tuple[str, int, int], tuple[int, int, str]] = {}

    def fresh(self, stream: str, final: Final) -> bool:
        """Note a final; False when it was seen before."""
        place, said = (stream, final.channel, final.segment), (final.start_ms, final.stop_ms, final.text)
        before = self._unsure.pop(place, None)
        if final.durable != "store":
            self._unsure[place] = said
            if len(self._unsure) > MOST_UNSURE:
                del self._unsure[next(iter(self._unsure))]
        return self._first(stream, final) or before not in (None, said)

    def _first(self, stream: str, final: Final) -> bool:
        """Whether no final of this segment was seen before."""
        key = (stream, final.channel)
        below, above = self._below.get(key, 0), self._above.setdefault(key, set())
        if final.segment < below or final.segment in above:
            return False
        above.add(final.segment)
        if len(above) > MOST_AHEAD:
            below = min(above)
        while below in above:
            above.remove(below)
            below += 1
        self._below[key] = below
        return True


class Stored:
    """How far audio is in stored finals while acks cannot move.

    Acks move only in silence.  Sound that never pauses would fill the backlog for ever, although its finals are stored
    piece by piece; then what lies before the last final of every channel that speaks may go too: after a resume the
    server ignores it.
    """

    def __init__(self) -> None:
        self._speaking: dict[int, int] = {}  # channel: where its utterance is stored to, ms

    @property
    def to_ms(self) -> int:
        """Milliseconds of audio that are stored on every channel that speaks; 0 when nobody speaks."""
        return min(self._speaking.values(), default=0)

    def note(self, event: AnyMessage) -> None:
        """Take one event of the server into account."""
        match event:
            case SpeechStarted():
                self._speaking.setdefault(event.channel, event.at_ms)
            case Final(durable="store") if event.channel in self._speaking:  # in a spool it may be replaced yet
                self._speaking[event.channel] = max(self._speaking[event.channel], event.stop_ms)
            case UtteranceEnd():
                self._speaking.pop(event.channel, None)
            case _:
                pass
