"""From tasks of one shape to answers: encode, find the language, decode in batches, try again, align."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from streamsrv.audio.mel import HOP
from streamsrv.engines._whisper import guards, prompts, words
from streamsrv.engines._whisper.guards import Sound
from streamsrv.engines._whisper.model import Aligned, Encoded, Floats, Generated, Loaded, Tongue
from streamsrv.engines._whisper.settings import WhisperSettings
from streamsrv.engines._whisper.windows import Task
from streamsrv.engines.base import Hypothesis
from streamsrv.facts import RATE_HZ, Word

LANGUAGE_SURE: Final = 0.5
"""Probability at which a language found is kept for the session; a final's is kept whatever it is."""
LANGUAGE_AFTER: Final = RATE_HZ
"""Samples a partial needs for that: less than a second tells little."""
PAUSE_FRAMES: Final = 15
"""Quiet frames at the end of a window after which its last word is over."""
LOOP_RATE: Final = 4.0
"""Tokens a second under which a text that repeats itself is taken for a person who does."""
TAGS: Final = {"jw": "jv"}
"""Whisper's codes that are not BCP 47's."""


class Heard(NamedTuple):
    """What the decoder said of one window."""

    tokens: list[int]
    logprob: float
    no_speech: float
    full: bool
    """It did not end by itself."""


class Asked(NamedTuple):
    """A task with all the decoder needs."""

    task: Task
    sound: Sound
    tongue: Tongue
    language: str
    prompt: list[int]
    spelled: list[list[int]]
    most: int

    @property
    def prefix(self) -> list[int]:
        """Tokens the answer must begin with."""
        return [token for word in self.spelled for token in word]


class Said(NamedTuple):
    """The words of one window."""

    words: list[Word]
    whole: bool
    """No guard took any away; with more silence behind it one might have stayed."""


class Encodings:
    """What the encoder made of some windows.

    A CPU gains nothing from encoding together: one by one, then put together as the decoder wants them.  A GPU gets
    them together; a part of them is encoded again, which is rare.
    """

    def __init__(self, model: Loaded, features: Floats) -> None:
        self._model = model
        self._features = features
        self._together = model.core.device != "cpu"
        self._whole: Encoded | None = None
        self._each: list[Floats] = []
        if self._together:
            self._whole = self._encode(features)
        else:
            self._each = [model.floats(self._encode(features[n : n + 1])) for n in range(len(features))]

    def pick(self, places: Sequence[int]) -> Encoded:
        """The encodings of these windows as one batch."""
        if self._whole is not None:
            return self._whole if len(places) == len(self._features) else self._encode(self._features[list(places)])
        if len(places) == 1:
            return self._model.store(self._each[places[0]])
        return self._model.store(np.concatenate([self._each[place] for place in places]))

    def _encode(self, features: Floats) -> Encoded:
        return self._model.core.encode(self._model.store(np.ascontiguousarray(features)), to_cpu=not self._together)


