"""The transcript on the wall clock: times of day in subtitles, UTC in JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import msgspec

from streamsrv.stores.transcript.document import Document

DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Value: TypeAlias = "dict[str, Value] | list[Value] | tuple[Value, ...] | str | int | float | bool | None"


def iso(utc_ms: int) -> str:
    """``2026-11-23T21:55:12.957Z``."""
    return (_EPOCH + timedelta(milliseconds=utc_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def day_offset_ms(document: Document) -> int:
    """The time of day at which the interview's zero lies, in UTC; what runs past midnight counts on past 24 h."""
    return (document.interview.zero_utc_ms or 0) % DAY_MS


def to_wall_json(document: Document) -> str:
    """As ``to_json``; every time is ``start``, ``stop``, ``started`` and the like, in ISO 8601 and UTC."""
    zero_ms = document.interview.zero_utc_ms or 0
    return msgspec.json.encode(_walled(msgspec.to_builtins(document), zero_ms)).decode()


def _walled(value: Value, zero_ms: int) -> Value:
    if isinstance(value, list | tuple):
        return [_walled(part, zero_ms) for part in value]
    if not isinstance(value, dict):
        return value
    told: dict[str, Value] = {}
    for name, part in value.items():
        if name.endswith("_utc_ms"):
            told[name.removesuffix("_utc_ms")] = iso(part) if isinstance(part, int) else None
        elif name in ("start_ms", "stop_ms") and isinstance(part, int):
            told[name.removesuffix("_ms")] = iso(zero_ms + part)
        else:
            told[name] = _walled(part, zero_ms)
    return told
