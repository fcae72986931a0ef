"""Which engines this process has: made by name, imported late, asked by what they can do."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from streamsrv import telemetry
from streamsrv.engines.base import LiveEngine
from streamsrv.errors import BadRequest, SetupError
from streamsrv.runtime.ear import Answered, Read, Troubled
from streamsrv.runtime.live import LiveEar
from streamsrv.runtime.settings import SessionSettings
from streamsrv.session.settings import MachineSettings

KNOWN = ("sphinx",)


def make_engine(name: str, *, model: str | None, device: str, workers: int | None) -> tuple[LiveEngine, str]:
    """The engine called ``name``; ``auto`` takes the best that is installed.

    Returns:
        The engine, and why it was chosen, in words for the ready line.

    Raises:
        SetupError: no such engine, its extra is not installed, or it cannot do what was asked.
    """
    why = "asked for"
    if name == "auto":
        name, why = "sphinx", "embedded, needs no download"
    if name not in KNOWN:
        raise SetupError(f"there is no engine '{name}'", hint=f"engines: auto, {', '.join(KNOWN)}")
    if find_spec("pocketsphinx") is None:
        raise SetupError("engine 'sphinx' is not installed", hint="run: pip install 'streamsrv[sphinx]'")
    if model is not None:
        raise SetupError(f"engine 'sphinx' has one model and cannot load '{model}'", hint="leave --model out")
    if device not in ("auto", "cpu"):
        raise SetupError(f"engine 'sphinx' computes on the CPU, not on '{device}'", hint="use --device cpu")
    from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings

    return SphinxEngine(SphinxSettings(workers=workers)), why


class Engines:
    """The engines of this server; the first is the default."""

    def __init__(self, engines: Iterable[LiveEngine], metrics: telemetry.Metrics) -> None:
        self.all = tuple(engines)
        self._metrics = metrics

    @property
    def default(self) -> LiveEngine:
        return self.all[0]

    def choose(self, name: str | None) -> LiveEngine:
        """The engine a client asked for.

        Raises:
            BadRequest: this server does not run it.
        """
        if name is None:
            return self.default
        for engine in self.all:
            if engine.about.name == name:
                return engine
        known = ", ".join(engine.about.name for engine in self.all)
        raise BadRequest(f"option 'engine': this server does not run '{name}'", hint=f"it runs: {known}")

    def ear(
        self,
        engine: LiveEngine,
        *,
        channels: int,
        language: str | None,
        read: Read,
        answered: Answered,
        troubled: Troubled,
    ) -> LiveEar:
        """The ear of one session.

        Raises:
            UnsupportedLanguage: the engine does not know ``language``.
        """
        return LiveEar(
            engine,
            channels=channels,
            language=language,
            read=read,
            answered=answered,
            troubled=troubled,
            replayed=self._metrics.engine_replays.inc,
        )


def machine_settings(engine: LiveEngine, session: SessionSettings) -> MachineSettings:
    """A session's bounds, and the pace its engine bears."""
    abilities = engine.abilities
    return MachineSettings(
        idle_timeout_s=session.idle_timeout_s,
        resume_window_s=session.resume_window_s,
        max_stream_s=session.max_stream_s,
        partial_every_s=abilities.partial_every_s,
        agreement=abilities.agreement,
        partials_always=abilities.live,
    )
