"""Every setting of the server: one frozen tree, read once, from a TOML file, then ``STREAMSRV_*``, then flags.

A setting is a field of a small class: its default, its range and its one sentence stand together, its unit is in its
name.  ``server.port`` in the file is ``[server]`` ``port = 3004``; in the environment ``STREAMSRV_SERVER_PORT``.
What is later in that order wins.  Anything unknown, of a wrong type or out of range stops the start.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from streamsrv.audio._cage.settings import CageSettings
from streamsrv.engines._whisper.settings import WhisperSettings
from streamsrv.errors import SetupError
from streamsrv.runtime.settings import ArchiveSettings, OutboxSettings, SessionSettings, SpoolSettings, UploadSettings
from streamsrv.shared_state._redis.settings import RedisSettings
from streamsrv.sinks.settings import KafkaSettings, RedisStreamsSettings, WebhookSettings
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.sqlite.settings import SqliteSettings

PREFIX: Final = "STREAMSRV_"
MAX_FILE_BYTES: Final = 1_048_576
"""Largest settings file; a larger one is refused, because it is surely another file."""
_NOT_SETTINGS: Final = frozenset({"STREAMSRV_CONFIG", "STREAMSRV_EXTRA_AUDIO", "STREAMSRV_SANITIZE"})
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP)(_\w+)?$")
"""Names Kubernetes puts into every pod beside a service called ``streamsrv``."""

ApiKey = Annotated[str, Meta(min_length=8, max_length=256, pattern=r"^[!-+\--~]+$")]
Origin = Annotated[str, Meta(pattern=r"^(\*|https?://[^/\s,]+)$")]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The door."""

    host: Annotated[
        str, Meta(min_length=1, max_length=253, description="Address to listen on; others than loopback need api_keys.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one.")] = 3004
    api_keys: Annotated[
        tuple[ApiKey, ...],
        Meta(
            max_length=100,
            description="Keys that open the door, 8 to 256 printable characters each; none: loopback only.",
            extra={"secret": True},
        ),
    ] = ()
    allowed_origins: Annotated[
        tuple[Origin, ...],
        Meta(
            max_length=100,
            description='Web origins whose pages may connect, as "https://app.example.com"; "*" lets in all.',
        ),
    ] = ()
    max_sessions: Annotated[
        int,
        Meta(
            ge=1, le=100_000, description="Sessions served at once; more get a 503; resumes have 10 % more, at least 1."
        ),
    ] = 1_000
    max_viewers: Annotated[
        int, Meta(ge=0, le=100_000, description="Viewers (WebSocket and event stream) served at once; more get a 503.")
    ] = 1_000
    max_connections: Annotated[
        int, Meta(ge=1, le=200_000, description="Sockets held at once, HTTP ones included; more are closed at once.")
    ] = 4_000
    max_connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=200_000,
            description="Sockets one address may hold at once; behind a proxy all come from its address.",
        ),
    ] = 2_000
    max_sessions_per_key: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(description="Sessions one API key may hold at once; more get a 503; unset: max_sessions alone counts."),
    ] = None
    max_starts_per_minute_per_key: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | None,
        Meta(
            description="Streams and uploads one API key may begin in any minute; more get a 429; resumes and viewers "
            "do not count; unset: as many as it likes."
        ),
    ] = None
    drain_s: Annotated[
        float, Meta(ge=0, le=3_600, description="Seconds speakers have to go elsewhere after SIGTERM.")
    ] = 30.0
    log_format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="Form of the log on stdout; auto is text on a terminal and JSON elsewhere."),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least serious lines that are written.")
    ] = "info"


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What turns speech into words."""

    name: Annotated[
        str,
        Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="Engine to use; auto takes the best that is installed."),
    ] = "auto"
    model: Annotated[
        str | None, Meta(description="Model name or folder the engine loads; unset: the engine's own choice.")
    ] = None
    device: Annotated[
        str, Meta(pattern=r"^[a-z]+(:\d+)?$", description="Where it computes: auto, cpu, cuda or cuda:1.")
    ] = "auto"
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=1_024)] | None,
        Meta(
            description="Sphinx: worker processes at most; unset: 5 per core. Whisper: batches computed at once, in "
            "threads of the server itself; unset: two per GPU, or one per core, 8 at most."
        ),
    ] = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole tree."""

    server: ServerSettings = msgspec.field(default_factory=ServerSettings)
    session: SessionSettings = msgspec.field(default_factory=SessionSettings)
    store: SqliteSettings = msgspec.field(default_factory=SqliteSettings)
    mongo: MongoSettings = msgspec.field(default_factory=MongoSettings)
    spool: SpoolSettings = msgspec.field(default_factory=SpoolSettings)
    redis: RedisSettings = msgspec.field(default_factory=RedisSettings)
    engine: EngineSettings = msgspec.field(default_factory=EngineSettings)
    whisper: WhisperSettings = msgspec.field(default_factory=WhisperSettings)
    upload: UploadSettings = msgspec.field(default_factory=UploadSettings)
    decode: CageSettings = msgspec.field(default_factory=CageSettings)
    archive: ArchiveSettings = msgspec.field(default_factory=ArchiveSettings)
    outbox: OutboxSettings = msgspec.field(default_factory=OutboxSettings)
    kafka: KafkaSettings = msgspec.field(default_factory=KafkaSettings)
    redis_streams: RedisStreamsSettings = msgspec.field(default_factory=RedisStreamsSettings)
    webhook: WebhookSettings = msgspec.field(default_factory=WebhookSettings)


