"""``GET /transcription/{interview}``: what was said, in the form asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from streamsrv.errors import BadRequest, NotFound
from streamsrv.server.names import interview_of
from streamsrv.stores.base import TranscriptStore
from streamsrv.stores.transcript import Document, document, to_json, to_srt, to_txt, to_vtt

STORE = web.AppKey[TranscriptStore]("store", TranscriptStore)

FORMS: Mapping[str, tuple[str, Callable[[Document], str]]] = {
    "json": ("application/json", to_json),
    "txt": ("text/plain", to_txt),
    "srt": ("application/x-subrip", to_srt),
    "vtt": ("text/vtt", to_vtt),
}


async def transcript(request: web.Request) -> web.Response:
    """The stored transcript; making a long one takes a thread, not the event loop."""
    interview = interview_of(request)
    form = request.query.get("format", "json")
    if form not in FORMS:
        raise BadRequest("option 'format' is not one of json, txt, srt, vtt", hint="leave it out for json")
    store = request.app[STORE]
    found = await store.interview(interview)
    if found is None:
        raise NotFound(f"there is no interview '{interview}'", hint="it begins with its first stream")
    streams, finals = await store.streams(interview), await store.finals(interview)
    kind, render = FORMS[form]
    text = await asyncio.to_thread(lambda: render(document(found, streams, finals)))
    return web.Response(text=text, content_type=kind, charset="utf-8")
