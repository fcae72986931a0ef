"""Apache Kafka by ``aiokafka``: an idempotent producer, ``acks=all``, the interview as key.

An idempotent producer never gives a batch up, so the deadline is ours: what is not confirmed by then stays on its way
and is *unknown*.  When the same record is offered again while it is still on its way, it is waited for, not sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from streamsrv import telemetry
from streamsrv.errors import SetupError
from streamsrv.sinks.base import Outcome, Record, Verdict, failed, taken
from streamsrv.sinks.settings import KafkaSettings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

MAX_UNDER_WAY = 10_000
"""Records remembered that were on their way at a deadline; what is beyond may be sent twice."""
CLOSE_S = 0.3
"""Time the producer gets for what it has; then its connections are cut."""
REQUEST_TIMES = 3
"""The producer's own patience with a broker, in deadlines of ours: an answer that comes late is still an answer."""
PROTOCOLS = {"plain": "PLAINTEXT", "tls": "SSL", "sasl": "SASL_PLAINTEXT", "sasl_tls": "SASL_SSL"}
REFUSALS = frozenset({10, 44})
"""Codes about the record itself: too large, against a policy.  A bad timestamp (32) is about this machine's clock, and
the record is taken when that is right again.  aiokafka cannot tell 87 (invalid record) from codes it does not know, and
what nobody knows is tried again."""
_JSON = ("content-type", b"application/json")

log = telemetry.logger("kafka")