class Decoder:
    """Answers tasks whose features have the same number of frames and whose prompts have the same length."""

    def __init__(self, model: Loaded, settings: WhisperSettings, *, beam: int, conclusive: bool = False) -> None:
        self._model = model
        self._conclusive = conclusive
        self._settings = settings
        self._beam = beam

    def answer(self, tasks: Sequence[Task]) -> None:
        """Set each task's answer.

        Raises:
            RuntimeError: of CTranslate2, for all of them; also when its memory runs out.
        """
        bands = len(self._model.filters)
        features = np.empty((len(tasks), bands, tasks[0].frames), np.float32)
        sounds = [self._look(task, row) for task, row in zip(tasks, features, strict=True)]
        awake = [place for place, sound in enumerate(sounds) if not sound.silent]
        for task, sound in zip(tasks, sounds, strict=True):
            if sound.silent:
                task.answer = Hypothesis(
                    words=task.window.prefix, language=_tag(task.attention.language), conclusive=self._conclusive
                )
        if awake:
            encodings = Encodings(self._model, features if len(awake) == len(tasks) else features[awake])
            self._decode([tasks[place] for place in awake], [sounds[place] for place in awake], encodings)

    def _look(self, task: Task, row: Floats) -> Sound:
        peak = task.attention.track.fill(row, task.window.start, task.window.stop)
        sound = guards.listen(row, task.spoken, peak)
        if sound.silent:
            return sound
        if not self._settings.doubt_sounds:
            sound = sound._replace(surely=0.0)
        return guards.hastened(row, sound)

    def _decode(self, tasks: Sequence[Task], sounds: Sequence[Sound], encodings: Encodings) -> None:
        languages = self._languages(tasks, encodings)
        asked = [self._ask(*each) for each in zip(tasks, sounds, languages, strict=True)]
        heard = self._generate(asked, encodings, range(len(asked)))
        heard = self._try_again(asked, heard, encodings)
        said = self._words(asked, heard, encodings)
        for one, answer, (found, whole) in zip(asked, heard, said, strict=True):
            sure = self._conclusive and whole and one.task.attention.language is not None
            conclusive = sure and not self._wrong(one, answer)
            one.task.answer = Hypothesis(words=tuple(found), language=_tag(one.language), conclusive=conclusive)

    # --- language and prompt ------------------------------------------------------------------------------------

    def _languages(self, tasks: Sequence[Task], encodings: Encodings) -> list[str]:
        """The language of each, found where it is not known; kept when it is sure, or final."""
        languages = [task.attention.language for task in tasks]
        unknown = [place for place, language in enumerate(languages) if language is None]
        if unknown:
            found = self._model.core.detect_language(encodings.pick(unknown))
            for place, ranking in zip(unknown, found, strict=True):
                token, chance = ranking[0]
                languages[place] = token.strip("<|>")
                sure = chance >= LANGUAGE_SURE and tasks[place].samples >= LANGUAGE_AFTER
                if sure or tasks[place].window.final:
                    tasks[place].attention.language = languages[place]
        return [language or "en" for language in languages]

    def _ask(self, task: Task, sound: Sound, language: str) -> Asked:
        tongue = self._model.tongue(language, task.attention.task)
        prompt = [*task.attention.context(tongue), *prompts.sort_of(tongue)]
        spelled = prompts.spelled(tongue, task.window.prefix)
        most = prompts.most_tokens(
            task.samples,
            sum(map(len, spelled)),
            len(prompt),
            language=language,
            tokens_per_s=self._settings.tokens_per_s,
        )
        return Asked(task, sound, tongue, language, prompt, spelled, most)

    # --- decoding -----------------------------------------------------------------------------------------------

    def _generate(
        self, asked: Sequence[Asked], encodings: Encodings, places: Sequence[int], temperature: float = 0.0
    ) -> list[Heard]:
        """Decode ``places`` together: greedy or with the beam at temperature 0, by chance above.

        CTranslate2 keeps the first token it chooses from ending the answer; after a prefix that would make the model
        invent a word whenever nothing more was said.
        """
        chosen = [asked[place] for place in places]
        results = self._model.core.generate(
            encodings.pick(places),
            [[*one.prompt, *one.prefix] for one in chosen],
            beam_size=self._beam if temperature == 0 else 1,
            max_length=prompts.longest(max(one.most for one in chosen), len(chosen[0].prompt)),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=not any(one.spelled for one in chosen),
            sampling_topk=1 if temperature == 0 else 0,
            sampling_temperature=temperature or 1.0,
        )
        return [_heard(one, result) for one, result in zip(chosen, results, strict=True)]

    def _try_again(self, asked: Sequence[Asked], heard: list[Heard], encodings: Encodings) -> list[Heard]:
        """Finals that look wrong, at rising temperatures until they do not; then the likeliest."""
        best = list(heard)
        waiting = [place for place, one in enumerate(asked) if one.task.window.final and self._wrong(one, heard[place])]
        for temperature in self._settings.temperatures:
            if not waiting:
                break
            tried = self._generate(asked, encodings, waiting, temperature)
            for place, trial in zip(list(waiting), tried, strict=True):
                if not self._wrong(asked[place], trial):
                    best[place] = trial
                    waiting.remove(place)
                elif (not trial.full, trial.logprob) > (not best[place].full, best[place].logprob):
                    best[place] = trial
        return best

    def _wrong(self, one: Asked, heard: Heard) -> bool:
        if one.sound.surely or self._nothing(heard):
            return False
        if heard.full or heard.logprob < self._settings.least_logprob:
            return True
        rate = len(heard.tokens) / max(one.task.samples / RATE_HZ, 1.0)
        text = one.tongue.decode(heard.tokens)
        return rate > LOOP_RATE and guards.compression(text) > self._settings.most_compression

    def _nothing(self, heard: Heard) -> bool:
        """Whether the model itself believes that nobody spoke."""
        settings = self._settings
        return heard.no_speech > settings.most_no_speech and heard.logprob < settings.least_logprob

    # --- words --------------------------------------------------------------------------------------------------

    def _words(self, asked: Sequence[Asked], heard: Sequence[Heard], encodings: Encodings) -> list[Said]:
        kept = [self._kept(one, answer) for one, answer in zip(asked, heard, strict=True)]
        found = [
            words.pieces(one.tongue, one.task.window.prefix, one.spelled, tokens[len(one.prefix) :])
            for one, tokens in zip(asked, kept, strict=True)
        ]
        aligned = self._align(
            [p for p, one in enumerate(asked) if found[p] and self._measures(one)], asked, kept, encodings
        )
        said: list[Said] = []
        for place, (one, answer) in enumerate(zip(asked, heard, strict=True)):
            placed: list[Word] = []
            if place in aligned:
                placed = self._measured(one, found[place], aligned[place])
            elif found[place]:
                placed = words.estimated(found[place], one.sound.speech, math.exp(answer.logprob))
            whole = len(placed) == sum(bool(piece.text) for piece in found[place])
            said.append(Said(words.moved(placed, one.sound.skipped * HOP), whole))
        return said

    def _align(
        self, places: Sequence[int], asked: Sequence[Asked], kept: Sequence[list[int]], encodings: Encodings
    ) -> dict[int, Aligned]:
        """Where the tokens of these windows lie; those that begin alike are looked at together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place in places:
            groups.setdefault(tuple(asked[place].tongue.sot_sequence), []).append(place)
        found: dict[int, Aligned] = {}
        for start, group in groups.items():
            texts, frames = [kept[place] for place in group], [len(asked[place].sound.loud) for place in group]
            answers = self._model.core.align(encodings.pick(group), list(start), texts, frames)
            found.update(zip(group, answers, strict=True))
        return found

    def _kept(self, one: Asked, heard: Heard) -> list[int]:
        """The tokens of an answer that pass the guards of the text; always the prefix."""
        if self._nothing(heard):
            return one.prefix
        return guards.unlooped(heard.tokens, len(one.prefix)) if heard.full else heard.tokens

    def _measures(self, one: Asked) -> bool:
        return one.task.window.final or self._settings.partial_words == "aligned" or one.sound.surely > 0

    def _measured(self, one: Asked, found: Sequence[words.Piece], aligned: Aligned) -> list[Word]:
        times = words.measured(found, aligned, min(len(one.sound.loud) * HOP, one.task.samples))
        ended = one.task.window.final or (self._conclusive and not one.sound.loud[-PAUSE_FRAMES:].any())
        placed = words.settled(times, one.sound.loud, whole=ended)
        return guards.credible(placed, one.sound, len(one.spelled))


def _heard(one: Asked, result: Generated) -> Heard:
    tokens = [token for token in result.sequences_ids[0] if token < one.tongue.eot][: one.most]
    count = len(result.sequences_ids[0])
    # CTranslate2 divides by the tokens without the one that ends the answer.
    return Heard(tokens, result.scores[0] * count / (count + 1), result.no_speech_prob, len(tokens) >= one.most)


def _tag(language: str | None) -> str | None:
    return None if language is None else TAGS.get(language, language)
