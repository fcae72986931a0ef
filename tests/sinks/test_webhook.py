"""The webhook against a real HTTP server: what each answer means, what is signed, and where it never goes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import web

from streamsrv.errors import SetupError
from streamsrv.sinks import webhook as module
from streamsrv.sinks.base import Outcome
from streamsrv.sinks.settings import WebhookSettings
from streamsrv.sinks.webhook import WebhookSink
from streamsrv.sinks.webhook.addresses import NotAllowed, Resolver, is_public
from streamsrv.sinks.webhook.signature import HEADER, sign, verify
from tests.sinks.records import records

SECRET, OTHER = "0123456789abcdef", "fedcba9876543210"
NOW_S = 1_790_000_000
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A service that notes what it gets and answers as it is told."""

    port: int = 0
    answer: Handler | None = None
    bodies: list[bytes] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?source=streamsrv"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        return web.Response(status=204) if self.answer is None else await self.answer(request)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def sink(receiver: Receiver) -> AsyncIterator[WebhookSink]:
    made = WebhookSink(settings(receiver.url), utc_s=lambda: NOW_S)
    yield made
    await made.close()


def settings(url: str, **more: Any) -> WebhookSettings:
    values: dict[str, Any] = {"url": url, "secrets": (SECRET,), "allow_private": True, "timeout_s": 2.0}
    return WebhookSettings(**(values | more))


def status(code: int, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return answer


# --- what is sent -------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_signed_post(sink: WebhookSink, receiver: Receiver) -> None:
    batch = records(3)
    assert await sink.send(batch) == Outcome(taken=3)
    (request,), (body,) = receiver.requests, receiver.bodies
    assert (request.method, request.path_qs) == ("POST", "/events?source=streamsrv")
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Streamsrv-Interview"] == "talk"
    assert json.loads(body) == {"events": [json.loads(record.body) for record in batch]}
    header = request.headers[HEADER]
    assert verify(header, body, [SECRET], now_s=NOW_S)
    assert not verify(header, body + b" ", [SECRET], now_s=NOW_S)
    assert not verify(header, body, [OTHER], now_s=NOW_S)


async def test_connections_are_used_again(sink: WebhookSink, receiver: Receiver) -> None:
    for _ in range(5):
        await sink.send(records(1))
    peers = {request.transport and request.transport.get_extra_info("peername") for request in receiver.requests}
    assert len(receiver.requests) == 5
    assert len(peers) == 1


def test_a_signature_is_what_the_page_says() -> None:
    """Also by another program: printf '%s' '1.{}' | openssl dgst -sha256 -hmac 0123456789abcdef"""
    assert sign(b"{}", [SECRET], at_s=1) == ("t=1,v1=2af693cb56b22c16912222aeefdc75a01de562bf70ee2015f41ecea48382997f")


def test_secrets_can_be_changed_without_a_gap() -> None:
    both = sign(b"body", [SECRET, OTHER], at_s=NOW_S)
    assert both.count("v1=") == 2
    for known in ([SECRET], [OTHER], [OTHER, "x" * 16]):
        assert verify(both, b"body", known, now_s=NOW_S)


@pytest.mark.parametrize(
    ("header", "now_s"),
    [
        ("", NOW_S),
        ("v1=00", NOW_S),
        (f"t={NOW_S}", NOW_S),
        ("t=x,v1=00", NOW_S),
        (sign(b"body", [SECRET], at_s=NOW_S), NOW_S + 301),
        (sign(b"body", [SECRET], at_s=NOW_S), NOW_S - 301),
        (sign(b"body", [SECRET], at_s=NOW_S).replace("t=", f"t={NOW_S},t="), NOW_S),
        (sign(b"body", [SECRET], at_s=NOW_S - 9).replace(f"t={NOW_S - 9}", f"t={NOW_S}"), NOW_S),
    ],
)
def test_signatures_that_are_wrong_or_old(header: str, now_s: int) -> None:
    assert not verify(header, b"body", [SECRET], now_s=now_s)


# --- what answers mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        *[(code, "taken") for code in (200, 201, 202, 204, 207)],
        *[(code, "refused") for code in (400, 405, 409, 410, 413, 415, 422, 451)],
        *[(code, "unavailable") for code in (401, 403, 404, 407, 408, 425, 429, 500, 502, 503, 504, 599)],
        *[(code, "unavailable") for code in (301, 302, 303, 307, 308)],
    ],
)
async def test_each_status(sink: WebhookSink, receiver: Receiver, code: int, verdict: str) -> None:
    receiver.answer = status(code, Location=receiver.url)
    outcome = await sink.send(records(2))
    assert outcome.verdict == verdict
    assert outcome.taken == (2 if verdict == "taken" else 0)
    assert len(receiver.requests) == 1, "redirects are not followed"


