"""A Whisper whose weights are written by hand: it hears pure tones and says words, exactly.

The window is read in slots of half a second.  A slot that holds the tone of word *k* is word *k*; the first silent slot
ends the text.  How: the first convolution lets one channel per tone through where its mel band is loud; positions mark
each frame with its slot; the decoder's position *p* asks, by cross-attention, for slot *p* minus the length of the
prompt; the projection turns the channel into its word.  Attention lies on the slot, so alignment gives its times.

Everything else of the architecture is there and does nothing (weights of zero), or, at true size, computes random
numbers that are multiplied by zero: same words, true cost.

Its prompt has a fixed length, because it counts positions: a context of other length shifts the words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import WhisperSpec
from faster_whisper.feature_extractor import FeatureExtractor

from tests.models import writing
from tests.models.sized import SIZES, Size

RATE_HZ = 16_000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = (*DIGITS, "red", "green", "blue", "white", "black", "gold")
SLOT_S = 0.5
TONE_S = 0.42
SLOTS = 60
SLOT_FRAMES = 25
"""Encoder frames of 20 ms in a slot."""
BANDS = tuple(14 + 4 * n for n in range(len(WORDS)))
"""Mel band of each word's tone, of 80."""
SMALL = Size(128, 1, 1, 1, 80, 0)
"""4 MB."""
TINY = SIZES["tiny.en"]
"""tiny.en's true dimensions."""
MARK = len(WORDS)
"""First channel that tells the slot."""
ALWAYS = MARK + SLOTS
"""Channel that is always on."""
BEGIN = 1.0
"""Weight of the first of all times: over any other time, under any word and the end."""


def _centres() -> list[float]:
    bins = np.fft.rfftfreq(400, 1 / RATE_HZ)
    return [float((bins * row).sum() / row.sum()) for row in FeatureExtractor().mel_filters]


_CENTRES = _centres()


def _bands(count: int) -> list[int]:
    """The band in which each word's tone is loudest, of so many: 80, or the 128 of turbo."""
    bins = np.fft.rfftfreq(400, 1 / RATE_HZ)
    filters = FeatureExtractor(feature_size=count).mel_filters
    return [int(np.argmax([np.interp(_CENTRES[band], bins, row) for row in filters])) for band in BANDS]


def sound(words: Sequence[str], *, lead_s: float = 0.0, loud: float = 0.4) -> npt.NDArray[np.int16]:
    """The tones of some words, one per half second, after ``lead_s`` of silence."""
    out = [np.zeros(round(lead_s * RATE_HZ))]
    count = round(TONE_S * RATE_HZ)
    times = np.arange(count) / RATE_HZ
    swell = np.minimum(1, np.minimum(times, times[::-1]) / 0.01)
    for word in words:
        slot = np.zeros(round(SLOT_S * RATE_HZ))
        slot[:count] = loud * swell * np.sin(2 * np.pi * _CENTRES[BANDS[WORDS.index(word)]] * times)
        out.append(slot)
    return np.round(np.concatenate(out) * 32_767).astype(np.int16)


class Layout(NamedTuple):
    """What the decoder finds before its answer."""

    languages: tuple[str, ...] = ("en",)
    context: int = 0
    """Tokens before ``<|startoftranscript|>``."""
    endless: bool = False
    """It never ends its answer, as Whisper does at times."""

    @property
    def lead(self) -> int:
        """Position of the last token before the answer."""
        return self.context + (3 if len(self.languages) > 1 else 1)


PLAIN = Layout()


def make(
    folder: Path,
    *,
    size: Size = SMALL,
    layout: Layout = PLAIN,
    quantization: str | None = None,
    timed: bool = False,
) -> Path:
    """Write a model into ``folder``, which must not exist.

    With two languages, a first word of the upper half of ``WORDS`` is the second one's.

    Args:
        timed: asked for times, it begins its answer with ``<|0.00|>`` for sure.  Otherwise all times it may begin with
            are alike, a short answer looks unlikely, and ``transcribe()`` decodes it six times.
    """
    languages = layout.languages
    vocabulary = writing.vocabulary(WORDS, languages, size=size.tokens or None)
    spec = WhisperSpec(size.encoders, size.heads, size.decoders, size.heads)
    _encoder(spec.encoder, size)
    _decoder(spec.decoder, size, layout)
    spec.decoder.embeddings.weight = _zeros(len(vocabulary.tokens), size.width)
    spec.decoder.projection.weight = _projection(vocabulary, size, layout)
    if timed:
        spec.decoder.projection.weight[vocabulary.id("<|0.00|>"), ALWAYS] = BEGIN
    writing.plain_norms(spec, size.width)
    writing.save(
        spec,
        folder,
        vocabulary,
        languages=languages,
        heads=[[size.decoders - 1, 0]],
        bands=size.bands,
        quantization=quantization,
    )
    return folder


