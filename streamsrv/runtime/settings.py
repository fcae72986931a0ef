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
