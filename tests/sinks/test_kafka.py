"""The Kafka sink without a broker; ``tests/services`` has the rest."""

from __future__ import annotations

import asyncio
import logging

import pytest

pytest.importorskip("aiokafka", reason="the extra 'kafka' is not installed")

from streamsrv.sinks.kafka import KafkaSink
from streamsrv.sinks.settings import KafkaSettings
from tests.sinks.records import records


async def test_brokers_that_are_away_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sink = KafkaSink(KafkaSettings(bootstrap=("127.0.0.1:1",), timeout_s=0.5))
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            outcome = await sink.send(records(1))
            assert outcome.verdict == "unavailable"
            await asyncio.sleep(0)
    await sink.close()
    assert [record for record in caplog.records if record.name.startswith("aiokafka")] == []
