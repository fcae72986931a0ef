"""A service that takes events by HTTPS: ``POST {"events": [...]}``, signed, one request per batch of one interview.

2xx takes the batch.  408, 425, 429 and 5xx mean later, and ``Retry-After`` is honoured.  401, 403, 404 and redirects
mean that address or secret are wrong, which no event can help: later too.  Every other answer refuses the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs

from streamsrv.errors import SetupError
from streamsrv.sinks.base import Outcome, Record, failed, taken
from streamsrv.sinks.settings import WebhookSettings
from streamsrv.sinks.webhook.addresses import NotAllowed, Resolver, is_public
from streamsrv.sinks.webhook.signature import HEADER, sign

ANSWER_BYTES = 65_536
"""Read of an answer, so that the connection can be used again; one with a longer answer is closed."""
ANSWER_S = 1.0
"""Time the rest of an answer gets once its status is known."""
LONGEST_PAUSE_S = 3_600.0
"""A ``Retry-After`` beyond is taken for this."""
LATER = frozenset({408, 425, 429})
MISPLACED = frozenset({401, 403, 404, 407})
"""Answers about the address or the secret, not about the events."""


class WebhookSink:
    """Posts events.

    Args:
        utc_s: the wall clock, for signatures.

    Raises:
        SetupError: no address, no secret, or an address that is not allowed.
    """

    name = "webhook"

    def __init__(self, settings: WebhookSettings, *, utc_s: Callable[[], float] = time.time) -> None:
        self._url = _checked(settings)
        self._settings = settings
        self._utc_s = utc_s
        self._session: aiohttp.ClientSession | None = None

    async def send(self, batch: Sequence[Record]) -> Outcome:
        body = b'{"events":[' + b",".join(record.body for record in batch) + b"]}"
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._post(batch, body)
        except TimeoutError:
            return failed("unknown", "timeout")
        except (aiohttp.ClientConnectorError, NotAllowed) as error:
            refused = isinstance(error, NotAllowed) or isinstance(error.os_error, NotAllowed)
            return failed("unavailable", "address_not_allowed" if refused else type(error).__name__)
        except (aiohttp.ClientError, OSError) as error:
            return failed("unknown", type(error).__name__)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, batch: Sequence[Record], body: bytes) -> Outcome:
        headers = {
            hdrs.CONTENT_TYPE: "application/json",
            "Streamsrv-Interview": batch[0].interview,
            HEADER: sign(body, self._settings.secrets, at_s=int(self._utc_s())),
        }
        session = self._open()
        async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            outcome = _outcome(batch, response.status, response.headers, self._utc_s())
            await _finish(response)
            return outcome

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=Resolver(allow_private=self._settings.allow_private), use_dns_cache=False, limit=64
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # ``send`` has the deadline
                headers={hdrs.USER_AGENT: "streamsrv"},
                max_line_size=8_190,
                max_field_size=8_190,
            )
        return self._session


def _checked(settings: WebhookSettings) -> str:
    url = settings.url
    if url is None or not settings.secrets:
        raise SetupError("the webhook sink has no address or no secret", hint="set webhook.url and webhook.secrets")
    parts = urlsplit(url)
    if parts.scheme != "https" and not settings.allow_private:
        raise SetupError(
            "webhook.url is not https: what people say would travel in the open",
            hint="use https, or set webhook.allow_private for a service on this machine or network",
        )
    host = parts.hostname or ""
    # The client never asks a resolver about an address; what looks like one in another spelling is a name to it.
    if _is_address(host) and not settings.allow_private and not is_public(host):
        raise SetupError(
            "webhook.url is an address of this machine or of a private network",
            hint="use a public address, or set webhook.allow_private",
        )
    return url


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()


def _outcome(batch: Sequence[Record], status: int, headers: Mapping[str, str], now_s: float) -> Outcome:
    reason = f"status_{status}"
    if 200 <= status < 300:
        return taken(batch)
    if status in LATER or status >= 500:
        return failed("unavailable", reason, retry_after_s=_pause(headers.get(hdrs.RETRY_AFTER, ""), now_s))
    if status in MISPLACED or status < 400:
        return failed("unavailable", reason)
    return failed("refused", reason)


def _pause(text: str, now_s: float) -> float | None:
    """Seconds, from a number of them or from a date; ``None`` when it is neither."""
    if text.isdecimal() and len(text) < 12:
        return min(float(text), LONGEST_PAUSE_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (aware - datetime.fromtimestamp(now_s, UTC)).total_seconds()), LONGEST_PAUSE_S)


async def _finish(response: aiohttp.ClientResponse) -> None:
    """Read a short rest of the answer; of a long, slow or broken one nothing is wanted."""
    try:
        async with asyncio.timeout(ANSWER_S):
            left = ANSWER_BYTES
            while left > 0 and (piece := await response.content.read(left)):
                left -= len(piece)
            if left > 0:
                return
    except (TimeoutError, aiohttp.ClientError):
        pass
    response.close()
