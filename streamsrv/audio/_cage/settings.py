"""What an operator may choose about decoding."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class CageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much one recording may take, and how its decoder is held."""

    processes: Annotated[
        int, Meta(ge=1, le=256, description="Files decoded at once, each in a process of its own.")
    ] = 2
    waiting: Annotated[
        int, Meta(ge=0, le=10_000, description="Files that may wait for a process; one more is told to retry (503).")
    ] = 64
    max_live: Annotated[
        int, Meta(ge=1, le=10_000, description="Live containers decoded at once, eight per process; more get a 503.")
    ] = 128
    max_duration_s: Annotated[
        float, Meta(ge=1, le=86_400, description="Seconds of decoded audio one recording may give; more gets a 413.")
    ] = 14_400.0
    max_rate_hz: Annotated[
        int, Meta(ge=8_000, le=192_000, description="Highest sample rate taken; a higher one gets a 415.")
    ] = 192_000
    max_channels: Annotated[int, Meta(ge=1, le=8, description="Most interleaved channels taken; more get a 415.")] = 8
    memory_mb: Annotated[
        int, Meta(ge=384, le=16_384, description="Mebibytes of address space a decoder process may have.")
    ] = 512
    cpu_s: Annotated[int, Meta(ge=1, le=86_400, description="Seconds of processor time one recording may cost.")] = 900
    stall_s: Annotated[
        float, Meta(ge=0.1, le=600, description="Seconds a decoder may go without progress before it is killed.")
    ] = 30.0
    walls: Annotated[
        Literal["auto", "bubblewrap", "plain"],
        Meta(
            description="How decoders are held: bubblewrap beside the limits, the limits alone, or the best there is."
        ),
    ] = "auto"
