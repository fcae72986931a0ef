"""Models for the Whisper engine's tests, made once a run; nothing is downloaded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")

from streamsrv.engines.whisper import WhisperEngine, WhisperSettings
from tests.models import costly as costly_digits
from tests.models import tone

Begin = Callable[..., Awaitable[WhisperEngine]]
DIGITS = Path(__file__).parents[2] / "models" / "digits"


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tone Whisper."""
    return tone.make(tmp_path_factory.mktemp("models") / "tone")


@pytest.fixture(scope="session")
def polyglot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that knows English and German."""
    return tone.make(tmp_path_factory.mktemp("models") / "polyglot", layout=tone.Layout(languages=("en", "de")))


@pytest.fixture(scope="session")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is right when exactly four tokens stand before its prompt."""
    return tone.make(tmp_path_factory.mktemp("models") / "prompted", layout=tone.Layout(context=4))


@pytest.fixture(scope="session")
def costly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of digits at the cost of tiny.en."""
    return costly_digits.make(tmp_path_factory.mktemp("models") / "digits-tiny-cost")


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Starts engines on the CPU and closes them."""
    begun: list[WhisperEngine] = []

    async def start(folder: Path, **settings: object) -> WhisperEngine:
        chosen: dict[str, object] = {"model": str(folder), "device": "cpu", "cpu_threads": 1, "window_floor_s": 1}
        engine = WhisperEngine(WhisperSettings(**{**chosen, **settings}))  # type: ignore[arg-type]
        await engine.start()
        begun.append(engine)
        return engine

    yield start
    for engine in begun:
        await engine.close()
        await engine.close()
