"""The image's recipe, read: it names files that exist, pins that exist, and nobody's root."""

from __future__ import annotations

import re
from pathlib import Path

from streamsrv.settings import FIELDS

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
LINES = [line for line in RECIPE.splitlines() if line and not line.startswith("#")]


def test_it_copies_only_what_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = [
        source for line in LINES if line.startswith("COPY ") and "--from" not in line for source in line.split()[1:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in kept, f"{source} is kept from docker by .dockerignore"


def test_its_python_is_the_one_its_pins_are_for() -> None:
    bases = set(re.findall(r"^FROM python:(\d)\.(\d+)-slim", RECIPE, re.M))
    assert len(bases) == 1
    assert set(re.findall(r"constraints/(py\d+)\.txt", RECIPE)) == {"py" + "".join(bases.pop())}


def test_it_runs_as_nobody_after_everything_that_needs_root() -> None:
    kinds = [line.split()[0] for line in LINES]
    assert "USER 65534:65534" in LINES
    assert "RUN" not in kinds[kinds.index("USER") :]


def test_its_settings_exist_and_it_carries_no_key() -> None:
    names = set(re.findall(r"\b(STREAMSRV_\w+)=", "\n".join(LINES)))
    assert names
    assert names <= {field.variable for field in FIELDS.values() if not field.secret}


def test_it_serves_the_port_it_opens_and_asks_whether_it_is_ready() -> None:
    port = FIELDS["server.port"].default
    assert f"EXPOSE {port}" in LINES
    assert f"http://127.0.0.1:{port}/health/ready" in RECIPE


def test_every_install_is_pinned() -> None:
    installs = re.findall(r"pip install [^&\n]+", "\n".join(LINES))
    assert installs
    assert all("-c constraints/" in line for line in installs)
