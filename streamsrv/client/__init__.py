"""The resuming client: give it audio, read events, and let it worry about the connection.

Usable alone, beside aiohttp and msgspec it needs nothing of the server.  ``docs/clients.md`` shows how.
"""

from __future__ import annotations

from streamsrv.client.clock import Time
from streamsrv.client.messages import (
    Ack,
    AnyMessage,
    AudioGap,
    Channel,
    Closed,
    Configured,
    Degraded,
    Engine,
    Failed,
    Final,
    GoAway,
    Limits,
    NotUnderstood,
    Partial,
    Ready,
    Reconnecting,
    SpeechStarted,
    SpeechStopped,
    Unknown,
    UtteranceEnd,
    Warned,
    Word,
)
from streamsrv.client.refusals import AudioForgotten, GaveUp, Misused, Refused, Unreachable
from streamsrv.client.transcription import Transcription
from streamsrv.commands import Options

__all__ = [
    "Ack",
    "AnyMessage",
    "AudioForgotten",
    "AudioGap",
    "Channel",
    "Closed",
    "Configured",
    "Degraded",
    "Engine",
    "Failed",
    "Final",
    "GaveUp",
    "GoAway",
    "Limits",
    "Misused",
    "NotUnderstood",
    "Options",
    "Partial",
    "Ready",
    "Reconnecting",
    "Refused",
    "SpeechStarted",
    "SpeechStopped",
    "Time",
    "Transcription",
    "Unknown",
    "Unreachable",
    "UtteranceEnd",
    "Warned",
    "Word",
]
