"""Where a speaker connects."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from yarl import URL

from streamsrv.client.refusals import Misused
from streamsrv.commands import Options

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def stream_url(url: str, interview: str) -> URL:
    """The address of ``interview`` on the server at ``url``, without options.

    Raises:
        Misused: ``url`` is no URL of a server, or ``interview`` is empty.
    """
    try:
        base = URL(url)
        scheme, host = _SCHEMES.get(base.scheme), base.host
    except ValueError:
        scheme = host = None
    if scheme is None or not host:
        raise Misused("the server's URL is not understood", hint="give one like ws://localhost:3004")
    if not interview:
        raise Misused("the interview has no name", hint="give one like interview-7")
    # Quoted whole: a slash in the name is part of the name, and the server says what it thinks of it.
    return base.with_scheme(scheme).joinpath("transcription", "stream", quote(interview, safe=":"), encoded=True)


def query(options: Options) -> dict[str, str]:
    """The options that are not at their default, as the query takes them."""
    usual: dict[str, object] = msgspec.structs.asdict(Options())
    given: dict[str, object] = msgspec.structs.asdict(options)
    return {name: _text(value) for name, value in given.items() if value != usual[name]}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
