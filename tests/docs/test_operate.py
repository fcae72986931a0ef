"""``docs/operate.md`` is true: its settings are settings, its commands and metrics exist."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from streamsrv.cli import parser
from streamsrv.runtime.handoff.numbers import Numbers
from streamsrv.settings import FIELDS, load
from streamsrv.sinks.webhook import WebhookSink

PAGE = (Path(__file__).parents[2] / "docs" / "operate.md").read_text("utf-8")
HANDING_ON = PAGE.partition("## Handing on")[2].partition("\n## ")[0]


def test_its_settings_file_is_one(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", HANDING_ON, re.DOTALL)
    assert found
    path = tmp_path / "streamsrv.toml"
    path.write_text(found[1])
    settings = load(path, environ={}).settings
    assert settings.outbox.sinks == ("kafka", "webhook")
    assert settings.kafka.bootstrap == ("broker-1:9092", "broker-2:9092")
    assert settings.redis_streams.url is not None
    assert WebhookSink(settings.webhook).name == "webhook"


def test_its_settings_exist() -> None:
    named = set(re.findall(r"`((?:outbox|kafka|redis_streams|webhook)\.\w+)`", HANDING_ON))
    assert len(named) > 3
    assert named <= set(FIELDS)


def test_its_metrics_exist() -> None:
    registry = CollectorRegistry()
    Numbers(registry, ["kafka"])
    there = {name for metric in registry.collect() for name in (metric.name, f"{metric.name}_total")}
    assert set(re.findall(r"streamsrv_outbox_\w+", HANDING_ON)) <= there


def test_its_commands_parse() -> None:
    words = re.findall(r"^streamsrv (outbox .*?)(?: +#|$)", HANDING_ON, re.MULTILINE)
    assert len(words) == 2
    for line in words:
        assert parser().parse_args(line.split()).verb == "outbox"
