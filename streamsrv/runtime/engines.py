"""Which engines this process has: made by name, imported late, asked by what they can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TypeAlias, TypeGuard

import msgspec

from streamsrv import telemetry
from streamsrv.commands import Options
from streamsrv.engines._whisper.settings import WhisperSettings
from streamsrv.engines.base import PLAIN, Abilities, LiveEngine, WindowEngine, Wishes
from streamsrv.errors import BadRequest, EngineBusy, SetupError
from streamsrv.runtime.ear import Answered, Ear, Picked, Read, TroubledBy
from streamsrv.runtime.file_ear import FileEar
from streamsrv.runtime.live import LiveEar
from streamsrv.runtime.scheduler import Scheduler
from streamsrv.runtime.scheduling.pace import LEAST_STRETCH, Load
from streamsrv.runtime.settings import SessionSettings
from streamsrv.runtime.window import WindowEar
from streamsrv.session.settings import MachineSettings

MODULES = {"whisper": "faster_whisper", "sphinx": "pocketsphinx"}
"""The engines there are, and what each stands on."""
FINAL_WITHIN_S = 1.0
"""What a final may wait for its engine."""
PARTIAL_FIRST_S = 0.5
"""A window engine is not asked about less of a segment: half a word is heard as a wrong one."""
TRIM_LEAST_S = 2.0
"""Spans of partials are not trimmed to less, however short the engine's windows are: words need those around them."""
CONCLUDED_AFTER_S = 0.2
"""A word's faint end is over by then, and half of the usual hangover is left for the engine."""

AnyEngine: TypeAlias = LiveEngine | Scheduler
"""An engine as the server knows it: a window engine is known by its scheduler."""


def make_engine(
    name: str, *, model: str | None, device: str, workers: int | None, whisper: WhisperSettings | None = None
) -> tuple[LiveEngine | WindowEngine, str]:
    """The engine called ``name``; ``auto`` takes the best that is installed and has its model on this disk.

    Args:
        whisper: how Whisper listens; model, device and workers stand above it.

    Returns:
        The engine, and why it was chosen, in words for the ready line.

    Raises:
        SetupError: no such engine, its extra is not installed, or it cannot do what was asked.
    """
    why, whisper = "asked for", whisper or WhisperSettings()
    if name == "auto":
        name, why = _best(whisper.model if model is None else model)
    if name not in MODULES:
        raise SetupError(f"there is no engine '{name}'", hint=f"engines: auto, {', '.join(MODULES)}")
    if find_spec(MODULES[name]) is None:
        raise SetupError(f"engine '{name}' is not installed", hint=f"run: pip install 'streamsrv[{name}]'")
    if name == "whisper":
        return _whisper(whisper, model=model, device=device, workers=workers), why
    if model is not None:
        raise SetupError(f"engine 'sphinx' has one model and cannot load '{model}'", hint="leave --model out")
    if device not in ("auto", "cpu"):
        raise SetupError(f"engine 'sphinx' computes on the CPU, not on '{device}'", hint="use --device cpu")
    from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings

    return SphinxEngine(SphinxSettings(workers=workers)), why


def _best(model: str | None) -> tuple[str, str]:
    """Whisper when its weights are here, else what needs none: never a surprise download."""
    if find_spec(MODULES["whisper"]) is not None:
        from streamsrv.engines._whisper import catalogue

        if model is not None:
            return "whisper", "it loads models"
        if catalogue.best() is not None:
            return "whisper", "its weights are on this disk"
    return "sphinx", "embedded, needs no download"


def _whisper(settings: WhisperSettings, *, model: str | None, device: str, workers: int | None) -> WindowEngine:
    from streamsrv.engines.whisper import WhisperEngine

    return WhisperEngine(
        msgspec.structs.replace(
            settings,
            model=settings.model if model is None else model,
            device=settings.device if device == "auto" else device,
            num_workers=settings.num_workers if workers is None else workers,
        )
    )