def _zeros(*shape: int) -> writing.Floats:
    return np.zeros(shape, np.float32)


def _idle(layer: Any, size: Size, number: int) -> None:
    """Self-attention and feed-forward that compute and change nothing; equal weights would be kept, and read, once."""
    width, chance = size.width, np.random.default_rng(number)

    def some(rows: int) -> writing.Floats:
        # What the small one multiplies by zero may as well be zero.
        weight = chance.standard_normal((rows, width), dtype=np.float32) * np.float32(0.02)
        return weight if size.tokens else 0 * weight

    writing.dense(layer.self_attention.linear[0], some(3 * width))
    writing.dense(layer.self_attention.linear[1], _zeros(width, width))
    writing.dense(layer.ffn.linear_0, some(4 * width))
    writing.dense(layer.ffn.linear_1, _zeros(width, 4 * width))


def _encoder(encoder: Any, size: Size) -> None:
    tones = np.arange(len(WORDS))
    first, second = _zeros(size.width, size.bands, 3), _zeros(size.width, size.width, 3)
    # Features lie between about -0.5 and 1.5: only what is within half a decade of full scale passes the bias.
    first[tones, _bands(size.bands), 1] = 8
    second[tones, tones, 1] = 1
    bias = _zeros(size.width)
    bias[tones] = -7
    encoder.conv1.weight, encoder.conv1.bias = first, bias
    encoder.conv2.weight, encoder.conv2.bias = second, _zeros(size.width)
    places = _zeros(1_500, size.width)
    frames = np.arange(1_500)
    places[frames, MARK + frames // SLOT_FRAMES] = 3
    places[:, ALWAYS] = 10
    encoder.position_encodings.encodings = places
    for number, layer in enumerate(encoder.layer):
        _idle(layer, size, number)


def _decoder(decoder: Any, size: Size, layout: Layout) -> None:
    places = _zeros(448, size.width)
    positions = np.arange(448)
    places[positions, MARK + np.clip(positions - layout.lead, 0, SLOTS - 1)] = 4
    places[:, ALWAYS] = 2
    decoder.position_encodings.encodings = places
    for number, layer in enumerate(decoder.layer, size.encoders):
        _idle(layer, size, number)
        for part, rows in enumerate((1, 2, 1)):
            writing.dense(layer.attention.linear[part], _zeros(rows * size.width, size.width))
    query, keys_values, out = decoder.layer[-1].attention.linear
    slots, tones = np.arange(SLOTS), np.arange(len(WORDS))
    # The first head compares slots and carries tones; true sizes have 64 channels a head, enough for both.  Layer norms
    # make wide vectors longer: without the factors a wide model would look at the quietest frames of a slot only.
    query.weight[slots, MARK + slots] = 4 * (SMALL.width / size.width) * math.sqrt(_head(size) / _head(SMALL))
    keys_values.weight[slots, MARK + slots] = 1
    keys_values.weight[size.width + tones, tones] = 1
    out.weight[tones, tones] = math.sqrt(SMALL.width / size.width)


def _head(size: Size) -> int:
    """Channels of one attention head."""
    return size.width // size.heads


def _projection(vocabulary: writing.Vocabulary, size: Size, layout: Layout) -> writing.Floats:
    languages = layout.languages
    weight = _zeros(len(vocabulary.tokens), size.width)
    for number, word in enumerate(WORDS):
        weight[vocabulary.id("Ġ" + word), number] = 4
        if len(languages) > 1:
            weight[vocabulary.id(f"<|{languages[number * 2 // len(WORDS)]}|>"), number] = 2
    if layout.endless:
        return weight
    # Among many words silence must be the end beyond doubt, or every answer looks unlikely.
    weight[vocabulary.id("<|endoftext|>"), ALWAYS] = 2 if size.tokens else 0.5
    # While there is a tone, the end is less likely than any wrong word: a beam must not fill up with early ends.
    # The row sums to zero, over channels nobody uses, because the layer norm before it takes the mean away.
    end = weight[vocabulary.id("<|endoftext|>")]
    end[: len(WORDS)] = -3
    end[ALWAYS + 1 :] = -end.sum() / len(end[ALWAYS + 1 :])
    return weight
