"""``POST /transcription/upload``: a recording as a file, heard behind live speech."""

from __future__ import annotations

import asyncio
import math

import msgspec
from aiohttp import HttpVersion11, hdrs, web

from streamsrv.commands import Options
from streamsrv.dialects.native import MAX_NAMED, merge_options
from streamsrv.errors import BadRequest, NotFound
from streamsrv.runtime.job_work import Progress
from streamsrv.runtime.jobs import Jobs
from streamsrv.runtime.settings import UploadSettings
from streamsrv.runtime.uploads import Spool
from streamsrv.server.answers import DOOR, METRICS, answer, plain_refusal
from streamsrv.server.form import Form, unknown
from streamsrv.server.jobs import JOBS, job_body, job_path
from streamsrv.server.names import check_interview
from streamsrv.server.pace import Pace
from streamsrv.server.starts import STARTS
from streamsrv.server.transcripts import STORE
from streamsrv.stores.base import Job
from streamsrv.stores.transcript import document

UPLOAD = web.AppKey("upload", UploadSettings)

WAIT_S = 30.0
"""How long the answer waits for the transcript when the client does not say."""
MOST_WAIT_S = 600.0
MAX_QUERY = 32
"""Options of the query; one more is refused, since each is compared with all that are known."""
MEBIBYTE = 1_048_576
OPTIONS = frozenset(Options.__struct_fields__) - {"encoding", "interim"}
"""Those of a stream, but for two that mean nothing for a file."""
FIELDS = OPTIONS | {"interviewId"}


async def no_hurry(request: web.Request) -> None:
    """``Expect: 100-continue`` is answered when the request was looked at, not before."""


async def upload(request: web.Request) -> web.Response:
    """Take a file; answer with the transcript when it is there in time, else with where to look."""
    wait_s, ignored = _wait_s(request), _query(request)
    jobs = request.app[JOBS]
    with jobs.receive():
        job = await _receive(request, jobs, ignored)
    progress = await jobs.wait(job.id, wait_s)
    return await _answer(request, progress)


async def _receive(request: web.Request, jobs: Jobs, ignored: list[str]) -> Job:
    settings = request.app[UPLOAD]
    spool = jobs.uploads.spool()
    try:
        form = _form(request, settings, spool)
        await jobs.uploads.require(request.content_length or 0)
        await request.app[STARTS].count(request.app[DOOR].holder(request))
        await spool.open()
        await _continue(request)
        await form.read()
        interview, options = _asked(form)
        jobs.check(options)
        await spool.finish()
        request.app[METRICS].upload_bytes.inc(spool.size)
        warnings = _warnings(form, ignored)
        return await jobs.add(interview, options, spool, _inert(form.filename), warnings)
    except BaseException:
        await spool.discard()
        raise


def _form(request: web.Request, settings: UploadSettings, spool: Spool) -> Form:
    pace = Pace(request.content, min_bytes_per_s=settings.min_bytes_per_s, within_s=settings.within_s)
    return Form(request, pace, fields=FIELDS, file="file", max_bytes=settings.max_mb * MEBIBYTE, take=spool.write)


async def _continue(request: web.Request) -> None:
    expected = request.headers.get(hdrs.EXPECT, "").lower()
    if expected == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _asked(form: Form) -> tuple[str, Options]:
    if "interviewId" not in form.values:
        raise BadRequest("the form has no field 'interviewId'", hint="add: -F interviewId=my-interview")
    interview = check_interview(form.values["interviewId"])
    wanted = {name: value for name, value in form.values.items() if name in OPTIONS and value}
    options, _ = merge_options(Options(), wanted, strict=False)
    return interview, options


def _query(request: web.Request) -> list[str]:
    """Names in the query that nobody knows.

    Raises:
        BadRequest: one belongs elsewhere, or is mistyped, or there are too many.
    """
    if len(request.query) > MAX_QUERY:
        raise BadRequest(f"the query has more than {MAX_QUERY} options", hint="an upload knows only 'wait'")
    for name in request.query:
        if name in FIELDS:
            raise BadRequest(f"'{name}' is a part of the form, not of the query", hint=f"use -F {name}=...")
    return [unknown("option", name, ("wait", *FIELDS)) for name in request.query if name != "wait"]


def _warnings(form: Form, query: list[str]) -> tuple[str, ...]:
    """What of a request had no effect."""
    told = (("parts of the form", form.ignored), ("options of the query", query))
    return tuple(
        f"{what} that mean nothing here, ignored: {', '.join(repr(name) for name in names[:MAX_NAMED])}"
        for what, names in told
        if names
    )


def _wait_s(request: web.Request) -> float:
    text = request.query.get("wait", str(WAIT_S))
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s <= MOST_WAIT_S:
        raise BadRequest("option 'wait' is not a number of seconds", hint=f"use 0 to {MOST_WAIT_S:g}")
    return wait_s


def _inert(filename: str | None) -> str | None:
    """A client's name for its file, without what could steer a terminal or hide its end; shown, never used."""
    if filename is None:
        return None
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in filename)


async def _answer(request: web.Request, progress: Progress) -> web.Response:
    job = progress.job
    headers: dict[str, str] = {hdrs.LOCATION: job_path(job.id)}
    match job.state:
        case "done":
            text = await _transcript(request, job)
            return web.Response(text=text, content_type="application/json", charset="utf-8", headers=headers)
        case "failed" if job.error is not None:
            error = job.error
            refused = plain_refusal(error.http_status, error.code, error.message, error.hint)
            refused.headers.update(headers)
            return refused
        case "cancelled":
            refused = plain_refusal(409, "cancelled", "the job was cancelled before it was done")
            refused.headers.update(headers)
            return refused
        case _:
            return answer(job_body(progress), status=202, headers=headers)


async def _transcript(request: web.Request, job: Job) -> str:
    """The interview's document, as ``GET`` gives it, and what is to be said about this file."""
    store = request.app[STORE]
    found = await store.interview(job.interview)
    if found is None:
        raise NotFound("the interview was deleted meanwhile")
    streams, finals = await store.streams(job.interview), await store.finals(job.interview)

    def made() -> str:
        told = msgspec.structs.asdict(document(found, streams, finals))
        return msgspec.json.encode(told | {"warnings": job.warnings}).decode()

    return await asyncio.to_thread(made)
