"""Recordings as files, made in memory."""

from __future__ import annotations

import io
import wave

import av
import numpy as np
import soundfile


def wav(samples: bytes, *, rate: int = 16_000, channels: int = 1) -> bytes:
    """A WAV file of these interleaved s16le samples."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return held.getvalue()


def encoded(samples: bytes, container: str, subtype: str | None = None, *, rate: int = 16_000) -> bytes:
    """The same through libsndfile: ``FLAC``, ``OGG``, ``MP3``."""
    held = io.BytesIO()
    soundfile.write(held, np.frombuffer(samples, "<i2"), rate, subtype, format=container)
    return held.getvalue()


def webm(samples: bytes, *, rate: int = 48_000, cluster_ms: int = 100) -> bytes:
    """WebM with Opus as a browser records it: mono, live, a cluster every ``cluster_ms``, of unknown length."""
    held = io.BytesIO()
    options = {"live": "1", "cluster_time_limit": str(cluster_ms)}
    with av.open(held, "w", format="webm", options=options) as out:
        track = out.add_stream("libopus", rate=rate)
        track.layout = "mono"
        step = rate // 50 * 2
        for at in range(0, len(samples) - step + 1, step):
            frame = av.AudioFrame.from_ndarray(np.frombuffer(samples[at : at + step], "<i2")[None], "s16", "mono")
            frame.sample_rate = rate
            frame.pts = at // 2
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return held.getvalue()


def interleaved(left: bytes, right: bytes) -> bytes:
    """Two channels of the same length."""
    return np.stack([np.frombuffer(left, "<i2"), np.frombuffer(right, "<i2")], axis=1).tobytes()
