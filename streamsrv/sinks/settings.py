"""What an operator may choose about each sink."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Apache Kafka, or what speaks its protocol."""

    bootstrap: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[\w.\[\]:-]+:\d+$")], ...],
        Meta(max_length=32, description="Brokers to begin with, as broker-1:9092."),
    ] = ()
    topic: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="Topic; the interview is the key of each record.")
    ] = "streamsrv.transcripts"
    security: Annotated[
        Literal["plain", "tls", "sasl", "sasl_tls"],
        Meta(description="How brokers are spoken to; sasl ones need user and password."),
    ] = "plain"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="How the password is shown.")
    ] = "SCRAM-SHA-512"
    user: Annotated[str | None, Meta(description="User of sasl.")] = None
    password: Annotated[str | None, Meta(description="Password of sasl.", extra={"secret": True})] = None
    ca_file: Annotated[str | None, Meta(description="Certificates to trust, PEM; unset: the system's.")] = None
    compression: Annotated[
        Literal["none", "gzip"], Meta(description="How batches are packed on their way and in the topic.")
    ] = "none"
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=300, description="Seconds after which it is unknown whether a batch arrived.")
    ] = 10.0


class RedisStreamsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Redis stream."""

    url: Annotated[
        Annotated[str, Meta(pattern=r"^(rediss?|unix)://")] | None,
        Meta(
            description="Server and database, as rediss://user:password@host:6379/0.",
            extra={"secret": True},
        ),
    ] = None
    stream: Annotated[
        str, Meta(min_length=1, max_length=512, description="Key of the stream that events are added to.")
    ] = "streamsrv:transcripts"
    max_length: Annotated[
        int,
        Meta(ge=0, le=1_000_000_000, description="Entries kept, about; older ones are dropped, read or not; 0: all."),
    ] = 0
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=300, description="Seconds after which it is unknown whether a batch arrived.")
    ] = 5.0


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service of yours that takes events by HTTPS."""

    url: Annotated[
        Annotated[str, Meta(max_length=2_048, pattern=r"^https?://[^\s@/]+(/[^\s#]*)?$")] | None,
        Meta(
            description="Where events are posted; https, or http with allow_private.",
            extra={"secret": True},
        ),
    ] = None
    secrets: Annotated[
        tuple[Annotated[str, Meta(min_length=16, max_length=256)], ...],
        Meta(
            max_length=4,
            description="Keys that sign, 16 characters at least; several while you change from one to the next.",
            extra={"secret": True},
        ),
    ] = ()
    allow_private: Annotated[
        bool, Meta(description="Whether addresses of this machine and of private networks may be posted to.")
    ] = False
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=300, description="Seconds after which it is unknown whether a batch arrived.")
    ] = 10.0
