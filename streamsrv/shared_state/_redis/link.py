"""The way to Redis: bounded in time, away without a fuss, found again by itself.

redis-py retries ten times by default, which cost 15 s a call at a stopped server; here a call is made once, under a
deadline, and whoever made it goes on without the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeAlias

from streamsrv import telemetry
from streamsrv.errors import SetupError
from streamsrv.shared_state._redis.numbers import Numbers
from streamsrv.shared_state._redis.settings import RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

CONNECTIONS: Final = 16
"""Connections this node may have; further calls fail, as if Redis were away."""
CALLS: Final = 12
"""Calls made at once, so that connections are left for listening."""
CANCEL_EVERY_S: Final = 0.1
BATCH: Final = 256
"""Commands sent in one go."""

Command: TypeAlias = tuple[str | bytes | int | float, ...]
log = telemetry.logger("shared_state")


class Away(Exception):
    """Redis does not answer, or not us.  Never leaves shared state."""


class Link:
    """Commands and their answers, and whether they come.

    Args:
        settings: where Redis is.
        numbers: counts.

    Raises:
        SetupError: the extra is missing, or the address makes no sense.
    """

    def __init__(self, settings: RedisSettings, numbers: Numbers) -> None:
        if find_spec("redis") is None:
            raise SetupError("redis.url is set, and the client for it is not installed", hint=INSTALL)
        self.well = asyncio.Event()
        """Set while Redis answers."""
        self.lost = asyncio.Event()
        """Set while it does not."""
        self.refuses = False
        """Whether it answers, but takes nothing: it is full, or a replica, or we may not."""
        self.deaf = True
        """Whether what others say does not arrive."""
        self.timeout_s = settings.timeout_s
        self.failures: tuple[type[Exception], ...] = _failures()
        self._url = settings.url or ""
        self._numbers = numbers
        self._calls = asyncio.Semaphore(CALLS)
        self._client = self._connect()
        self._said = False
        self._known = False
        self.lost.set()
        numbers.degraded.set(1)

    @property
    def degraded(self) -> bool:
        return self.deaf or self.refuses or not self.well.is_set()

    async def run(self, commands: Sequence[Command], *, within_s: float | None = None) -> list[object]:
        """Send commands in order, together; an answer each, errors of single commands among them.

        Raises:
            Away: no answer came; what was done is not known.
        """
        answers: list[object] = []
        for at in range(0, len(commands), BATCH):
            try:
                async with asyncio.timeout(within_s or 2 * self.timeout_s), self._calls:
                    pipeline = self._client.pipeline(transaction=False)
                    for command in commands[at : at + BATCH]:
                        pipeline.execute_command(*command)
                    answers += await pipeline.execute(raise_on_error=False)
            except self.failures as error:
                self.away(error)
                raise Away from error
        for answer in answers:  # refusals of all commands, such as a password that is no longer right
            if isinstance(answer, self.failures) and type(answer).__name__ in LOCKED_OUT:
                self.away(answer)
                raise Away from answer
        return answers

    def pubsub(self) -> PubSub:
        return self._client.pubsub()

    def away(self, error: BaseException) -> None:
        """It does not answer; said once."""
        if not self._said:
            log.warning("shared_state.away", error=error, note="limits hold for this node alone until it is back")
        self._said = True
        self.well.clear()
        self.lost.set()
        self.show()

    def back(self) -> None:
        """It answers."""
        if not self.well.is_set():
            log.info("shared_state.connected")
            self.lost.clear()
            self.well.set()
            self._numbers.reconnects.inc(int(self._known))
        self._known, self._said = True, False
        self.show()

    def refused(self, answers: Sequence[object]) -> None:
        """What answers tell of whether it takes anything; said once."""
        error = next((answer for answer in answers if isinstance(answer, self.failures)), None)
        if error is not None and not self.refuses:
            note = "it takes no writes; limits hold for this node alone until it does"
            log.warning("shared_state.refused", error=error, note=note)
        elif error is None and self.refuses:
            log.info("shared_state.taken_again")
        self.refuses = error is not None
        self.show()

    def show(self) -> None:
        self._numbers.degraded.set(int(self.degraded))

    async def renew(self) -> None:
        """Let go of connections in an unknown state."""
        old, self._client = self._client, self._connect()
        await self._shut(old)

    async def close(self) -> None:
        await self._shut(self._client)

    async def _shut(self, client: Redis) -> None:
        try:
            async with asyncio.timeout(self.timeout_s):
                await client.aclose()
                await client.connection_pool.disconnect()
        except self.failures:
            pass

    def _connect(self) -> Redis:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        try:
            return Redis.from_url(
                self._url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=self.timeout_s,
                socket_connect_timeout=self.timeout_s,
                socket_keepalive=True,
                health_check_interval=0,
                max_connections=CONNECTIONS,
                protocol=2,
            )
        except (ValueError, TypeError) as error:
            raise SetupError(
                "redis.url is no address of a Redis",
                hint="it is redis://[:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS",
            ) from error


INSTALL: Final = "run: pip install 'streamsrv[redis]'"
LOCKED_OUT: Final = frozenset({"AuthenticationError", "AuthenticationWrongNumberOfArgsError", "BusyLoadingError"})
"""Errors by which Redis says that it serves nobody, or not us."""


async def end(tasks: Collection[asyncio.Future[object]] | Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended.

    ``asyncio.wait_for``, which redis-py sends by, swallows a cancellation that comes at the wrong moment before Python
    3.12; so it is said until it is heard.
    """
    left = [task for task in tasks if not task.done()]
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_EVERY_S)
        left = [task for task in left if not task.done()]


def _failures() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return (RedisError, OSError, TimeoutError)
