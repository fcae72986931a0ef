"""Kafka behind TLS and passwords: who has the right ones is let in, and nobody else gets a record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from streamsrv.sinks.base import Outcome
from streamsrv.sinks.kafka import KafkaSink
from streamsrv.sinks.settings import KafkaSettings
from tests.services.servers import HOST, KafkaServer, free_port
from tests.services.test_sinks import everything, ids, new_topic
from tests.sinks.records import records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CERTIFICATE = Path(__file__).parents[1] / "data" / "tls" / "self-signed.pem"
"""With its key; for 127.0.0.1."""
USER, PASSWORD = "relay", "a long password"
MODULES = "org.apache.kafka.common.security"
Security = Literal["tls", "sasl", "sasl_tls"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class GuardedKafka(KafkaServer):
    """One more door for each way in, beside the open one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.doors: dict[Security, int] = {"tls": free_port(), "sasl": free_port(), "sasl_tls": free_port()}

    def _format(self) -> tuple[str, ...]:
        scram = f"[name={USER},password={PASSWORD}]"
        added = (f"SCRAM-SHA-256={scram}", f"SCRAM-SHA-512={scram}")
        return (*super()._format(), *(word for one in added for word in ("--add-scram", one)))

    def _settings(self) -> dict[str, object]:
        names: dict[Security, str] = {"tls": "SSL", "sasl": "SASL_PLAINTEXT", "sasl_tls": "SASL_SSL"}
        settings = super()._settings()
        doors = "".join(f",{names[door]}://{HOST}:{port}" for door, port in self.doors.items())
        settings["listeners"] = f"{settings['listeners']}{doors}"
        settings["advertised.listeners"] = f"{settings['advertised.listeners']}{doors}"
        known = ("PLAINTEXT", *names.values())
        protocols = ",".join(["CONTROLLER:PLAINTEXT", *(f"{name}:{name}" for name in known)])
        settings["listener.security.protocol.map"] = protocols
        settings["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
        for name in ("sasl_plaintext", "sasl_ssl"):
            plain = f'{MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            settings[f"listener.name.{name}.plain.sasl.jaas.config"] = plain
            for bits in (256, 512):
                scram = f"{MODULES}.scram.ScramLoginModule required;"
                settings[f"listener.name.{name}.scram-sha-{bits}.sasl.jaas.config"] = scram
        return settings | {"ssl.keystore.type": "PEM", "ssl.keystore.location": CERTIFICATE}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedKafka]:
    with GuardedKafka(tmp_path_factory.mktemp("guarded")) as kafka:
        kafka.start()
        yield kafka


def sink_at(
    kafka: GuardedKafka,
    topic: str,
    security: Security,
    mechanism: Mechanism = "SCRAM-SHA-512",
    *,
    password: str = PASSWORD,
    ca_file: Path | None = CERTIFICATE,
) -> KafkaSink:
    return KafkaSink(
        KafkaSettings(
            bootstrap=(f"{HOST}:{kafka.doors[security]}",),
            topic=topic,
            security=security,
            sasl_mechanism=mechanism,
            user=USER,
            password=password,
            ca_file=str(ca_file) if ca_file else None,
            timeout_s=5.0,
        )
    )


async def sent(sink: KafkaSink) -> Outcome:
    try:
        return await sink.send(records(3))
    finally:
        await sink.close()


@pytest.mark.parametrize(
    ("security", "mechanism"),
    [
        ("tls", "PLAIN"),
        ("sasl", "PLAIN"),
        ("sasl", "SCRAM-SHA-256"),
        ("sasl", "SCRAM-SHA-512"),
        ("sasl_tls", "PLAIN"),
        ("sasl_tls", "SCRAM-SHA-512"),
    ],
)
async def test_who_is_known_is_let_in(guarded: GuardedKafka, security: Security, mechanism: Mechanism) -> None:
    topic = new_topic()
    assert await sent(sink_at(guarded, topic, security, mechanism)) == Outcome(taken=3)
    assert ids(await everything(guarded.url, topic)) == [one.id for one in records(3)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_leaves_all_pending_and_is_named(guarded: GuardedKafka, mechanism: Mechanism) -> None:
    """Somebody may be changing it right now: nothing is given up for that."""
    topic = new_topic()
    outcome = await sent(sink_at(guarded, topic, "sasl_tls", mechanism, password="an old password"))
    assert (outcome.taken, outcome.verdict, outcome.reason) == (0, "unavailable", "SaslAuthenticationFailed")
    assert await sent(sink_at(guarded, topic, "sasl_tls", mechanism)) == Outcome(taken=3)


async def test_a_broker_nobody_vouches_for_gets_nothing(guarded: GuardedKafka) -> None:
    topic = new_topic()
    outcome = await sent(sink_at(guarded, topic, "sasl_tls", ca_file=None))
    assert (outcome.taken, outcome.verdict, outcome.reason) == (0, "unavailable", "SSLCertVerificationError")
    assert await sent(sink_at(guarded, topic, "tls")) == Outcome(taken=3)
    assert ids(await everything(guarded.url, topic)) == [one.id for one in records(3)], "and those alone"
