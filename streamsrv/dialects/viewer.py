"""The viewers' half of our own protocol: the words of a speaker's connection, about all streams of an interview."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from streamsrv import events
from streamsrv.commands import AnyCommand, Options
from streamsrv.dialects.native import Greeting, Json, NativeDialect
from streamsrv.events import AnyEvent

Said: TypeAlias = tuple[str, str]
"""A message's type and its JSON."""

_encode = msgspec.json.Encoder().encode


class KnownStream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as ``ready`` tells of it."""

    stream: str
    order: int
    speaker: str | None
    language: str | None
    channels: int
    """Transcribed on their own."""
    status: str
    started_utc_ms: int


class ViewerDialect:
    """Translator of one viewer's connection.

    Args:
        session: its id.
        interview: what it watches.
    """

    def __init__(self, session: str, interview: str) -> None:
        self._session = session
        self._interview = interview
        self._seq = 0
        greeting = Greeting(session=session, stream="", interview=interview, resume_token="", engine={}, limits={})
        self._native = NativeDialect(greeting, Options())

    def hear(self, message: str | bytes, now: float) -> list[AnyCommand]:
        """As a speaker's; what a viewer may ask for is not decided here.

        Raises:
            BadMessage, BadRequest, MessageTooBig, WrongMessageKind: as a speaker's.
        """
        return self._native.hear(message, now)

    def ready(self, status: str | None, streams: tuple[KnownStream, ...]) -> Said:
        """The greeting.

        Args:
            status: the interview's; ``None``: it has not begun.
        """
        body = {"role": "viewer", "interview": self._interview, "status": status, "streams": streams}
        return self._put("ready", None, body)

    def say(self, stream: str, event: AnyEvent | events.StreamOver) -> Said:
        """One event; ``stream`` is empty when it is about none."""
        match event:
            case events.Ready(options=options) | events.Configured(options=options):
                kind, body = "stream_started", _about(options)
            case events.StreamOver():
                kind, body = "stream_ended", {}
            case _:
                kind, body = self._native.words(event)
        return self._put(kind, stream or None, body)

    def _put(self, kind: str, stream: str | None, body: Json) -> Said:
        head = {"type": kind, "session": self._session, "stream": stream, "seq": self._seq}
        self._seq += 1
        return kind, _encode(head | body).decode()


def _about(options: Options) -> Json:
    return {"speaker": options.speaker, "language": options.language, "channels": options.tracks}