@pytest.mark.parametrize(
    ("text", "pause_s"),
    [
        ("7", 7.0),
        ("99999", 3_600.0),
        ("Mon, 21 Sep 2026 14:14:00 GMT", 40.0),
        ("Mon, 21 Sep 2020 14:14:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
async def test_retry_after(sink: WebhookSink, receiver: Receiver, text: str, pause_s: float | None) -> None:
    receiver.answer = status(503, **{"Retry-After": text})
    assert (await sink.send(records(1))).retry_after_s == pause_s


async def test_a_receiver_that_does_not_answer_may_have_it(receiver: Receiver) -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    receiver.answer = stall
    sink = WebhookSink(settings(receiver.url, timeout_s=0.2))
    try:
        assert await sink.send(records(1)) == Outcome(taken=0, verdict="unknown", reason="timeout")
        assert len(receiver.bodies) == 1
    finally:
        await sink.close()


async def test_a_receiver_that_hangs_up_may_have_it(sink: WebhookSink, receiver: Receiver) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    receiver.answer = hang_up
    outcome = await sink.send(records(1))
    assert (outcome.taken, outcome.verdict) == (0, "unknown")


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sink = WebhookSink(settings(f"http://127.0.0.1:{taken.getsockname()[1]}/"))
        try:
            outcome = await sink.send(records(1))
        finally:
            await sink.close()
    assert (outcome.verdict, outcome.reason) == ("unavailable", "ClientConnectorError")


async def test_a_receiver_whose_certificate_nobody_trusts_gets_nothing() -> None:
    came: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        came.append(await request.read())
        return web.Response()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(Path(__file__).parents[1] / "data" / "tls" / "self-signed.pem")
    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    sink = WebhookSink(settings(f"https://127.0.0.1:{runner.addresses[0][1]}/"))
    try:
        outcome = await sink.send(records(1))
        assert (outcome.verdict, outcome.reason) == ("unavailable", "ClientConnectorCertificateError")
        assert came == []
    finally:
        await sink.close()
        await runner.cleanup()


async def test_of_a_long_answer_little_is_read(sink: WebhookSink, receiver: Receiver) -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while sent < 64 * 1_048_576:
                await response.write(bytes(65_536))
                sent += 65_536
        except ConnectionError:
            pass
        return response

    receiver.answer = flood
    assert await sink.send(records(1)) == Outcome(taken=1)
    assert sent < 16 * 1_048_576


async def test_a_slow_answer_costs_a_second_not_the_batch(
    sink: WebhookSink, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.05)

    async def dribble(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(1_000):
                await response.write(b"x")
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        return response

    receiver.answer = dribble
    assert await sink.send(records(1)) == Outcome(taken=1)


async def test_two_interviews_go_side_by_side(sink: WebhookSink, receiver: Receiver) -> None:
    both = asyncio.Barrier(2)

    async def meet(request: web.Request) -> web.StreamResponse:
        await both.wait()
        return web.Response()

    receiver.answer = meet
    outcomes = await asyncio.gather(sink.send(records(1, interview="a")), sink.send(records(1, interview="b")))
    assert [outcome.taken for outcome in outcomes] == [1, 1]


# --- where it never goes ------------------------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1", "127.255.0.9", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
    "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::",
    "2002:0a00:0001::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "::127.0.0.1", "2001:db8::1", "192.0.2.1", "nonsense",
    "2130706433", "0x7f.1", "127.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_machines_and_networks_of_ones_own(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://[::1]:8443/x", "https://10.1.2.3/", "https://169.254.169.254/latest",
        "https://2130706433/", "https://127.1/", "https://0177.0.0.1/", "https://[::ffff:7f00:1]/", "http://1.1.1.1/",
        "http://analysis.example/",
    ],
)  # fmt: skip
def test_addresses_that_stop_the_start(url: str) -> None:
    with pytest.raises(SetupError, match="webhook") as caught:
        WebhookSink(WebhookSettings(url=url, secrets=(SECRET,)))
    assert "allow_private" in caught.value.hint


def test_without_address_or_secret_there_is_no_start() -> None:
    for wrong in (WebhookSettings(secrets=(SECRET,)), WebhookSettings(url="https://analysis.example/")):
        with pytest.raises(SetupError, match="no address or no secret"):
            WebhookSink(wrong)


@pytest.mark.parametrize("name", ["localhost", "0x7f000001", "0x7f.1"])
async def test_names_that_lead_home_are_not_followed(name: str) -> None:
    home = await asyncio.start_server(lambda reader, writer: pytest.fail("somebody came"), "127.0.0.1", 0)
    port = home.sockets[0].getsockname()[1]
    sink = WebhookSink(WebhookSettings(url=f"https://{name}:{port}/", secrets=(SECRET,)))
    try:
        outcome = await sink.send(records(1))
        assert outcome.verdict == "unavailable"
    finally:
        await sink.close()
        home.close()


async def test_a_name_is_pinned_to_the_addresses_that_were_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a public and a private address reaches the public one alone; asked again, it may lie."""
    answers = iter([["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]])

    async def getaddrinfo(host: str, port: int, **more: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    resolver = Resolver(allow_private=False)
    found = await resolver.resolve("analysis.example", 443)
    assert [(one["hostname"], one["host"], one["port"]) for one in found] == [
        ("analysis.example", "93.184.216.34", 443)
    ]
    assert all(one["flags"] & socket.AI_NUMERICHOST for one in found)
    with pytest.raises(NotAllowed):
        await resolver.resolve("analysis.example", 443)
