"""What an operator may choose about Redis."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hints between the nodes of one service; nothing is kept there."""

    url: Annotated[
        Annotated[str, Meta(pattern=r"^(rediss?|unix)://", max_length=2_048)] | None,
        Meta(
            description="redis://, rediss:// (TLS) or unix:// address of the nodes' Redis; unset: one node alone.",
            extra={"secret": True},
        ),
    ] = None
    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._:-]{1,64}$",
            description="Beginning of all keys and channels; nodes with the same one belong together.",
        ),
    ] = "streamsrv"
    node: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None,
        Meta(description="What this node is called in the logs of others; unset: the machine's name."),
    ] = None
    timeout_s: Annotated[
        float,
        Meta(ge=0.05, le=10, description="Seconds Redis may take to connect or answer before nodes go on without it."),
    ] = 0.5
