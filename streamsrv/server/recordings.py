"""``GET /transcription/{interview}/recordings``: what was recorded, and the files."""

from __future__ import annotations

from aiohttp import web

from streamsrv.errors import Conflict, NotFound
from streamsrv.runtime.recorder import Recorder
from streamsrv.server.answers import answer
from streamsrv.server.names import interview_of
from streamsrv.server.transcripts import STORE
from streamsrv.stores.base import Stream

RECORDER = web.AppKey("recorder", Recorder)


async def recordings(request: web.Request) -> web.Response:
    """Which channels of which streams are recorded."""
    interview = interview_of(request)
    recorder = request.app[RECORDER]
    streams = {stream.id: stream for stream in await _streams(request, interview)}
    found = [
        {
            "stream": kept.stream,
            "channel": kept.channel,
            "speaker": streams[kept.stream].options.speaker,
            "seconds": kept.seconds,
            "complete": _complete(recorder, streams[kept.stream]),
            "links": {"flac": f"/transcription/{interview}/recordings/{kept.stream}/{kept.channel}.flac"},
        }
        for kept in await recorder.kept(interview)
        if kept.stream in streams
    ]
    return answer({"interview": interview, "recordings": found})


async def recording(request: web.Request) -> web.StreamResponse:
    """One channel of one stream that has ended; ranges are served."""
    interview = interview_of(request)
    name, channel = request.match_info["stream"], request.match_info["channel"]
    stream = next((stream for stream in await _streams(request, interview) if stream.id == name), None)
    if stream is None or channel not in map(str, range(stream.options.tracks)):
        raise NotFound("there is no such stream or channel", hint="the list of recordings names them")
    if not _complete(request.app[RECORDER], stream):
        raise Conflict("the stream is still being recorded", hint="ask again when it has ended")
    path = await request.app[RECORDER].whole(interview, stream.id, int(channel))
    if path is None:
        raise NotFound("this stream was not recorded", hint="record=true, when a stream begins, records it")
    named = f'attachment; filename="{stream.id}-{channel}.flac"'
    return web.FileResponse(path, headers={"Content-Type": "audio/flac", "Content-Disposition": named})


def _complete(recorder: Recorder, stream: Stream) -> bool:
    """Whether nothing more comes; the session lets go of its files a moment after its stream has ended."""
    return stream.status == "ended" and not recorder.running(stream.id)


async def _streams(request: web.Request, interview: str) -> tuple[Stream, ...]:
    store = request.app[STORE]
    if await store.interview(interview) is None:
        raise NotFound(f"there is no interview '{interview}'", hint="it begins with its first stream")
    return await store.streams(interview)
