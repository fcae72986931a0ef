"""The decoder inside a worker: audio in, words out, one segment at a time.

The same voice and samples give the same words on every worker and in every split of the samples: audio goes in blocks
of a fixed length, and the decoder's front end is made anew for each segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from streamsrv.engines._sphinx.posterior import Spoken, with_posteriors
from streamsrv.engines._sphinx.voice import Voice, amplified, block_mean, fitting_gain
from streamsrv.engines._sphinx.wire import Heard

if TYPE_CHECKING:
    from pocketsphinx import Decoder

FRAME: Final = 160
"""Samples per frame of the decoder (10 ms)."""
WINDOW: Final = 410
"""Samples the first frame needs."""
BLOCK: Final = 320
"""Samples the decoder is given at a time; fewer wait for the next call or the end."""
MOVE_EVERY: Final = 12 * BLOCK
"""Samples between two moves of the mean (240 ms)."""
LEAD: Final = 8_000
"""Samples of a stranger that are listened to before decoding begins (0.5 s); until then there are no words."""
GREETING: Final = "hello"
"""Name of a second search, for one word, and that word."""
TAIL: Final = 6 * FRAME
"""Zeros after the last sample, which push the last frames through the decoder's look-ahead."""
LONGEST: Final = 60 * 16_000
"""Most samples of a segment; more is refused."""

PROFILE: Final = {"maxhmmpf": 3000, "maxwpf": 5, "fwdflat": False, "bestpath": True, "loglevel": "FATAL"}
"""Measured in ``benchmarks/accuracy.py``: at least twice as fast as the library's defaults.  ``bestpath`` gives
posteriors only; the text is that of the first pass."""


class Ear:
    """One decoder.

    Raises:
        ImportError: PocketSphinx is not installed.
        RuntimeError: it cannot load its model.
    """

    def __init__(self, profile: dict[str, float | bool | str] | None = None) -> None:
        from pocketsphinx import Decoder

        self._decoder: Decoder = Decoder(**(PROFILE if profile is None else profile))
        self._decoder.add_keyphrase(GREETING, GREETING)
        self._voice = Voice()
        self._open = False
        self._reset()

    @property
    def decoder(self) -> Decoder:
        """For those who measure: after ``end``, its segmentation is the lattice's best path."""
        return self._decoder

    def warm(self) -> None:
        """Touch the pages of the models, so that forked workers share them; leaves no trace in later words."""
        noise = np.random.default_rng(1).integers(-2_000, 2_000, 32_000, dtype=np.int16)
        self.begin(Voice())
        self.take(noise.tobytes())
        self.end()

    def begin(self, voice: Voice) -> None:
        """Open a segment; one that is open is forgotten."""
        if self._open:
            self._decoder.end_utt()
            self._open = False
        self._voice = voice
        self._reset()
        if not voice.stranger:
            self._start()

    def take(self, samples: bytes) -> None:
        """Hear the next int16 samples.

        Raises:
            ValueError: the segment is over ``LONGEST``, or half a sample came.
        """
        self._heard += np.frombuffer(samples, "<i2").size
        if self._heard > LONGEST:
            raise ValueError("the segment is too long")
        self._rest += samples
        if not self._open:
            if len(self._rest) < 2 * LEAD:
                return
            self._meet()
        self._decode()

    def words(self) -> tuple[Heard, ...]:
        """What is believed so far; confidences are estimates."""
        if not self._open:
            return ()
        return tuple(self._clipped(with_posteriors(self._spoken(), ())))

    def end(self) -> tuple[tuple[Heard, ...], Voice]:
        """Close the segment: its words for good, and what is now known of the speaker."""
        if not self._open:
            self._meet()
        self._decode()
        rest = self._amplified(bytes(self._rest))
        self._decoder.process_raw(rest + bytes(2 * TAIL))
        self._move()
        first = self._spoken()
        self._decoder.end_utt()
        self._open = False
        best = self._spoken() if first else []
        words = tuple(self._clipped(with_posteriors(first, best)))
        return words, self._voice_after()

    # --- inside ----------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._rest = bytearray()
        self._heard = 0
        self._decoded = 0
        self._moved_at = 0
        self._levels = bytearray()

    def _start(self) -> None:
        self._decoder.reinit_feat()
        self._set_mean()
        self._decoder.start_utt()
        self._open = True

    def _meet(self) -> None:
        """Get to know a stranger by the samples that wait."""
        lead = np.frombuffer(bytes(self._rest[: 2 * LEAD]), "<i2")
        self._voice = self._voice.at_gain(fitting_gain(lead))
        frames = _frames(lead.size)
        if frames > 0:
            # The end of an utterance searches what was held back: let it be a search that costs nothing.
            self._decoder.activate_search(GREETING)
            self._start()
            self._decoder.process_raw(amplified(lead, self._voice.gain), no_search=True)
            block = block_mean(self._voice.mean, self._mean(), frames)
            self._decoder.end_utt()
            self._decoder.activate_search()
            self._voice = self._voice.moved(block, frames)
        self._start()

    def _decode(self) -> None:
        """Give the decoder every whole block that waits."""
        whole = len(self._rest) // (2 * BLOCK) * (2 * BLOCK)
        data = self._amplified(bytes(self._rest[:whole]))
        del self._rest[:whole]
        for at in range(0, whole, 2 * BLOCK):
            self._decoder.process_raw(data[at : at + 2 * BLOCK])
            self._decoded += BLOCK
            if self._decoded - self._moved_at >= MOVE_EVERY:
                self._move()

    def _amplified(self, samples: bytes) -> bytes:
        self._levels += samples
        return amplified(np.frombuffer(samples, "<i2"), self._voice.gain)

    def _move(self) -> None:
        frames = _frames(self._decoded) - _frames(self._moved_at)
        self._moved_at = self._decoded
        if frames <= 0:
            return
        block = block_mean(self._given, self._mean(), frames)
        self._voice = self._voice.moved(block, frames)
        self._set_mean()

    def _mean(self) -> tuple[float, ...]:
        return _vector(self._decoder.get_cmn(True))

    def _set_mean(self) -> None:
        text = ",".join(f"{value:.6g}" for value in self._voice.mean)
        self._decoder.set_cmn(text)
        self._given = _vector(text)

    def _voice_after(self) -> Voice:
        samples = np.frombuffer(bytes(self._levels), "<i2")
        gain = fitting_gain(samples)
        ratio = gain / self._voice.gain
        return self._voice if 0.5 < ratio < 2.0 else self._voice.at_gain(gain)

    def _spoken(self) -> list[Spoken]:
        return [
            Spoken(segment.word, segment.start_frame, segment.end_frame, segment.prob)
            for segment in self._decoder.seg() or ()
        ]

    def _clipped(self, words: Iterable[Heard]) -> Iterable[Heard]:
        """Times inside the audio that was heard."""
        for word in words:
            start = min(word.start, max(self._heard - FRAME, 0))
            stop = max(min(word.stop, self._heard), start)
            yield Heard(text=word.text, start=start, stop=stop, confidence=word.confidence, estimated=word.estimated)


def _frames(samples: int) -> int:
    """Frames the front end makes of so many samples."""
    return max((samples - WINDOW) // FRAME + 1, 0)


def _vector(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in text.split(","))