# --- the tree as a list of fields --------------------------------------------------------------------------------


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as the loader and the printers see it."""

    key: str
    """Dotted, such as ``server.port``."""
    kind: object
    """Its type, with its range."""
    default: object
    description: str
    secret: bool

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.key.replace(".", "_").upper()

    @property
    def listed(self) -> bool:
        return isinstance(self.default, tuple)

    def takes(self) -> str:
        """The values it takes, in words: ``a whole number from 1 to 64``."""
        bare, meta = _bare(self.kind)
        if get_origin(bare) is Literal:
            return "one of " + ", ".join(map(str, get_args(bare)))
        if self.listed:
            return "a list of texts, in the environment separated by commas"
        if bare is bool:
            return "true or false"
        noun = "a whole number" if bare is int else "a number" if bare is float else "a text"
        bounds = f" from {meta.ge} to {meta.le}" if meta.ge is not None else ""
        return noun + bounds + (f" matching {meta.pattern}" if meta.pattern else "")


def _bare(kind: object) -> tuple[object, Meta]:
    """The type inside ``Annotated`` and ``... | None``, and the range that stands nearest to it."""
    meta = Meta()
    while get_origin(kind) in (Annotated, Union, UnionType):
        first, *rest = get_args(kind)
        meta = next((part for part in rest if isinstance(part, Meta)), meta)
        kind = first
    return kind, meta


def _fields() -> Iterator[Field]:
    for room in msgspec.structs.fields(Settings):
        hints = get_type_hints(room.type, include_extras=True)
        for part in msgspec.structs.fields(room.type):
            meta = next(arg for arg in get_args(hints[part.name]) if isinstance(arg, Meta))
            yield Field(
                key=f"{room.name}.{part.name}",
                kind=hints[part.name],
                default=part.default,
                description=meta.description or "",
                secret=bool((meta.extra or {}).get("secret")),
            )


FIELDS: Final[Mapping[str, Field]] = {field.key: field for field in _fields()}
_VARIABLES: Final[Mapping[str, Field]] = {field.variable: field for field in FIELDS.values()}


# --- reading -----------------------------------------------------------------------------------------------------


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force, and for each key that is not at its default, who said so."""

    settings: Settings
    sources: dict[str, str]


