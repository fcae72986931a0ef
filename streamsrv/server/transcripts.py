"""Transcripts: one, in the form asked for, the list of them, and their end."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import get_args

import msgspec
from aiohttp import web

from streamsrv.errors import BadRequest, NotFound
from streamsrv.runtime.archive import Archive
from streamsrv.server.answers import answer
from streamsrv.server.names import interview_of
from streamsrv.stores.base import InterviewStatus, ListedInterview, ListPlace, TranscriptStore
from streamsrv.stores.transcript import (
    Document,
    day_offset_ms,
    document,
    iso,
    to_json,
    to_srt,
    to_txt,
    to_vtt,
    to_wall_json,
)

STORE = web.AppKey[TranscriptStore]("store", TranscriptStore)
ARCHIVE = web.AppKey("archive", Archive)

MAX_LISTED = 200
"""Interviews in one page of the list; a larger ``limit`` is refused."""
STATUSES: tuple[InterviewStatus, ...] = get_args(InterviewStatus)
MAX_CURSOR = 400
"""Characters of a cursor looked at."""

Render = Callable[[Document], str]
FORMS: Mapping[str, tuple[str, Render, Render]] = {
    "json": ("application/json", to_json, to_wall_json),
    "txt": ("text/plain", to_txt, to_txt),
    "srt": ("application/x-subrip", to_srt, lambda told: to_srt(told, day_offset_ms(told))),
    "vtt": ("text/vtt", to_vtt, lambda told: to_vtt(told, day_offset_ms(told))),
}
"""Per form: its type, and how it is written on the audio's clock and on the wall's."""


async def transcript(request: web.Request) -> web.Response:
    """The stored transcript; making a long one takes a thread, not the event loop."""
    interview = interview_of(request)
    form, clock = request.query.get("format", "json"), request.query.get("clock", "audio")
    if form not in FORMS:
        raise BadRequest("option 'format' is not one of json, txt, srt, vtt", hint="leave it out for json")
    if clock not in ("audio", "wall"):
        raise BadRequest("option 'clock' is neither audio nor wall", hint="leave it out for audio")
    store = request.app[STORE]
    found = await store.interview(interview)
    if found is None:
        raise NotFound(f"there is no interview '{interview}'", hint="it begins with its first stream")
    streams, finals = await store.streams(interview), await store.finals(interview)
    kind, on_audio, on_wall = FORMS[form]
    render = on_wall if clock == "wall" else on_audio
    text = await asyncio.to_thread(lambda: render(document(found, streams, finals)))
    return web.Response(text=text, content_type=kind, charset="utf-8")


async def delete(request: web.Request) -> web.Response:
    """Delete an interview with all that belongs to it."""
    interview = interview_of(request)
    if not await request.app[ARCHIVE].delete(interview):
        raise NotFound(f"there is no interview '{interview}'", hint="it was deleted before, or never began")
    return web.Response(status=204)


# --- the list ----------------------------------------------------------------------------------------------------


async def interviews(request: web.Request) -> web.Response:
    """A page of interviews, newest first; ``next`` leads to the following one."""
    query = request.query
    limit = _limit(query.get("limit", "50"))
    page = await request.app[STORE].interviews(
        status=_status(query.get("status")),
        since_ms=_moment("since", query.get("since")),
        until_ms=_moment("until", query.get("until")),
        after=_place(query.get("cursor")),
        limit=limit + 1,
    )
    shown = page[:limit]
    cursor = _cursor(shown[-1]) if len(page) > limit else None
    return answer({"interviews": [_entry(one) for one in shown], "next": cursor})


def _entry(listed: ListedInterview) -> dict[str, object]:
    found = listed.interview
    here = f"/transcription/{found.id}"
    times = (("scheduled", found.scheduled_ms), ("started", found.started_ms), ("ended", found.ended_ms))
    return {
        "id": found.id,
        "status": found.status,
        **{name: None if ms is None else iso(ms) for name, ms in times},
        "streams": listed.streams,
        "links": {"transcript": here, "events": f"{here}/events", "recordings": f"{here}/recordings"},
    }


def _status(text: str | None) -> InterviewStatus | None:
    if text is None:
        return None
    for status in STATUSES:
        if text == status:
            return status
    raise BadRequest("option 'status' is no status of an interview", hint=", ".join(STATUSES))


def _limit(text: str) -> int:
    if text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_LISTED:
        return int(text)
    raise BadRequest(f"option 'limit' is no number from 1 to {MAX_LISTED}", hint="ask for the next page with 'cursor'")


def _moment(name: str, text: str | None) -> int | None:
    """A time in ISO 8601; without an offset it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadRequest(f"option '{name}' is no time", hint="write it as 2026-01-31T09:00:00Z") from None


def _cursor(listed: ListedInterview) -> str:
    place = msgspec.json.encode((listed.at_ms, listed.interview.id))
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _place(text: str | None) -> ListPlace | None:
    if text is None:
        return None
    try:
        known = base64.b64decode(text[:MAX_CURSOR] + "==", altchars=b"-_")
        return ListPlace(*msgspec.json.decode(known, type=tuple[int, str]))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise BadRequest("option 'cursor' is not one of ours", hint="take 'next' from the page before") from None