class KafkaSink:
    """Produces to one topic.

    Raises:
        SetupError: aiokafka is not installed, or settings are missing.
    """

    name = "kafka"

    def __init__(self, settings: KafkaSettings) -> None:
        if find_spec("aiokafka") is None:
            raise SetupError("the sink 'kafka' is not installed", hint="pip install 'streamsrv[kafka]'")
        if not settings.bootstrap:
            raise SetupError("the sink 'kafka' has no brokers", hint="set kafka.bootstrap, such as broker-1:9092")
        if settings.security.startswith("sasl") and not (settings.user and settings.password):
            raise SetupError("kafka.security is sasl, and user or password are missing", hint="set both, or use tls")
        from aiokafka import AIOKafkaProducer  # here, and not when speech is being heard: it takes a third of a second

        self._complaints = _Complaints()
        self._complaints.listen()
        self._make = AIOKafkaProducer
        self._settings = settings
        self._tls = _tls(settings)
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    async def send(self, batch: Sequence[Record]) -> Outcome:
        end = asyncio.get_running_loop().time() + self._settings.timeout_s
        under_way: list[asyncio.Future[Any]] = []
        trouble: Outcome | None = None
        producer: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout_at(end):
                producer = await self._started()
                await self._put(producer, batch, under_way)
        except TimeoutError:
            trouble = failed("unavailable", "timeout")
        except Exception as error:
            trouble = _not_sent(error)
        if under_way:
            await asyncio.wait(under_way, timeout=max(0.0, end - asyncio.get_running_loop().time()))
        outcome = self._outcome(batch, under_way, trouble)
        if producer is not None and any(_broke(future) for future in under_way):
            # What follows a batch that the broker refused would be out of sequence for it.
            await self._let_go(producer)
        return outcome

    async def close(self) -> None:
        if self._producer is not None:
            await self._let_go(self._producer)

    async def _started(self) -> AIOKafkaProducer:
        """The producer, connected; made anew after it broke."""
        if self._producer is None:
            async with self._starting:
                if self._producer is None:
                    self._producer = await self._start()
        return self._producer

    async def _start(self) -> AIOKafkaProducer:
        settings = self._settings
        producer = self._make(
            bootstrap_servers=list(settings.bootstrap),
            client_id="streamsrv",
            acks="all",
            enable_idempotence=True,
            compression_type=None if settings.compression == "none" else settings.compression,
            request_timeout_ms=int(settings.timeout_s * 1000 * REQUEST_TIMES),
            security_protocol=PROTOCOLS[settings.security],
            ssl_context=self._tls,
            sasl_mechanism=settings.sasl_mechanism,
            sasl_plain_username=settings.user,
            sasl_plain_password=settings.password,
        )
        try:
            self._complaints.newest = None
            await producer.start()
        except BaseException as error:
            await _cut(producer)
            if isinstance(error, Exception) and self._complaints.newest is not None:
                raise self._complaints.newest from error
            raise
        return producer

    async def _put(
        self, producer: AIOKafkaProducer, batch: Sequence[Record], under_way: list[asyncio.Future[Any]]
    ) -> None:
        """Hand records to the producer, in order; ``under_way`` gets what became of each, as far as it comes."""
        for record in batch:
            future = self._under_way.get(record.id)
            if future is None:
                headers = [("id", record.id.encode()), ("type", record.kind.encode()), _JSON]
                key = record.interview.encode()
                future = await producer.send(self._settings.topic, record.body, key, headers=headers)
            under_way.append(future)

    def _outcome(
        self, batch: Sequence[Record], under_way: Sequence[asyncio.Future[Any]], trouble: Outcome | None
    ) -> Outcome:
        found = [self._look(record, future) for record, future in zip(batch, under_way, strict=False)]
        for at, outcome in enumerate(found):
            if outcome is not None:
                return failed(outcome.verdict, outcome.reason, taken=at)
        if trouble is not None:
            return failed(trouble.verdict, trouble.reason, taken=len(found))
        return taken(batch)

    def _look(self, record: Record, future: asyncio.Future[Any]) -> Outcome | None:
        """What became of one record; ``None`` when it is there."""
        if not future.done():
            if len(self._under_way) < MAX_UNDER_WAY:
                self._under_way[record.id] = future
            future.add_done_callback(_seen)
            return failed("unknown", "timeout")
        self._under_way.pop(record.id, None)
        if future.cancelled():
            return failed("unknown", "closed")
        error = future.exception()
        return None if error is None else _sent(error)

    async def _let_go(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            self._under_way.clear()
            await _cut(producer)


class _Complaints(logging.Handler):
    """What aiokafka logs of each broker: a wrong password, an unknown certificate.  It raises that none answered.

    While brokers are away it complains twenty times a second; the outbox says so once, and its numbers tell.
    """

    newest: Exception | None = None

    def listen(self) -> None:
        """Nobody else hears it from now on."""
        logger = logging.getLogger("aiokafka")
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        logger.handlers[:] = [self]

    def emit(self, record: logging.LogRecord) -> None:
        said = record.args if isinstance(record.args, tuple) else ()
        self.newest = next((one for one in said if isinstance(one, Exception)), self.newest)


def _not_sent(error: Exception) -> Outcome:
    """The producer did not even take the record."""
    refused = getattr(error, "errno", None) in REFUSALS
    return failed("refused" if refused else "unavailable", type(error).__name__)


def _sent(error: BaseException) -> Outcome:
    """The broker answered, or the producer broke; only a code of the broker's says that the record is not there."""
    code = getattr(error, "errno", None)
    verdict: Verdict = "unknown" if code is None or code <= 0 else "refused" if code in REFUSALS else "unavailable"
    return failed(verdict, type(error).__name__)


def _broke(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None


def _seen(future: asyncio.Future[Any]) -> None:
    """Its error, if it has one, was looked at."""
    if not future.cancelled():
        future.exception()


async def _cut(producer: AIOKafkaProducer) -> None:
    """Stop a producer; what it cannot get rid of is not waited for.

    Its own ``stop`` waits without end for what it has, and whoever gives up waiting leaves its connections open.
    """
    sender = producer._sender
    task, sender._sender_task = sender.sender_task, None
    try:
        async with asyncio.timeout(CLOSE_S):
            await producer.flush()
    except Exception as error:
        log.debug("kafka.cut", error=error)
    if task is not None:
        task.cancel()
    try:
        async with asyncio.timeout(CLOSE_S):
            await producer.stop()
    except Exception as error:
        log.debug("kafka.cut", error=error)
    if task is not None:
        await asyncio.wait({task}, timeout=CLOSE_S)


def _tls(settings: KafkaSettings) -> ssl.SSLContext | None:
    if not settings.security.endswith("tls"):
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError("kafka.ca_file cannot be read", hint="name a file of PEM certificates") from error
