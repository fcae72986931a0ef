"""What an operator may choose about sessions; composed into the whole by ``streamsrv.settings``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how much one session may."""

    idle_timeout_s: Annotated[
        float,
        Meta(ge=1, le=86_400, description="Seconds without a message after which a speaker is told and closed (4408)."),
    ] = 60.0
    resume_window_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Seconds a cut stream waits for its speaker before it is ended."),
    ] = 60.0
    max_streams: Annotated[
        int, Meta(ge=1, le=64, description="Live streams one interview may hold at once; one more is refused (409).")
    ] = 8
    max_stream_s: Annotated[
        int, Meta(ge=10, le=86_400, description="Seconds of audio one stream may hold before it is closed (4413).")
    ] = 14_400
    max_messages_per_s: Annotated[
        int,
        Meta(ge=50, le=100_000, description="Messages a second a connection may send before it is closed (4429)."),
    ] = 1_000


class ArchiveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long interviews are kept, and whether their sound is."""

    retain_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days after which completed interviews are deleted; 0 keeps them.")
    ] = 0
    allow_recording: Annotated[
        bool, Meta(description="Whether a stream may be recorded when its client asks for it (record=true).")
    ] = True
    max_recording_s: Annotated[
        int, Meta(ge=1, le=86_400, description="Seconds of audio kept per connection and channel; then recording ends.")
    ] = 14_400


class SpoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where finals wait while the store is away."""

    dir: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Folder where finals wait while the store is away; unset: spool in store.data_dir."),
    ] = None
    max_mb: Annotated[
        int,
        Meta(ge=0, le=1_048_576, description="Mebibytes that may wait there; what is more waits in memory; 0: all."),
    ] = 256


class UploadSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What files may cost, and how many are heard at once."""

    max_mb: Annotated[
        int, Meta(ge=1, le=1_048_576, description="Mebibytes one uploaded file may have; a larger one gets a 413.")
    ] = 2_048
    within_s: Annotated[
        float, Meta(ge=1, le=86_400, description="Seconds an upload may take before it is cut off (408).")
    ] = 3_600.0
    min_bytes_per_s: Annotated[
        int,
        Meta(ge=1, le=1_000_000_000, description="Bytes a second an upload must bring after its first ten seconds."),
    ] = 8_192
    max_receiving: Annotated[
        int, Meta(ge=1, le=10_000, description="Uploads received at once; one more gets a 503.")
    ] = 16
    max_running: Annotated[int, Meta(ge=1, le=256, description="Files heard at once; the others wait in order.")] = 2
    max_waiting: Annotated[
        int, Meta(ge=1, le=100_000, description="Files that may wait to be heard; one more gets a 503.")
    ] = 100


class OutboxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which sinks finals are handed, and how patiently."""

    sinks: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(kafka|redis_streams|webhook)$")], ...],
        Meta(max_length=3, description="Where finals are handed to: kafka, redis_streams, webhook; none: nowhere."),
    ] = ()
    batch: Annotated[int, Meta(ge=1, le=1_000, description="Events of one interview sent together at most.")] = 100
    interviews_at_once: Annotated[
        int, Meta(ge=1, le=256, description="Interviews that are relayed to one sink side by side.")
    ] = 16
    max_refusals: Annotated[
        int, Meta(ge=1, le=100, description="Refusals after which an event is parked: streamsrv outbox list.")
    ] = 5
    longest_pause_s: Annotated[
        float, Meta(ge=0.2, le=3_600, description="Seconds between two tries at most while a sink is away.")
    ] = 30.0
    poll_s: Annotated[
        float, Meta(ge=0.05, le=3_600, description="Seconds between two looks for events nobody told of.")
    ] = 5.0
    lease_s: Annotated[
        float,
        Meta(ge=1, le=3_600, description="Seconds after which another node goes on where a dead one relayed."),
    ] = 30.0
