"""What the program tells its operators: one JSON line per event on stdout, and the numbers behind ``/metrics``.

    log = telemetry.logger("session")
    log.info("session.opened", interview="i-1", stream="s-1")
    log.error("store.failed", error=failure, interview="i-1")

Logging never blocks the event loop: lines go to a thread through a bounded queue.  What people say never gets here:
an exception is told by its type and our own file:line, and only errors of ours, which carry ``code``, ``message`` and
``hint``, are quoted.  Labels of metrics are words from closed lists, never ids.
"""

from __future__ import annotations

import errno
import json
import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TextIO, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector

LINES_WAITING = 10_000
"""Lines that may wait for a slow reader of stdout; when full, newer ones are dropped and counted in ``log.dropped``."""
VALUE_CHARACTERS = 500
"""Longest value of a field; the rest is cut and marked with ``...``."""
FRAMES = 6
"""Frames of ours told per exception, innermost first; the others are left out."""
CAUSES = 4
"""Exceptions of one chain that are told."""

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Format: TypeAlias = Literal["auto", "json", "text"]
Field: TypeAlias = str | int | float | bool | None
Line: TypeAlias = dict[str, Field]

_LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_HOUSE = Path(__file__).parent
_SECRET_NAMES = re.compile(r"(?i)(^|_)(token|authorization|cookie|password|secret|resume|api_?keys?)$")
_SPOKEN_NAMES = frozenset({"text", "words", "transcript"})
_SECRET_PARTS = re.compile(
    r"(?i)\b((?:access_)?token|resume|api_?key|key|authorization)=[^&\s]+|\b(bearer|token) +[\w.~+/=-]{12,}"
)


# --- what one line says ------------------------------------------------------------------------------------------


def describe(failure: BaseException) -> str:
    """One line about an exception and its causes, without any text that could hold user words.

    Returns:
        ``TYPE[errno] (code: message) at file:line < file:line; from TYPE ...``; the message only of errors of ours.
    """
    told: list[str] = []
    link: BaseException | None = failure
    while link is not None and len(told) < CAUSES:
        told.append(_name(link) + _frames(link.__traceback__))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "; from ".join(told)


def _name(failure: BaseException) -> str:
    name = type(failure).__name__
    if isinstance(failure, OSError) and failure.errno is not None:
        name += f"[{errno.errorcode.get(failure.errno, failure.errno)}]"
    elif isinstance(symbol := getattr(failure, "sqlite_errorname", None), str):
        name += f"[{symbol}]"
    code, message = getattr(failure, "code", None), getattr(failure, "message", None)
    if isinstance(code, str) and isinstance(message, str) and hasattr(failure, "hint"):
        name += f" ({code}: {message})"
    return name


