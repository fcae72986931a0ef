"""Our own protocol, as ``docs/protocol.md`` describes it.

At this edge times are milliseconds of audio (``_ms``) and sample counts are the client's own: per channel, at its
``sample_rate``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from streamsrv import commands, events
from streamsrv.commands import AnyCommand, Options
from streamsrv.errors import BadMessage, BadRequest, MessageTooBig, WrongMessageKind
from streamsrv.events import AnyEvent
from streamsrv.facts import RATE_HZ, Position, Word

BINARY_BYTES = 1_048_576
"""Largest binary message; a larger one closes with 1009."""
TEXT_BYTES = 16_384
"""Largest text message, in UTF-8 bytes; a larger one closes with 1009."""
MAX_PROBLEM = 200
"""Characters told about a bad value; the rest of a longer one is cut off."""
MAX_NAMED = 8
"""Unknown options named in a warning; the others are only ignored."""

Json: TypeAlias = dict[str, Any]
_OPTIONS = frozenset(Options.__struct_fields__)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_COMMAND = re.compile(rb'\s*\{\s*"type"\s*:')


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """What ``ready`` tells besides the session's own state."""

    session: str
    stream: str
    interview: str
    resume_token: str
    engine: Json
    limits: Json


class NativeDialect:
    """Translator of one connection.

    Args:
        greeting: ids, token, engine and limits for ``ready``.
        options: what the stream begins with.
    """

    binary_bytes = BINARY_BYTES
    text_bytes = TEXT_BYTES

    def __init__(self, greeting: Greeting, options: Options) -> None:
        self._greeting = greeting
        self._options = options
        self._seq = 0

    def hear(self, message: str | bytes, now: float) -> list[AnyCommand]:
        if isinstance(message, bytes):
            if message[:1] in b" {" and _COMMAND.match(message):  # samples begin so once in 2^56 messages
                raise WrongMessageKind("a command came in a binary message")
            return [commands.Audio(data=message)]
        if len(message) > TEXT_BYTES or (len(message) * 4 > TEXT_BYTES and len(message.encode()) > TEXT_BYTES):
            raise MessageTooBig(f"a text message is larger than {TEXT_BYTES} bytes")
        match _object(message):
            case {"type": "configure", **rest}:
                return self._configure(rest)
            case {"type": "flush"}:
                return [commands.Flush()]
            case {"type": "finish"}:
                return [commands.Finish()]
            case {"type": "keepalive"}:
                return [commands.KeepAlive()]
            case {"type": str(kind)}:
                return [_unknown_message(kind)]
            case _:
                raise BadMessage('a text message has no "type"')

    def _configure(self, wanted: Json) -> list[AnyCommand]:
        options, unknown = merge_options(self._options, wanted, strict=True)
        named = tuple(name for name in wanted if name in _OPTIONS)
        return [commands.Configure(options=options, named=named), *unknown_options(unknown)]

    def say(self, event: AnyEvent, now: float) -> list[str | bytes]:
        if isinstance(event, events.Configured):
            self._options = event.options
        kind, body = self.words(event)
        head = {"type": kind, "session": self._greeting.session, "stream": self._greeting.stream, "seq": self._seq}
        self._seq += 1
        return [_encode(head | body).decode()]

    def words(self, event: AnyEvent) -> tuple[str, Json]:
        """The type of an event and its body, without what counts and names the connection."""
        return _WORDS[type(event)](self, event)

    # --- units --------------------------------------------------------------------------------------------------

    def samples(self, position: Position) -> int:
        """Client samples before ``position``, rounded up; exact at restart points."""
        return client_samples(position, self._options)

    # --- events -------------------------------------------------------------------------------------------------

    def ready(self, event: events.Ready) -> tuple[str, Json]:
        greeting = self._greeting
        return "ready", {
            "interview": greeting.interview,
            "epoch": event.epoch,
            "resume_token": greeting.resume_token,
            "resume_at": self.samples(event.resume_at),
            "channels": [
                {"channel": c.channel, "kept_to": self.samples(c.kept_to), "next_segment": c.next_segment}
                for c in event.channels
            ],
            "finals": [final_body(final) for final in event.finals],
            "options": msgspec.to_builtins(event.options),
            "engine": greeting.engine,
            "limits": greeting.limits,
        }

    def configured(self, event: events.Configured) -> tuple[str, Json]:
        return "configured", {"options": msgspec.to_builtins(event.options)}

    def speech_started(self, event: events.SpeechStarted) -> tuple[str, Json]:
        return "speech_started", {"channel": event.channel, "utterance": event.utterance, "at_ms": ms(event.at)}

    def speech_stopped(self, event: events.SpeechStopped) -> tuple[str, Json]:
        return "speech_stopped", {"channel": event.channel, "utterance": event.utterance, "at_ms": ms(event.at)}

    def partial(self, event: events.Partial) -> tuple[str, Json]:
        return "partial", {
            "channel": event.channel,
            "utterance": event.utterance,
            "segment": event.segment,
            "text": event.text,
            "stable_chars": event.stable_chars,
            "start_ms": ms(event.start),
            "stop_ms": ms(event.stop),
            "words": [word_body(word) for word in event.words],
            "lag_ms": event.lag_ms,
        }

    def final(self, event: events.Final) -> tuple[str, Json]:
        return "final", final_body(event)

    def utterance_end(self, event: events.UtteranceEnd) -> tuple[str, Json]:
        body = {"channel": event.channel, "utterance": event.utterance, "last_word_ms": ms(event.last_word_stop)}
        return "utterance_end", body

    def ack(self, event: events.Ack) -> tuple[str, Json]:
        return "ack", {"samples": self.samples(event.position), "flushed": event.flushed}

    def degraded(self, event: events.Degraded) -> tuple[str, Json]:
        return "degraded", {"reason": event.reason, "active": event.active, "message": event.message}

    def warning(self, event: events.Warned) -> tuple[str, Json]:
        body: Json = {"code": event.code, "message": event.message}
        if event.channel is not None:
            body["channel"] = event.channel
        if event.segment is not None:
            body["segment"] = event.segment
        return "warning", body

    def audio_gap(self, event: events.AudioGap) -> tuple[str, Json]:
        return "audio_gap", {"channel": event.channel, "start_ms": ms(event.start), "stop_ms": ms(event.stop)}

    def goaway(self, event: events.GoAway) -> tuple[str, Json]:
        return "goaway", {"within_ms": event.within_ms}

    def error(self, event: events.Failed) -> tuple[str, Json]:
        body: Json = {"code": event.code, "message": event.message, "hint": event.hint, "retryable": event.retryable}
        if event.retry_after_ms is not None:
            body["retry_after_ms"] = event.retry_after_ms
        return "error", body

    def closed(self, event: events.Closed) -> tuple[str, Json]:
        return "closed", {"cause": event.cause, "audio_ms": ms(event.position), "finals": event.finals}


