"""Whispers of true size with random weights: what they say means nothing, what they cost is real.

``python -m tests.models.sized FOLDER tiny.en [small turbo ...]``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ctranslate2.specs import WhisperSpec

from tests.models import writing


class Size(NamedTuple):
    """Dimensions of one of OpenAI's models."""

    width: int
    encoders: int
    decoders: int
    heads: int
    bands: int
    tokens: int


SIZES = {
    "tiny.en": Size(384, 4, 4, 6, 80, 51_864),
    "tiny": Size(384, 4, 4, 6, 80, 51_865),
    "base.en": Size(512, 6, 6, 8, 80, 51_864),
    "base": Size(512, 6, 6, 8, 80, 51_865),
    "small": Size(768, 12, 12, 12, 80, 51_865),
    "turbo": Size(1_280, 32, 4, 20, 128, 51_866),
}


def make(folder: Path, name: str, *, quantization: str = "int8") -> Path:
    """Write a model into ``folder``, which must not exist; seconds for tiny, half a minute for turbo."""
    size = SIZES[name]
    languages = ["en"] if name.endswith(".en") else ["en", "de", "es", "fr", "pt"]
    vocabulary = writing.vocabulary([], languages, size=size.tokens)
    chance = np.random.default_rng(0)

    def some(*shape: int) -> writing.Floats:
        return chance.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    width = size.width
    spec = WhisperSpec(size.encoders, size.heads, size.decoders, size.heads)
    spec.encoder.conv1.weight, spec.encoder.conv1.bias = some(width, size.bands, 3), some(width)
    spec.encoder.conv2.weight, spec.encoder.conv2.bias = some(width, width, 3), some(width)
    spec.encoder.position_encodings.encodings = some(1_500, width)
    spec.decoder.position_encodings.encodings = some(448, width)
    spec.decoder.embeddings.weight = some(len(vocabulary.tokens), width)
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    writing.plain_norms(spec, width)
    for layer in [*spec.encoder.layer, *spec.decoder.layer]:
        writing.dense(layer.self_attention.linear[0], some(3 * width, width))
        writing.dense(layer.self_attention.linear[1], some(width, width))
        writing.dense(layer.ffn.linear_0, some(4 * width, width))
        writing.dense(layer.ffn.linear_1, some(width, 4 * width))
    for layer in spec.decoder.layer:
        writing.dense(layer.attention.linear[0], some(width, width))
        writing.dense(layer.attention.linear[1], some(2 * width, width))
        writing.dense(layer.attention.linear[2], some(width, width))
    heads = [[layer, head] for layer in range(size.decoders // 2, size.decoders) for head in range(size.heads)]
    writing.save(
        spec,
        folder,
        vocabulary,
        languages=languages,
        heads=heads,
        bands=size.bands,
        quantization=quantization,
    )
    return folder


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        make(Path(sys.argv[1]) / wanted, wanted)