def _frames(trace: TracebackType | None) -> str:
    places: list[str] = []
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(_HOUSE):
            places.append(f"{path.relative_to(_HOUSE.parent).as_posix()}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " at " + " < ".join(places[: -FRAMES - 1 : -1]) if places else ""


def _clean(name: str, value: object) -> Field:
    """The value as it may be told: secrets and spoken words withheld, secrets inside URLs cut out, length bounded."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_NAMES.search(name):
        return "[redacted]"
    if name in _SPOKEN_NAMES:
        return "[withheld]"
    text = _SECRET_PARTS.sub(lambda found: f"{found[1] or found[2]}=[redacted]", str(value))
    return text if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS] + "..."


def to_json(line: Line) -> str:
    """One JSON object in pure ASCII: control characters, line separators and lone surrogates are all escaped."""
    return json.dumps(line, ensure_ascii=True, separators=(",", ":"))


def to_text(line: Line) -> str:
    """One line for a terminal: ``12:34:56.789 info    room  event  name=value ...``; odd characters escaped."""
    rest = {name: value for name, value in line.items() if name not in ("time", "level", "event", "room")}
    head = f"{str(line['time'])[11:23]} {line['level']:<7} {line['room']:<9} {line['event']}"
    return "  ".join([head, *(f"{name}={_bare(value)}" for name, value in rest.items())])


def _bare(value: Field) -> str:
    plain = isinstance(value, str) and value.isascii() and value.isprintable() and '"' not in value
    return str(value) if plain else json.dumps(value)


# --- where lines go ----------------------------------------------------------------------------------------------


class Sink:
    """Takes lines from any thread and writes them, in order, from a thread of its own.

    Args:
        stream: where lines go; when its reader is gone, lines are thrown away.
        level: lines below it are not made.
        form: turns a line into text.
        clock: UTC seconds since 1970.
        threaded: ``False`` writes at once, in the caller (before the server runs, and in tests).
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        level: Level = "info",
        form: Callable[[Line], str] = to_json,
        clock: Callable[[], float] = time.time,
        threaded: bool = True,
    ) -> None:
        self.threshold = _LEVELS[level]
        self.dropped = 0
        self._stream = stream
        self._form = form
        self._clock = clock
        self._waiting: queue.Queue[Line | None] = queue.Queue(LINES_WAITING)
        self._writer = threading.Thread(target=self._run, name="telemetry", daemon=True) if threaded else None
        if self._writer:
            self._writer.start()

    def line(self, room: str, level: Level, event: str) -> Line:
        """The beginning of a line: time, level, event, room."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"
        return {"time": stamp, "level": level, "event": event, "room": room}

    def put(self, line: Line) -> None:
        """Hand over one line; never waits."""
        if self._writer is None:
            self._write(line)
            return
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, within_s: float = 2.0) -> None:
        """Write what waits, then stop; gives up after ``within_s`` when the reader is stuck."""
        if self._writer is None:
            return
        try:
            self._waiting.put(None, timeout=within_s)
        except queue.Full:
            return
        self._writer.join(within_s)

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._write(line)
            if self._waiting.empty():
                self._tell_dropped()
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        if self.dropped:
            count, self.dropped = self.dropped, 0
            self._write(self.line("telemetry", "warning", "log.dropped") | {"lines": count})

    def _write(self, line: Line) -> None:
        with suppress(OSError, ValueError):  # the reader is gone, or the stream is closed: nobody is left to tell
            self._stream.write(self._form(line) + "\n")
            self._stream.flush()  # each by itself: of several at once, a disk that gets full would tear one


class _Bridge(logging.Handler):
    """Brings the lines of libraries here: their constant template only, because arguments may hold anything."""

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= 40 else "warning" if record.levelno >= 30 else "debug"
        failure = record.exc_info[1] if record.exc_info else None
        template = str(record.msg).partition("\n")[0]
        logger("library").log(level, "library.said", error=failure, library=record.name, template=template)


_sink = Sink(sys.stderr, level="warning", form=to_text, threaded=False)


def configure(*, level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> Sink:
    """Send all lines of this process to ``stream`` (stdout when omitted), those of libraries from warning on.

    Args:
        format: ``auto`` is text for a terminal and JSON otherwise.
    """
    target = _buffered(sys.stdout) if stream is None else stream
    text = format == "text" or (format == "auto" and target.isatty())
    sink = Sink(target, level=level, form=to_text if text else to_json)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Bridge)]
    root.addHandler(_Bridge())
    root.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    use(sink)
    return sink


def _buffered(stdout: TextIO) -> TextIO:
    """With a buffer: without (``PYTHONUNBUFFERED``) the rest of a line that a filling disk took a part of is lost."""
    with suppress(OSError, ValueError):  # it may be no file
        return open(stdout.fileno(), "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    return stdout


def use(sink: Sink) -> Sink:
    """Make ``sink`` the place all loggers write to; returns the one before, which the caller closes."""
    global _sink
    before, _sink = _sink, sink
    return before


def current() -> Sink:
    """The place all loggers write to now."""
    return _sink


# --- who writes them ---------------------------------------------------------------------------------------------


class Logger:
    """Writes the events of one room; ``bind`` fixes fields such as the interview for all lines that follow."""

    __slots__ = ("_fixed", "_room")

    def __init__(self, room: str, fixed: Mapping[str, Field] | None = None) -> None:
        self._room = room
        self._fixed: dict[str, Field] = {name: _clean(name, value) for name, value in (fixed or {}).items()}

    def bind(self, **fields: Field) -> Logger:
        """A logger of the same room that adds ``fields`` to every line."""
        return Logger(self._room, self._fixed | fields)

    def log(self, level: Level, event: str, *, error: BaseException | str | None = None, **fields: Field) -> None:
        """Write one event.

        Args:
            event: what happened, dotted, past tense: ``session.opened``; a constant, never built from data.
            error: the failure behind it, or the code of one.
            fields: names with their units (``_ms``, ``_s``); values of strings are bounded, secrets are withheld.
        """
        sink = _sink
        if _LEVELS[level] < sink.threshold:
            return
        line = sink.line(self._room, level, event)
        if error is not None:
            line["error"] = _clean("error", describe(error) if isinstance(error, BaseException) else error)
        line.update(self._fixed)
        for name, value in fields.items():
            line[name] = _clean(name, value)
        sink.put(line)

    def debug(self, event: str, *, error: BaseException | str | None = None, **fields: Field) -> None:
        """What only a developer wants to know."""
        self.log("debug", event, error=error, **fields)

    def info(self, event: str, *, error: BaseException | str | None = None, **fields: Field) -> None:
        """What happens in a healthy server."""
        self.log("info", event, error=error, **fields)

    def warning(self, event: str, *, error: BaseException | str | None = None, **fields: Field) -> None:
        """What an operator should look at some day."""
        self.log("warning", event, error=error, **fields)

    def error(self, event: str, *, error: BaseException | str | None = None, **fields: Field) -> None:
        """What an operator should look at now."""
        self.log("error", event, error=error, **fields)


def logger(room: str) -> Logger:
    """The logger of one room, such as ``"session"``; cheap, usable before ``configure``."""
    return Logger(room)


# --- numbers -----------------------------------------------------------------------------------------------------

_LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_ENDPOINT_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)
_STORE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_STALL_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The numbers of one server process, in a registry of their own; every label comes from a closed list."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        self.sessions = Gauge("streamsrv_sessions", "Sessions held now, waiting ones included.", registry=registry)
        self.sessions_ended = Counter(
            "streamsrv_sessions_ended", "Sessions that ended, by outcome.", ["outcome"], registry=registry
        )
        self.viewers = Gauge("streamsrv_viewers", "Viewers connected now.", registry=registry)
        self.viewer_catch_ups = Counter("streamsrv_viewer_catch_ups", "Viewers that fell behind.", registry=registry)
        self.audio_seconds = Counter("streamsrv_audio_seconds", "Seconds of audio taken.", registry=registry)
        self.messages = Counter("streamsrv_messages", "Messages received, by kind.", ["kind"], registry=registry)
        self.partials = Counter("streamsrv_partials", "Partials said.", registry=registry)
        self.finals = Counter("streamsrv_finals", "Finals said, by cause.", ["cause"], registry=registry)
        self.final_latency = Histogram(
            "streamsrv_final_latency_seconds",
            "From the arrival of a segment's last speech to its final.",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.endpoint = Histogram(
            "streamsrv_endpoint_seconds",
            "Share of a final's latency spent waiting for the end of speech.",
            buckets=_ENDPOINT_S,
            registry=registry,
        )
        self.partial_lag = Histogram(
            "streamsrv_partial_lag_seconds",
            "From the arrival of the newest audio a partial covers to the partial.",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.store = Histogram(
            "streamsrv_store_seconds", "Time of one store operation.", ["op"], buckets=_STORE_S, registry=registry
        )
        self.store_errors = Counter(
            "streamsrv_store_errors", "Times a session found the store away.", registry=registry
        )
        self.engine_replays = Counter(
            "streamsrv_engine_replays", "Segments heard again after a worker was lost.", registry=registry
        )
        self.engine_hangs = Counter("streamsrv_engine_hangs", "Engines given up after a hang.", registry=registry)
        self.window_waiting = Gauge(
            "streamsrv_window_waiting", "Questions waiting for a window engine, by rank.", ["rank"], registry=registry
        )
        self.window_batch = Histogram(
            "streamsrv_window_batch", "Windows heard together.", buckets=_BATCH, registry=registry
        )
        self.window_seconds = Histogram(
            "streamsrv_window_seconds", "Time of one batch, by rank.", ["rank"], buckets=_LATENCY_S, registry=registry
        )
        self.window_stretch = Gauge(
            "streamsrv_window_stretch", "How many times less often than promised partials come.", registry=registry
        )
        self.degraded = Gauge("streamsrv_degraded", "Sessions served below their promise now.", registry=registry)
        self.loop_stall = Histogram(
            "streamsrv_loop_stall_seconds",
            "How late the event loop came back to a waiting alarm.",
            buckets=_STALL_S,
            registry=registry,
        )
        self.jobs = Gauge("streamsrv_jobs", "Uploaded files by state.", ["state"], registry=registry)
        self.jobs_ended = Counter(
            "streamsrv_jobs_ended", "Uploaded files that were done with, by outcome.", ["outcome"], registry=registry
        )
        self.job_audio_seconds = Counter(
            "streamsrv_job_audio_seconds", "Seconds of audio heard from uploaded files.", registry=registry
        )
        self.upload_bytes = Counter("streamsrv_upload_bytes", "Bytes of files received.", registry=registry)
        self.refused = Counter(
            "streamsrv_refused", "Requests refused at the door, by error code.", ["code"], registry=registry
        )
        build = Gauge("streamsrv_build_info", "The running version.", ["version", "python"], registry=registry)
        build.labels(version, ".".join(map(str, sys.version_info[:3]))).set(1)

    def render(self) -> bytes:
        """All numbers in the Prometheus text format, for a response of type ``content_type``."""
        return generate_latest(self.registry)
