"""Whisper, from faster-whisper's models: hears windows of many sessions together.

``transcribe()`` is not used: it pads everything to 30 s, one voice at a time.  Windows are fitted to the audio, their
features are computed once as the audio comes in, and what waits is decoded in one batch (``_whisper``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from streamsrv.engines._whisper import loading
from streamsrv.engines._whisper.attention import WhisperAttention
from streamsrv.engines._whisper.batches import alike, survive
from streamsrv.engines._whisper.decoding import Decoder
from streamsrv.engines._whisper.loading import Model
from streamsrv.engines._whisper.settings import LONGEST_S, WhisperSettings
from streamsrv.engines._whisper.warming import warm
from streamsrv.engines._whisper.windows import Task, frames_of
from streamsrv.engines.base import Abilities, About, Attention, Hypothesis, Window
from streamsrv.errors import BadRequest, EngineBusy, EngineError, EngineFailed, UnsupportedLanguage

__all__ = ["WhisperEngine", "WhisperSettings"]

BATCH: Final = {"cpu": 8, "cuda": 32}
BEAM: Final = {"cpu": 1, "cuda": 5}
PARTIAL_EVERY_S: Final = 0.6
"""Promised seconds between two partials of a session: words are stable after two, within 1.5 s of their ends."""
NOTE: Final = (
    "windows of {floor} s or more instead of Whisper's 30 s; accuracy is the model's, and may suffer from short windows"
)
TASKS: Final = ("transcribe", "translate")
SYNONYMS: Final = {"nb": "no", "iw": "he", "fil": "tl", "jv": "jw", "cmn": "zh", "in": "id", "ji": "yi"}
"""Subtags of BCP 47 that Whisper calls otherwise."""


class WhisperEngine:
    """See ``engines.base.WindowEngine``."""

    def __init__(self, settings: WhisperSettings | None = None) -> None:
        self._settings = settings or WhisperSettings()
        self._model: Model | None = None

    @property
    def abilities(self) -> Abilities:
        model = self._model
        several = model is None or model.core.is_multilingual
        return Abilities(
            live=False,
            languages=None if several else ("en",),
            batch=self._batch(model),
            prefix=True,
            conclusive=self._finals_as_partials(model),
            whole_finals=self._whole_finals,
            partial_every_s=PARTIAL_EVERY_S,
            parallel=1 if model is None else model.core.num_workers,
            sharing=1 if model is None else model.sharing,
            floor_s=self._settings.window_floor_s,
            final_floor_s=LONGEST_S if self._settings.final_window == "full" else 0.0,
        )

    @property
    def about(self) -> About:
        model = self._model
        if model is None:
            return About(name="whisper", model=self._settings.model or "auto", device=self._settings.device)
        device = f"{model.core.device}, {model.core.compute_type}"
        note = NOTE.format(floor=self._settings.window_floor_s)
        return About(name="whisper", model=model.name, device=device, note=note)

    @property
    def healthy(self) -> bool:
        return self._model is not None

    @property
    def model(self) -> Model:
        """The model, once it is loaded.

        Raises:
            EngineBusy: it is not.
        """
        if self._model is None:
            raise EngineBusy("Whisper is not loaded yet")
        return self._model

    async def start(self) -> None:
        model = await asyncio.wrap_future(loading.standing_back(partial(loading.load, self._settings)))
        try:
            await asyncio.to_thread(warm, model, self._settings, beam=self._beam(model), batch=self._batch(model))
        except (RuntimeError, ValueError, MemoryError) as failure:
            raise loading.explained(failure, model.folder) from failure
        self._model = model

    def attend(
        self, *, language: str | None, task: str = "transcribe", prompt: str = "", hotwords: tuple[str, ...] = ()
    ) -> Attention:
        model = self.model
        if task not in TASKS:
            raise BadRequest(f"option 'task': {task[:35]!r} is none of {', '.join(TASKS)}")
        if task == "translate" and not model.core.is_multilingual:
            raise BadRequest(f"option 'task': the model '{model.name}' knows one language", hint="leave 'task' out")
        code = self._code(model, language)
        return WhisperAttention(model.filters, language=code, task=task, prompt=prompt, hotwords=hotwords)

    def hear(self, windows: Sequence[Window]) -> Sequence[Hypothesis | EngineError]:
        model = self.model
        answers: list[Hypothesis | EngineError] = [EngineFailed("not heard")] * len(windows)
        tasks: list[Task] = []
        for place, window in enumerate(windows):
            try:
                tasks.append(self._task(place, window))
            except EngineError as failure:
                answers[place] = failure
        for batch in alike(tasks, partial(self._likeness, model), self._batch(model)):
            beam = self._width(model, batch[0])
            decoder = Decoder(model, self._settings, beam=beam, conclusive=self._finals_as_partials(model))
            survive(batch, decoder.answer, loading.out_of_memory)
        for task in tasks:
            answers[task.place] = task.answer or answers[task.place]
        return answers

    async def close(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            await asyncio.to_thread(model.core.unload_model)

    def _task(self, place: int, window: Window) -> Task:
        frames = frames_of(window, floor_s=self._settings.window_floor_s, full=self._settings.final_window == "full")
        return Task(place, window, frames)

    def _likeness(self, model: Model, task: Task) -> tuple[int, ...]:
        """What the tasks of one batch have in common; with a prefix the first new token may end the answer."""
        context = task.attention.context(model.tongue(model.first_language, task.attention.task))
        return task.frames, len(context), self._width(model, task), bool(task.window.prefix)

    def _width(self, model: Model, task: Task) -> int:
        return self._beam(model) if task.window.final else 1

    def _beam(self, model: Model) -> int:
        return self._settings.beam or BEAM[model.core.device]

    def _finals_as_partials(self, model: Model | None) -> bool:
        """Whether both are heard in the same way: one whole partial can be the final."""
        if model is None:  # where it will compute is not known yet
            return False
        return self._beam(model) == 1 and not self._whole_finals

    @property
    def _whole_finals(self) -> bool:
        """Whether a final hears more than its partials, or measures what they guessed."""
        return self._settings.final_window == "full" or self._settings.partial_words == "estimated"

    def _batch(self, model: Model | None) -> int:
        return self._settings.batch or BATCH["cpu" if model is None else model.core.device]

    def _code(self, model: Model, language: str | None) -> str | None:
        """Whisper's code of a BCP 47 tag."""
        if language is None:
            return None if model.core.is_multilingual else model.first_language
        primary = language.replace("_", "-").lower().split("-")[0]
        code = SYNONYMS.get(primary, primary)
        if code not in model.languages:
            known = ", ".join(sorted(model.languages))
            raise UnsupportedLanguage(
                f"the model '{model.name}' does not know the language {language[:35]!r}", hint=f"it knows: {known}"
            )
        return code
