"""What a decoder process may complain about, and how a person is told.

A child sends words of these tables and numbers, never sentences: nothing it says reaches a message unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from streamsrv.audio._cage.settings import CageSettings
from streamsrv.errors import BadMedia, DecoderLost, MediaTooLong, StreamsrvError, UnsupportedMedia

KINDS: Final = "WAV, AIFF, FLAC, Ogg (Opus, Vorbis, FLAC), MP3, AAC, MP4, M4A, WebM, Matroska or AMR"
WARNINGS: Final = {
    "truncated": "the recording ends before its header says it does; what is there was decoded",
    "lengths": "the header states another length than there is",
    "damaged": "parts of the recording could not be decoded and are missing",
    "changed": "sample rate or channels change within the recording; all of it was converted to what it begins with",
}
"""Every warning there is, with the sentence for it."""
NAME: Final = re.compile(r"[a-z0-9_]{1,32}")
_Maker = Callable[[object, CageSettings], StreamsrvError]


def unknown() -> UnsupportedMedia:
    """The bytes begin like nothing that is taken."""
    return UnsupportedMedia("the bytes are no audio container this server knows", hint=f"send {KINDS}")


def _container(_: object, __: CageSettings) -> StreamsrvError:
    return unknown()


def _codec(detail: object, _: CageSettings) -> StreamsrvError:
    known = detail if isinstance(detail, str) and NAME.fullmatch(detail) else "this one"
    return UnsupportedMedia(f"the codec {known} is not decoded here", hint=f"send {KINDS}; WAV as PCM, float or G.711")


def _rate(detail: object, settings: CageSettings) -> StreamsrvError:
    shown = detail if isinstance(detail, int) else "?"
    return UnsupportedMedia(
        f"a sample rate of {shown} Hz is not taken", hint=f"use 8000 to {settings.max_rate_hz} Hz, a multiple of 25"
    )


def _channels(detail: object, settings: CageSettings) -> StreamsrvError:
    shown = detail if isinstance(detail, int) else "?"
    return UnsupportedMedia(f"{shown} channels are not taken", hint=f"use 1 to {settings.max_channels}")


def _silent(_: object, __: CageSettings) -> StreamsrvError:
    return BadMedia("the recording holds no audio")


def _broken(_: object, __: CageSettings) -> StreamsrvError:
    return BadMedia("the recording cannot be decoded")


def _long(_: object, settings: CageSettings) -> StreamsrvError:
    return MediaTooLong(f"the recording is longer than {settings.max_duration_s:g} s of audio")


def _memory(_: object, settings: CageSettings) -> StreamsrvError:
    return BadMedia(f"decoding needs more than {settings.memory_mb} MiB of memory")


def _cpu(_: object, settings: CageSettings) -> StreamsrvError:
    return BadMedia(f"decoding costs more than {settings.cpu_s} s of processor time")


def _stalled(_: object, settings: CageSettings) -> StreamsrvError:
    return BadMedia(f"decoding made no progress for {settings.stall_s:g} s")


REASONS: Final[dict[str, _Maker]] = {
    "container": _container,
    "codec": _codec,
    "rate": _rate,
    "channels": _channels,
    "silent": _silent,
    "broken": _broken,
    "long": _long,
    "memory": _memory,
    "cpu": _cpu,
    "stalled": _stalled,
}


def complaint(reason: object, detail: object, settings: CageSettings) -> StreamsrvError:
    """The error for a child's word; a word nobody knows means that the child is not to be trusted."""
    make = REASONS.get(reason) if isinstance(reason, str) else None
    return lost() if make is None else make(detail, settings)


def lost() -> DecoderLost:
    """The process is gone."""
    return DecoderLost("the process that decoded this audio is gone", retry_after_s=1.0)
