"""Uploads a file in a run, as a script would that wants it heard: again until it is taken, then looks until it is done.

An attempt that got no answer, or one that says that the server could not, may have been taken all the same.  Each names
itself in the option ``speaker``, so that its stream is found.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any

import aiohttp

from tests.adversity.runs.ledger import Sending
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.plan import File
from tests.support.recordings import encoded, wav

AGAIN_S = 0.2
"""Pause before another attempt, and between two looks."""
ANSWER_WITHIN_S = 3.0
LOST_AFTER = 5
"""Times in a row a server that has the store must deny a job before it is believed."""
OPEN = ("queued", "running")
LATER = frozenset({408, 429})


def speaker_of(number: int) -> str:
    """What the streams of a file are told by."""
    return f"file {number}"


async def send(file: File, number: int, port: int, noted: Sending) -> None:
    """Have it heard, and note how that ended."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    async with aiohttp.ClientSession(f"http://{HOST}:{port}", timeout=timeout) as http:
        body = _body(file)
        while not noted.job and noted.ended == "never":
            noted.attempts += 1
            await _attempt(http, file, number, body, noted)
        denied = 0
        while noted.ended == "never" and denied < LOST_AFTER:
            await asyncio.sleep(AGAIN_S)
            denied = 0 if await _look(http, noted) else denied + 1
        if denied:
            noted.ended = "lost: the server does not know the job any more"


def _body(file: File) -> bytes:
    samples, rate = file.speech.audio(), file.speech.rate_hz
    return wav(samples, rate=rate) if file.kind == "WAV" else encoded(samples, file.kind, rate=rate)


async def _attempt(http: aiohttp.ClientSession, file: File, number: int, body: bytes, noted: Sending) -> None:
    form = aiohttp.FormData({"interviewId": file.interview, "speaker": speaker_of(number)})
    form.add_field("file", io.BytesIO(body), filename=f"said.{file.kind.lower()}")
    try:
        async with http.post("/transcription/upload?wait=0", data=form) as answer:
            said: dict[str, Any] = await answer.json()
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return await asyncio.sleep(AGAIN_S)
    if answer.status == 202:
        noted.job, noted.stream = said["id"], said["stream"]
    elif answer.status >= 500 or answer.status in LATER:
        await asyncio.sleep(AGAIN_S)
    else:
        noted.ended = f"{answer.status}: {said}"


async def _look(http: aiohttp.ClientSession, noted: Sending) -> bool:
    """Whether the job was not denied."""
    try:
        async with http.get(f"/transcription/jobs/{noted.job}") as answer:
            if answer.status == 404:
                return False
            said: dict[str, Any] = await answer.json()
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return True
    if answer.status == 200 and said["state"] not in OPEN:
        noted.ended = said["state"] if said["error"] is None else f"{said['state']}: {said['error']}"
    return True