class Engines:
    """The engines of this server; the first is the default.

    Args:
        engines: started already, or by ``start``.
        metrics: the server's numbers.
        rebuild: makes the window engine of this name anew, after it hung.
    """

    def __init__(
        self,
        engines: Iterable[LiveEngine | WindowEngine],
        metrics: telemetry.Metrics,
        *,
        rebuild: Callable[[], WindowEngine] | None = None,
    ) -> None:
        self.ready = True
        """False while engines load."""
        self._metrics = metrics
        self._rebuild = rebuild
        self.all: tuple[AnyEngine, ...] = tuple(self._known(engine) for engine in engines)

    def _known(self, engine: LiveEngine | WindowEngine) -> AnyEngine:
        if is_live(engine):
            return engine
        if is_window(engine):
            return Scheduler(engine, self._metrics, final_within_s=FINAL_WITHIN_S, rebuild=self._rebuild)
        raise SetupError(f"engine '{engine.about.name}' neither listens live nor hears windows")

    async def start(self) -> None:
        """Load all engines; questions for window engines wait meanwhile.

        Raises:
            SetupError: one cannot work here; the hint holds the remedy.
        """
        self.ready = False
        for engine in self.all:
            await engine.start()
        self.ready = True

    async def close(self) -> None:
        """Free what they hold.  Safe to call twice."""
        for engine in self.all:
            await engine.close()

    @property
    def default(self) -> AnyEngine:
        return self.all[0]

    def choose(self, name: str | None) -> AnyEngine:
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

    def check(self, engine: AnyEngine, *, language: str | None, wishes: Wishes = PLAIN) -> None:
        """See whether a session can be heard; an engine that is still loading is believed to know everything.

        Raises:
            UnsupportedLanguage: the engine does not know ``language``.
            BadRequest: it cannot fulfil the wishes.
        """
        if not isinstance(engine, Scheduler):
            _able(engine, wishes).listen(language=language).close()
            return
        try:
            engine.attend(language=language, wishes=wishes).close()
        except EngineBusy:
            pass

    def load(self, engine: AnyEngine) -> Load | None:
        """What a window engine measures about itself."""
        return engine.load if isinstance(engine, Scheduler) else None

    def ear(
        self,
        engine: AnyEngine,
        *,
        channels: int,
        language: str | None,
        read: Read,
        answered: Answered,
        troubled: TroubledBy,
        picked: Picked,
        background: bool = False,
        wishes: Wishes = PLAIN,
    ) -> Ear:
        """The ear of one session, or of one file, which is heard behind live speech.

        Raises:
            UnsupportedLanguage, BadRequest: the engine does not know ``language``, or cannot fulfil the wishes.
        """
        if isinstance(engine, Scheduler):
            return WindowEar(
                engine,
                channels=channels,
                language=language,
                read=read,
                answered=answered,
                troubled=troubled,
                picked=picked,
                background=background,
                wishes=wishes,
            )
        make = FileEar if background else LiveEar
        return make(
            _able(engine, wishes),
            channels=channels,
            language=language,
            read=read,
            answered=answered,
            troubled=troubled,
            replayed=self._metrics.engine_replays.inc,
        )


def wishes_of(options: Options) -> Wishes:
    """What a speaker's options ask of the engine besides the language."""
    words = (word.strip() for word in options.hotwords.split(","))
    return Wishes(task=options.task, prompt=options.prompt, hotwords=tuple(word for word in words if word))


def _able(engine: LiveEngine, wishes: Wishes) -> LiveEngine:
    """The engine, when nothing is wished: live ones fulfil no wishes."""
    for name in Wishes.__struct_fields__:
        if getattr(wishes, name) != getattr(PLAIN, name):
            raise BadRequest(f"option '{name}': the engine '{engine.about.name}' cannot do that", hint="leave it out")
    return engine


def is_live(engine: LiveEngine | WindowEngine) -> TypeGuard[LiveEngine]:
    """Whether it listens while people speak."""
    return engine.abilities.live


def is_window(engine: LiveEngine | WindowEngine) -> TypeGuard[WindowEngine]:
    """Whether it hears whole spans."""
    return not engine.abilities.live


def machine_settings(abilities: Abilities, session: SessionSettings) -> MachineSettings:
    """A session's bounds, and the pace its engine bears."""
    live = abilities.live
    return MachineSettings(
        idle_timeout_s=session.idle_timeout_s,
        resume_window_s=session.resume_window_s,
        max_stream_s=session.max_stream_s,
        partial_every_s=abilities.partial_every_s * (1.0 if live else LEAST_STRETCH),
        agreement=abilities.agreement,
        partials_always=live,
        final_within_s=FINAL_WITHIN_S,
        partial_first_s=0.0 if live else PARTIAL_FIRST_S,
        trim_after_s=None if live else max(abilities.floor_s, TRIM_LEAST_S),
        trim_finals=not (live or abilities.whole_finals),
        concluded_after_s=CONCLUDED_AFTER_S if abilities.conclusive else None,
    )