_WORDS: Mapping[type[AnyEvent], Callable[[NativeDialect, Any], tuple[str, Json]]] = {
    events.Ready: NativeDialect.ready,
    events.Configured: NativeDialect.configured,
    events.SpeechStarted: NativeDialect.speech_started,
    events.SpeechStopped: NativeDialect.speech_stopped,
    events.Partial: NativeDialect.partial,
    events.Final: NativeDialect.final,
    events.UtteranceEnd: NativeDialect.utterance_end,
    events.Ack: NativeDialect.ack,
    events.Degraded: NativeDialect.degraded,
    events.Warned: NativeDialect.warning,
    events.AudioGap: NativeDialect.audio_gap,
    events.GoAway: NativeDialect.goaway,
    events.Failed: NativeDialect.error,
    events.Closed: NativeDialect.closed,
}


def client_samples(position: Position, options: Options) -> int:
    """Client samples before ``position``, rounded up."""
    return -(-position * options.sample_rate // RATE_HZ)


def ended_body(options: Options, position: Position | None, count: int, newest: Iterable[events.Final]) -> Json:
    """What is told to who comes too late for a resume.

    Args:
        position: where the audio ended; ``None``: not known.
        count: how many finals the stream has.
        newest: of these, oldest first.
    """
    return {
        "samples": None if position is None else client_samples(position, options),
        "audio_ms": None if position is None else ms(position),
        "count": count,
        "finals": [final_body(final) for final in newest],
    }


def ms(position: Position) -> int:
    """Milliseconds of audio before ``position``, rounded to the nearest."""
    return (position * 1000 + RATE_HZ // 2) // RATE_HZ


def word_body(word: Word) -> Json:
    body: Json = {
        "text": word.text,
        "start_ms": ms(word.start),
        "stop_ms": ms(word.stop),
        "confidence": round(word.confidence, 3),
    }
    if word.estimated:
        body["estimated"] = True
    if word.glued:
        body["glued"] = True
    return body


def final_body(event: events.Final) -> Json:
    body: Json = {
        "channel": event.channel,
        "utterance": event.utterance,
        "segment": event.segment,
        "text": event.text,
        "words": [word_body(word) for word in event.words],
        "start_ms": ms(event.start),
        "stop_ms": ms(event.stop),
        "language": event.language,
        "cause": event.cause,
        "endpoint": event.endpoint,
        "engine": event.engine,
        "durable": event.durable,
        "latency_ms": event.latency_ms,
        "endpoint_ms": event.endpoint_ms,
    }
    if event.failed:
        body["failed"] = True
    return body


def merge_options(base: Options, wanted: Mapping[str, Any], *, strict: bool) -> tuple[Options, list[str]]:
    """``base`` with the known options of ``wanted``.

    Args:
        strict: whether values must have JSON's types; a query's are texts.

    Returns:
        The options and the names that are none.

    Raises:
        BadRequest: names the option and what it takes.
    """
    known = {name: value for name, value in wanted.items() if name in _OPTIONS}
    unknown = [name for name in wanted if name not in _OPTIONS]
    if not strict:
        known = {name: _plain(name, value) for name, value in known.items()}
    try:
        merged = msgspec.convert(msgspec.structs.asdict(base) | known, Options, strict=strict)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`")
        raise BadRequest(
            f"option '{name}': {problem[:MAX_PROBLEM]}", hint="docs/protocol.md lists the options"
        ) from None
    return merged, unknown


def unknown_options(names: list[str]) -> list[AnyCommand]:
    """The command that tells of ignored options, a few of them by name; none when there are none."""
    if not names:
        return []
    shown = ", ".join(name[:40] for name in names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
    return [commands.Ignore(code="unknown_option", what=f"options not known and ignored: {shown}")]


def _unknown_message(kind: str) -> commands.Ignore:
    return commands.Ignore(
        code="unknown_message", what=f"messages of type {kind[:40]!r} are not known and were ignored"
    )


def _plain(name: str, value: str) -> str:
    """Booleans of a query in any case, as people write them."""
    if name in ("multichannel", "interim", "record"):
        return {"yes": "true", "no": "false", "on": "true", "off": "false"}.get(value.lower(), value.lower())
    return value


def _object(message: str) -> Json:
    try:
        body = _decode(message)
        json.loads(message, object_pairs_hook=_once, parse_int=float)
        return body
    except RecursionError:
        problem = "is nested too deeply"
    except KeyError:
        problem = "has a name twice"
    except (ValueError, UnicodeError):
        problem = "is not a JSON object"
    raise BadMessage(f"a text message {problem}")


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Two readers of an object that has a name twice may read two meanings."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise KeyError