def load(
    path: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Effective:
    """Read the file, then the environment, then the flags.

    Args:
        path: TOML file; omitted, the one ``STREAMSRV_CONFIG`` names, if any.
        environ: the process's own when omitted.
        flags: dotted keys and their values, texts or what the field holds; ``None`` means not given.

    Raises:
        SetupError: names the key, what is wrong, where it was said, and what it takes.
    """
    environ = os.environ if environ is None else environ
    path = path or environ.get("STREAMSRV_CONFIG") or None
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    if path is not None:
        for key, value in _read_file(Path(path)).items():
            values[key], sources[key] = _convert(key, value, str(path), strict=True), str(path)
    for name, text in _read_environment(environ):
        key = _VARIABLES[name].key
        values[key], sources[key] = _convert(key, text, name, strict=False), name
    for key, given in (flags or {}).items():
        if given is not None:
            values[key], sources[key] = _convert(key, given, "command line", strict=False), "command line"
    effective = Effective(settings=_build(values), sources=sources)
    _check(effective)
    return effective


def _read_file(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SetupError(f"{path} is larger than {MAX_FILE_BYTES} bytes", hint="name the settings file")
        tree = tomllib.loads(path.read_text("utf-8"))
    except OSError as failure:
        raise SetupError(f"{path} cannot be read: {failure.strerror}", hint="check --config") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise SetupError(
            f"{path} is not TOML: {failure}", hint="compare with the output of 'streamsrv config example'"
        ) from failure
    values: dict[str, object] = {}
    for room, table in tree.items():
        if not isinstance(table, dict):
            raise _unknown(room, str(path))
        values.update({f"{room}.{name}": value for name, value in table.items()})
        if not table and not any(key.startswith(room + ".") for key in FIELDS):
            raise _unknown(room, str(path))
    return values


def _read_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS:
            continue
        if name in _VARIABLES:
            yield name, environ[name]
        elif not _SERVICE_LINK.search(name) and not environ[name].startswith(("tcp://", "udp://")):
            raise _unknown(name, "the environment")


def _unknown(name: str, source: str) -> SetupError:
    known = list(_VARIABLES) if name.startswith(PREFIX) else list(FIELDS)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return SetupError(f"{name} (from {source}) is no setting", hint=hint + "'streamsrv config example' lists all")


def _convert(key: str, value: object, source: str, *, strict: bool) -> object:
    field = FIELDS.get(key)
    if field is None:
        raise _unknown(key, source)
    if isinstance(value, str) and not strict:
        value = _from_text(field, value)
    try:
        return msgspec.convert(value, field.kind, strict=strict)
    except msgspec.ValidationError as failure:
        shown = "" if field.secret else f" = {json.dumps(value, default=str)}"
        problem = str(failure).partition(" - at ")[0]
        hint = f"it takes {field.takes()}. {field.description}"
        if isinstance(value, str) and value.startswith(("tcp://", "udp://")):
            hint += " Kubernetes sets this name for a service; enableServiceLinks: false turns that off."
        raise SetupError(f"{key}{shown} (from {source}): {problem}", hint=hint) from None


def _from_text(field: Field, text: str) -> object:
    """Texts of the environment and of flags: lists are separated by commas, nothing unsets what may be unset."""
    if field.listed:
        return [part.strip() for part in text.split(",") if part.strip()]
    return None if not text and field.default is None else text


def _build(values: Mapping[str, object]) -> Settings:
    tree: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        room, _, name = key.partition(".")
        tree.setdefault(room, {})[name] = value
    rooms = {room.name: room.type(**tree.get(room.name, {})) for room in msgspec.structs.fields(Settings)}
    return Settings(**rooms)


def _check(effective: Effective) -> None:
    """What no single field can tell."""
    server = effective.settings.server
    if not server.api_keys and not is_loopback(server.host):
        source = effective.sources.get("server.host", "default")
        raise SetupError(
            f"server.host = {json.dumps(server.host)} (from {source}) is open to others, and there are no API keys",
            hint="set STREAMSRV_SERVER_API_KEYS=KEY (or server.api_keys in the file), or listen on 127.0.0.1",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


# --- showing -----------------------------------------------------------------------------------------------------


def show(effective: Effective) -> str:
    """The settings in force as TOML, each with its source; secrets only counted."""
    lines: list[str] = []
    for field in FIELDS.values():
        room, _, name = field.key.partition(".")
        value = getattr(getattr(effective.settings, room), name)
        if f"[{room}]" not in lines:
            lines += [""] * bool(lines) + [f"[{room}]"]
        lines.append(f"{_assigned(field, name, value):<40} # {effective.sources.get(field.key, 'default')}")
    return "\n".join(lines) + "\n"


def _assigned(field: Field, name: str, value: object) -> str:
    if value is None:
        return f"# {name} is unset"
    if field.secret and value != field.default:
        return f"# {name}: {len(value) if isinstance(value, tuple) else 1} given, not shown"
    return f"{name} = {_toml(value)}"


def _toml(value: object) -> str:
    """A value as TOML; its texts, numbers and lists are written as JSON writes them."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def example() -> str:
    """A settings file with every setting at its default, explained; reading it changes nothing."""
    lines = [
        "# Settings of streamsrv, all at their defaults: keep the lines you change, drop the others.",
        "# The environment (names below) wins over this file, flags win over both.",
    ]
    for field in FIELDS.values():
        room, _, name = field.key.partition(".")
        if f"[{room}]" not in lines:
            lines += ["", f"[{room}]"]
        lines += ["", f"# {field.description}", f"# {field.variable}: {field.takes()}"]
        lines.append(f"# {name} = (unset)" if field.default is None else f"{name} = {_toml(field.default)}")
    return "\n".join(lines) + "\n"
