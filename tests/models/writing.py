"""A Whisper on disk as CTranslate2 and faster-whisper want it: vocabulary, tokenizer, features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import WhisperSpec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

Floats = npt.NDArray[np.float32]
TIMES = 1_501
"""Tokens ``<|0.00|>`` to ``<|30.00|>``."""


class Vocabulary(NamedTuple):
    """Tokens in Whisper's order: bytes, words, special ones, times."""

    texts: list[str]
    specials: list[str]

    @property
    def tokens(self) -> list[str]:
        return [*self.texts, *self.specials, *(f"<|{0.02 * n:.2f}|>" for n in range(TIMES))]

    def id(self, token: str) -> int:
        return self.tokens.index(token)


def vocabulary(words: Sequence[str], languages: Sequence[str], *, size: int | None = None) -> Vocabulary:
    """Tokens for some words, each with a space before it.

    Args:
        languages: Whisper's codes; more than one makes the model multilingual.
        size: tokens in all; filled up with words nobody says.
    """
    specials = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    specials += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    specials.append("<|notimestamps|>")
    # The name a byte has in these tokenizers; bytes without a letter of their own come after the first 256 ones.
    texts = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["Ġ" + word for word in words]
    # CTranslate2 takes a vocabulary with an empty token for a multilingual one.
    texts += [""] if len(languages) > 1 else []
    missing = (size or 0) - len(texts) - len(specials) - TIMES
    return Vocabulary(texts + [f"Ġfill{n}" for n in range(missing)], specials)


def dense(layer: object, weight: Floats) -> None:
    """A linear layer without bias."""
    layer.weight, layer.bias = weight, np.zeros(len(weight), np.float32)  # type: ignore[attr-defined]


def plain_norms(spec: WhisperSpec, width: int) -> None:
    """Layer norms that neither scale nor shift."""
    norms = [spec.encoder.layer_norm, spec.decoder.layer_norm]
    for layer in [*spec.encoder.layer, *spec.decoder.layer]:
        norms += [layer.self_attention.layer_norm, layer.ffn.layer_norm]
    norms += [layer.attention.layer_norm for layer in spec.decoder.layer]
    for norm in norms:
        norm.gamma, norm.beta = np.ones(width, np.float32), np.zeros(width, np.float32)


def save(
    spec: WhisperSpec,
    folder: Path,
    vocabulary: Vocabulary,
    *,
    languages: Sequence[str],
    heads: list[list[int]],
    bands: int,
    quantization: str | None = None,
) -> None:
    """Write the folder.

    Args:
        heads: attention heads that tell the times of words, as ``[layer, head]``.
        quantization: ``int8`` and the like; float32 when omitted.
    """
    spec.register_vocabulary(vocabulary.tokens)
    spec.config.suppress_ids = spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = heads
    spec.config.lang_ids = [vocabulary.id(f"<|{code}|>") for code in languages]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True)
    spec.save(str(folder))
    _save_tokenizer(vocabulary, folder)
    features = {"feature_size": bands, "sampling_rate": 16_000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(features))


def _save_tokenizer(vocabulary: Vocabulary, folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={text: n for n, text in enumerate(vocabulary.texts)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in vocabulary.specials])
    times = vocabulary.tokens[-TIMES:]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in times])
    tokenizer.save(str(folder / "tokenizer.json"))
