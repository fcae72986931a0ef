"""``/transcription/jobs/{job}``: how an uploaded file stands, and its end before its time."""

from __future__ import annotations

import math
from typing import Any

from aiohttp import web

from streamsrv.runtime.job_work import Progress
from streamsrv.runtime.jobs import Jobs
from streamsrv.server.answers import answer

JOBS = web.AppKey("jobs", Jobs)


async def look(request: web.Request) -> web.Response:
    """A job as it is now."""
    return answer(job_body(await request.app[JOBS].progress(request.match_info["job"])))


async def cancel(request: web.Request) -> web.Response:
    """End a job; what was stored of it stays."""
    return answer(job_body(await request.app[JOBS].cancel(request.match_info["job"])))


def job_path(job: str) -> str:
    return f"/transcription/jobs/{job}"


def job_body(progress: Progress) -> dict[str, Any]:
    """A job in JSON's words."""
    job = progress.job
    body: dict[str, Any] = {
        "id": job.id,
        "interview": job.interview,
        "stream": job.stream,
        "state": job.state,
        "progress": None if progress.share is None else round(progress.share, 4),
        "audio_ms": progress.audio_ms,
        "duration_ms": progress.duration_ms,
        "eta_s": None if progress.eta_s is None else math.ceil(10 * progress.eta_s) / 10,
        "engine": job.engine,
        "filename": job.filename,
        "size_bytes": job.size_bytes,
        "created_ms": job.created_ms,
        "started_ms": job.started_ms,
        "ended_ms": job.ended_ms,
        "warnings": list(job.warnings),
        "error": None,
        "links": {"self": job_path(job.id), "transcript": f"/transcription/{job.interview}"},
    }
    if job.error is not None:
        error = job.error
        body["error"] = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "retryable": error.retryable,
        }
    return body
