"""deploy/compose.yaml: its settings are settings, its services know each other, what must last has a volume."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from streamsrv.settings import FIELDS, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))["services"]
    return found


def test_every_name_is_a_setting_and_every_value_is_taken(services: dict[str, dict[str, Any]]) -> None:
    given: dict[str, str] = services["streamsrv"]["environment"]
    assert {*given} <= {field.variable for field in FIELDS.values()}
    values = {name: re.sub(r"^\$\{.*\}$", "a-long-enough-key", value) for name, value in given.items()}
    settings = load(environ={**values, "STREAMSRV_SERVER_HOST": "0.0.0.0"}).settings
    assert settings.outbox.sinks == ("kafka",)
    assert settings.mongo.url is not None


def test_the_addresses_are_those_of_the_services(services: dict[str, dict[str, Any]]) -> None:
    given = services["streamsrv"]["environment"]
    for name in ("STREAMSRV_MONGO_URL", "STREAMSRV_REDIS_URL"):
        assert urlsplit(given[name]).hostname in services
    assert given["STREAMSRV_KAFKA_BOOTSTRAP"].split(":")[0] in services
    kafka = services["kafka"]["environment"]
    assert kafka["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{given['STREAMSRV_KAFKA_BOOTSTRAP']}"


def test_the_start_waits_for_what_it_needs_and_the_stop_for_speakers(services: dict[str, dict[str, Any]]) -> None:
    server = services["streamsrv"]
    assert {*server["depends_on"]} == {*services} - {"streamsrv"}
    assert all("healthcheck" in services[name] for name in server["depends_on"])
    assert float(server["stop_grace_period"].rstrip("s")) > load(environ={}).settings.server.drain_s
    assert (ROOT / "deploy" / server["build"] / "Dockerfile").is_file()


def test_what_must_last_has_a_volume_and_images_have_versions(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "volumes" in service} == {"streamsrv", "mongo", "kafka"}
    for service in services.values():
        assert "build" in service or re.search(r":\d+\.\d+", service["image"])


def test_the_image_has_what_the_services_need() -> None:
    extras = re.search(r"streamsrv-\*\.whl\)\[(.+?)\]", (ROOT / "Dockerfile").read_text("utf-8"))
    assert extras is not None
    assert {"mongo", "redis", "kafka"} <= {*extras[1].split(",")}
