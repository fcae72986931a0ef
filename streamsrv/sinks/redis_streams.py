"""A Redis stream by ``redis``: one ``XADD`` per event, a batch in one ``MULTI``: it is there whole or not at all.

Entries have the fields ``id``, ``type``, ``interview`` and ``event`` (JSON).  Redis acknowledges before its disk does:
how much a crash of Redis may lose is its own setting (``appendfsync``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from streamsrv.errors import SetupError
from streamsrv.sinks.base import Outcome, Record, failed, taken
from streamsrv.sinks.settings import RedisStreamsSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

CONNECTIONS = 32
"""Connections held at most; a batch that finds none free waits for one, within its deadline."""


class RedisStreamsSink:
    """Adds to one stream.

    Raises:
        SetupError: redis is not installed, or there is no address.
    """

    name = "redis_streams"

    def __init__(self, settings: RedisStreamsSettings) -> None:
        if find_spec("redis") is None:
            raise SetupError("the sink 'redis_streams' is not installed", hint="pip install 'streamsrv[redis]'")
        if settings.url is None:
            raise SetupError("the sink 'redis_streams' has no server", hint="set redis_streams.url")
        import redis.asyncio  # here, and not when speech is being heard

        self._library = redis
        self._settings = settings
        self._url = settings.url
        self._redis: Redis | None = None

    async def send(self, batch: Sequence[Record]) -> Outcome:
        exceptions = self._library.exceptions
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._add(batch)
        except (TimeoutError, exceptions.TimeoutError):
            return failed("unknown", "timeout")
        except exceptions.ResponseError as error:
            return failed("unavailable", _code(error))
        except exceptions.ConnectionError as error:
            return failed("unknown", type(error).__name__)
        except (exceptions.RedisError, OSError) as error:
            return failed("unavailable", type(error).__name__)
        return taken(batch)

    async def close(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()

    async def _add(self, batch: Sequence[Record]) -> None:
        """All or nothing: a command that Redis will not queue (no memory, read-only) takes back the whole batch."""
        settings = self._settings
        trim: dict[str, Any] = {"maxlen": settings.max_length, "approximate": True} if settings.max_length else {}
        async with self._opened().pipeline(transaction=True) as pipe:
            for record in batch:
                fields: dict[Any, Any] = {
                    "id": record.id,
                    "type": record.kind,
                    "interview": record.interview,
                    "event": record.body,
                }
                pipe.xadd(settings.stream, fields, **trim)
            await pipe.execute()

    def _opened(self) -> Redis:
        if self._redis is None:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            # The client's own ten retries would each send the batch again.
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=self._settings.timeout_s,
                socket_timeout=self._settings.timeout_s,
                socket_connect_timeout=self._settings.timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
            self._redis = Redis.from_pool(pool)
        return self._redis


def _code(error: Exception) -> str:
    """The first word of Redis's answer, such as ``OOM`` or ``READONLY``: what follows may quote what was sent."""
    word = str(error).split(" ", 1)[0]
    return word if word.isascii() and word.isupper() and len(word) <= 20 else type(error).__name__
