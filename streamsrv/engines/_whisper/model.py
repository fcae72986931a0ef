"""What we need of CTranslate2 and of the tokenizer, typed; nothing else of them is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NewType, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Encoded = NewType("Encoded", object)
"""A ``ctranslate2.StorageView``: features, or what the encoder made of them."""


class Generated(Protocol):
    """One decoded window."""

    @property
    def sequences_ids(self) -> list[list[int]]: ...
    @property
    def scores(self) -> list[float]: ...
    @property
    def no_speech_prob(self) -> float: ...


class Aligned(Protocol):
    """Where the tokens of one window lie."""

    @property
    def alignments(self) -> list[tuple[int, int]]:
        """Pairs of token and encoder frame (20 ms), both rising."""

    @property
    def text_token_probs(self) -> list[float]: ...


class Core(Protocol):
    """``ctranslate2.models.Whisper``."""

    @property
    def device(self) -> str: ...
    @property
    def compute_type(self) -> str: ...
    @property
    def is_multilingual(self) -> bool: ...
    @property
    def n_mels(self) -> int: ...
    @property
    def num_workers(self) -> int: ...

    def encode(self, features: Encoded, to_cpu: bool = False) -> Encoded: ...

    def generate(
        self,
        features: Encoded,
        prompts: list[list[int]],
        *,
        beam_size: int,
        max_length: int,
        return_scores: bool,
        return_no_speech_prob: bool,
        suppress_blank: bool = True,
        sampling_topk: int = 1,
        sampling_temperature: float = 1,
    ) -> Sequence[Generated]: ...

    def align(
        self,
        features: Encoded,
        start_sequence: list[int],
        text_tokens: list[list[int]],
        num_frames: list[int],
    ) -> Sequence[Aligned]: ...

    def detect_language(self, features: Encoded) -> list[list[tuple[str, float]]]: ...

    def unload_model(self) -> None: ...


class Tongue(Protocol):
    """``faster_whisper.tokenizer.Tokenizer``: a vocabulary with a language and a task."""

    @property
    def eot(self) -> int: ...
    @property
    def sot_prev(self) -> int: ...
    @property
    def no_timestamps(self) -> int: ...
    @property
    def sot_sequence(self) -> list[int]: ...

    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: list[int]) -> str: ...
    def split_to_word_tokens(self, tokens: list[int]) -> tuple[list[str], list[list[int]]]: ...


class Loaded(Protocol):
    """A model in memory, with what belongs to it."""

    @property
    def core(self) -> Core: ...

    @property
    def filters(self) -> Floats:
        """Mel filters, ``(bands, 201)``."""

    @property
    def languages(self) -> frozenset[str]:
        """Whisper's codes it knows; one if it was made for one."""

    def tongue(self, language: str, task: str) -> Tongue: ...

    def store(self, features: Floats) -> Encoded:
        """Features as CTranslate2 takes them; shares the memory."""

    def floats(self, encoded: Encoded) -> Floats:
        """What the encoder gave, as an array; only on a CPU."""
