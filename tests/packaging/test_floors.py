"""Pins: complete, exact, silent about where packages come from, and never below what is known to be safe."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FILES = {name: ROOT / "constraints" / f"{name}.txt" for name in ("py311", "py312", "py313")}

FLOORS = {
    # WebSocket frames that bypass max_msg_size (CVE-2026-54274), unbounded pipelining (CVE-2026-54273), max_line_size
    # bypass (CVE-2026-54277): 3.14.1; memory of dribbled fragments: 3.14.3.
    "aiohttp": "3.14.3",
    # The oldest whose wheels hold libsndfile 1.2.2.  CVE-2026-37555 (IMA ADPCM) names that release and no wheel holds a
    # newer one, so audio files are only ever opened by format from an allow-list, never by what they claim to be.
    "soundfile": "0.14.0",
    # The sdist of `webrtcvad` does not import beside a current setuptools; this fork's wheels do.
    "webrtcvad-wheels": "2.0.14",
    # What builds and installs the code: path traversal on download (CVE-2025-47273).
    "setuptools": "78.1.1",
    # Path traversal on unpacking (CVE-2026-24049).
    "wheel": "0.46.2",
}
FORBIDDEN = {"motor": "end of life", "webrtcvad": "its sdist does not import any more"}


def pins(name: str) -> dict[str, Version]:
    lines = FILES[name].read_text("utf-8").splitlines()
    return {package: Version(version) for package, version in (line.split("==") for line in lines)}


def declared() -> list[Requirement]:
    """Everything pyproject.toml names: to run, to build, and in every extra."""
    project = PROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return [Requirement(text) for text in project["dependencies"] + extras + PROJECT["build-system"]["requires"]]


@pytest.mark.parametrize("name", FILES)
def test_pins_are_pins_and_nothing_else(name: str) -> None:
    for line in FILES[name].read_text("utf-8").splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line


@pytest.mark.parametrize("name", FILES)
def test_everything_declared_is_pinned_inside_its_bounds(name: str) -> None:
    pinned = pins(name)
    for requirement in declared():
        package = canonicalize_name(requirement.name)
        if package != PROJECT["project"]["name"]:
            assert package in pinned, f"{package} is not pinned: make lock"
            assert pinned[package] in requirement.specifier, f"{package} is pinned outside {requirement}: make lock"


@pytest.mark.parametrize("name", FILES)
def test_pins_keep_the_security_floors(name: str) -> None:
    pinned = pins(name)
    for package, floor in FLOORS.items():
        assert pinned[package] >= Version(floor), f"{package} {pinned[package]} is below {floor}"
    assert not FORBIDDEN.keys() & pinned.keys()


@pytest.mark.parametrize("package", ["aiohttp", "soundfile", "webrtcvad-wheels"])
def test_what_runs_here_keeps_the_security_floors(package: str) -> None:
    assert Version(importlib.metadata.version(package)) >= Version(FLOORS[package])


def test_the_declared_lower_bound_of_aiohttp_is_safe_too() -> None:
    """Whoever installs without our pins is safe as well."""
    bound = next(requirement for requirement in declared() if requirement.name == "aiohttp")
    assert not bound.specifier.contains("3.14.2")


def test_there_is_a_pin_file_for_every_supported_python() -> None:
    classifiers = {text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if ":: Python :: 3." in text}
    assert {f"py{version.replace('.', '')}" for version in classifiers} == set(FILES)
    assert {path.stem for path in (ROOT / "constraints").iterdir()} == set(FILES)
