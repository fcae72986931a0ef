"""How each server speaks: what its messages say is promised, and how a call begins and ends.  Pure.

A word counts as committed when a client may rely on it, and every server is read by the same rule, agreement of two
successive hypotheses:

* streamsrv: what a partial calls stable, and finals;
* the naive server and WhisperLiveKit decide that themselves: the words the one calls ``committed`` and the other puts
  into ``lines`` (``buffer_transcription`` is what may still change);
* WhisperLive only marks whole segments ``completed``, seconds later.  In its favour a word counts as soon as two
  successive updates agree on everything up to it, which its clients could see, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from benchmarks.peers.words import common

Words = Sequence[str]
LAST_SEGMENTS = 500
"""Asked of WhisperLive, which keeps as many: each update then tells everything."""


class Refused(Exception):
    """The server took no further speaker."""


class Ear(Protocol):
    """One connection to one kind of server."""

    @property
    def path(self) -> str:
        """Where it connects."""
        ...

    @property
    def opening(self) -> str | None:
        """Sent first."""
        ...

    @property
    def ending(self) -> str | bytes:
        """Sent when everything was heard."""
        ...

    def ready(self, message: Mapping[str, Any]) -> bool:
        """Whether the speaker may begin.

        Raises:
            Refused: never.
        """
        ...

    def hear(self, message: Mapping[str, Any]) -> Words | None:
        """All words committed so far; ``None`` when the message says nothing about words."""
        ...

    def over(self, message: Mapping[str, Any]) -> bool:
        """Whether nothing follows."""
        ...


class Streamsrv:
    """``ws /transcription/stream/{interview}``."""

    opening = None
    ending = '{"type":"finish"}'

    def __init__(self, number: int) -> None:
        self.path = f"/transcription/stream/race-{number}?sample_rate=16000"
        self._segments: dict[int, str] = {}

    def ready(self, message: Mapping[str, Any]) -> bool:
        return bool(message["type"] == "ready")

    def hear(self, message: Mapping[str, Any]) -> Words | None:
        if message["type"] not in ("partial", "final"):
            return None
        text = str(message["text"])
        self._segments[message["segment"]] = text[: message["stable_chars"]] if message["type"] == "partial" else text
        return " ".join(self._segments[segment] for segment in sorted(self._segments)).split()

    def over(self, message: Mapping[str, Any]) -> bool:
        return bool(message["type"] == "closed")


class Naive:
    """``benchmarks.peers.naive``."""

    path = "/"
    opening = None
    ending = "finish"

    def __init__(self, number: int) -> None:
        self._number = number

    def ready(self, message: Mapping[str, Any]) -> bool:
        return "ready" in message

    def hear(self, message: Mapping[str, Any]) -> Words | None:
        return str(message["committed"]).split() if "committed" in message else None

    def over(self, message: Mapping[str, Any]) -> bool:
        return "closed" in message


class WhisperLive:
    """WhisperLive's own protocol: a JSON of options, then samples; segments come back whole each time."""

    path = "/"
    ending = b"END_OF_AUDIO"

    def __init__(self, number: int, *, use_vad: bool = True) -> None:
        options = {"language": "en", "task": "transcribe", "model": "local", "use_vad": use_vad}
        options |= {"send_last_n_segments": LAST_SEGMENTS, "audio_format": "int16"}
        self.opening = json.dumps({"uid": f"race-{number}", **options})
        self._before: list[str] = []
        self._committed: list[str] = []

    def ready(self, message: Mapping[str, Any]) -> bool:
        if message.get("status") in ("WAIT", "ERROR"):
            raise Refused(f"WhisperLive says {message['status']}")
        return message.get("message") == "SERVER_READY"

    def hear(self, message: Mapping[str, Any]) -> Words | None:
        if "segments" not in message:
            return None
        segments = message["segments"]
        completed = " ".join(segment["text"] for segment in segments if segment["completed"]).split()
        told = " ".join(segment["text"] for segment in segments).split()
        agreed = told[: max(len(completed), common(told, self._before))]
        self._before = told
        # An update that only says less takes nothing back.
        if agreed != self._committed[: len(agreed)]:
            self._committed = agreed
        return list(self._committed)

    def over(self, message: Mapping[str, Any]) -> bool:
        return message.get("message") == "DISCONNECT"


class WhisperLiveKit:
    """``ws /asr`` of WhisperLiveKit, with raw samples: the whole transcript comes back with each change."""

    path = "/asr"
    opening = None
    ending = b""

    def __init__(self, number: int) -> None:
        self._number = number

    def ready(self, message: Mapping[str, Any]) -> bool:
        return message.get("type") == "config"

    def hear(self, message: Mapping[str, Any]) -> Words | None:
        if "lines" not in message:
            return None
        return " ".join(line.get("text") or "" for line in message["lines"]).split()

    def over(self, message: Mapping[str, Any]) -> bool:
        return message.get("type") == "ready_to_stop"
