"""HTTP answers of the house: JSON, errors included, and nothing of the request in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
from aiohttp import hdrs, web

from streamsrv import telemetry
from streamsrv.errors import BodyTooBig, StreamsrvError, UnsupportedMedia
from streamsrv.server.auth import Door
from streamsrv.server.page import PATHS as PAGE_PATHS

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
DOOR = web.AppKey("door", Door)
METRICS = web.AppKey("metrics", telemetry.Metrics)
OPEN_PATHS = frozenset({"/health", "/health/ready"}) | PAGE_PATHS
"""Asked by load balancers and orchestrators, and by browsers before they can know that a key is needed; they tell
nothing worth one."""

BODIES = frozenset({(hdrs.METH_POST, "/transcription/upload")})
"""What takes a body, and watches its length and pace itself."""

NAME = "streamsrv"
"""All that answers tell about the software: versions help attackers first."""

log = telemetry.logger("door")


def answer(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers)


def refusal(error: StreamsrvError) -> web.Response:
    """An error as a response; ``Retry-After`` where it is known."""
    body = {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if error.http_status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if error.http_status == 426:
        headers[hdrs.UPGRADE] = "websocket"
        headers[hdrs.SEC_WEBSOCKET_VERSION] = "13"
    return answer({"error": body, **error.more}, status=error.http_status, headers=headers)


def plain_refusal(status: int, code: str, message: str, hint: str = "") -> web.Response:
    """An error that is none of ours, in the same shape."""
    body = {"code": code, "message": message, "hint": hint, "retryable": False}
    return answer({"error": body}, status=status)


@web.middleware
async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every request passes here once: door check, body check, and one shape for all errors."""
    try:
        if request.path not in OPEN_PATHS:
            request.app[DOOR].check(request)
        _refuse_body(request)
        return await handler(request)
    except StreamsrvError as error:
        request.app[METRICS].refused.labels(error.code).inc()
        log.info("request.refused", error=error.code, status=error.http_status, method=request.method)
        refused = refusal(error)
        if request.can_read_body:
            refused.force_close()  # what is left of the body is not read as a next request
        return refused
    except web.HTTPException as error:
        return _http_error(request, error)


def _refuse_body(request: web.Request) -> None:
    """A body that is not taken is not read either: a slow one cannot hold a handler."""
    if hdrs.CONTENT_ENCODING in request.headers:
        raise UnsupportedMedia("compressed request bodies are not taken", hint="send the body without Content-Encoding")
    if request.can_read_body and (request.method, request.path) not in BODIES:
        raise BodyTooBig("this request has a body, and nothing here takes one", hint="send it without a body")


def _http_error(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    match error.status:
        case 404:
            message = "there is nothing at this path"
        case 405:
            message = "this path does not take this method"
        case _:
            message = error.reason or "the request is not acceptable"
    refused = plain_refusal(error.status, "http", message, "docs/protocol.md lists the paths")
    if hdrs.ALLOW in error.headers:
        refused.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return refused
