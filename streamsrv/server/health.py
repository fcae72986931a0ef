"""``/health``, ``/health/ready`` and ``/metrics``."""

from __future__ import annotations

from aiohttp import web

import streamsrv
from streamsrv.runtime.engines import Engines
from streamsrv.server.answers import METRICS, answer
from streamsrv.server.stream import STREAMS
from streamsrv.server.viewer import FANOUT

ENGINES = web.AppKey("engines", Engines)


async def health(request: web.Request) -> web.Response:
    """Alive, and what with."""
    streams = request.app[STREAMS]
    engines = [
        {"name": e.about.name, "model": e.about.model, "device": e.about.device, "healthy": e.healthy}
        for e in request.app[ENGINES].all
    ]
    shared = request.app[FANOUT].shared.condition
    ok = all(engine["healthy"] for engine in engines) and shared != "degraded"
    body = {
        "status": "ok" if ok else "degraded",
        "version": streamsrv.__version__,
        "engines": engines,
        "shared_state": shared,
        "sessions": streams.connected,
        "draining": streams.draining,
    }
    return answer(body)


async def ready(request: web.Request) -> web.Response:
    """Whether newcomers should be sent here: false only while engines load, and while draining."""
    ready = request.app[ENGINES].ready and not request.app[STREAMS].draining
    return answer({"ready": ready}, status=200 if ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """Numbers for Prometheus."""
    numbers = request.app[METRICS]
    return web.Response(body=numbers.render(), headers={"Content-Type": numbers.content_type})
