"""A multipart form with one file, read as it comes: the file goes to disk, everything else is small."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from difflib import get_close_matches
from typing import TypeAlias, TypeVar

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.client_exceptions import ClientError
from aiohttp.http_exceptions import HttpProcessingError

from streamsrv.errors import BadRequest, BodyTooBig, UnsupportedMedia
from streamsrv.server.pace import Pace

MAX_PARTS = 32
"""Parts of a form; one more is refused."""
FIELD_BYTES = 1_024
"""Longest value of a field; more is refused, in fields nobody knows too."""
UNKNOWN_BYTES = 65_536
"""Longest part that nobody knows; it is read and dropped."""
OVERHEAD_BYTES = 1_048_576
"""What a form may have besides its file."""
READ_BYTES = 65_536
SHOWN = 40
"""Characters of an unknown name that are looked at, and told."""
LIKENESS = 0.75
"""From here on (0 to 1) an unknown name is a known one mistyped: refused, since its value would be missed."""

T = TypeVar("T")
Take: TypeAlias = Callable[[bytes], Awaitable[None]]
_PLAIN = frozenset({"", "7bit", "8bit", "binary"})
_BROKEN = "this is not a multipart form"
_HINT = "send the form as curl does: -F file=@talk.wav -F interviewId=my-interview"


class Form:
    """Reads one form.

    Args:
        request: its body was not read yet.
        pace: of the body.
        fields: names of the fields that count.
        file: name of the part with the file.
        max_bytes: of the file.
        take: is given the file's bytes.

    Raises:
        UnsupportedMedia: not a multipart form.
        BodyTooBig: it says that it is too long.
    """

    def __init__(
        self, request: web.Request, pace: Pace, *, fields: frozenset[str], file: str, max_bytes: int, take: Take
    ) -> None:
        if request.content_type != "multipart/form-data":
            raise UnsupportedMedia("the body is not a multipart form", hint=_HINT)
        self.values: dict[str, str] = {}
        self.filename: str | None = None
        """As the client says: may be anything."""
        self.has_file = False
        self.ignored: list[str] = []
        """Parts nobody knows, as far as their names can be shown; at most ``MAX_PARTS``."""
        self._request = request
        self._pace = pace
        self._fields = fields
        self._file = file
        self._max_bytes = max_bytes
        self._take = take
        if (request.content_length or 0) > max_bytes + OVERHEAD_BYTES:
            raise self._too_big()

    async def read(self) -> None:
        """Read it all.

        Raises:
            BadRequest: not a form we understand, or it has not what it needs.
            BodyTooBig: the file, or anything else, is longer than it may be.
            TooSlow: it does not come.
        """
        reader = await self._safely(self._request.multipart())
        for _ in range(MAX_PARTS + 1):
            part = await self._safely(reader.next())
            if part is None:
                break
            await self._part(part)
        else:
            raise BadRequest(f"the form has more than {MAX_PARTS} parts", hint=_HINT)
        if not self.has_file:
            raise BadRequest(f"the form has no part '{self._file}'", hint=_HINT)

    async def _part(self, part: MultipartReader | BodyPartReader) -> None:
        if not isinstance(part, BodyPartReader):
            raise BadRequest("a part of the form is itself a form", hint=_HINT)
        if part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "").strip().lower() not in _PLAIN:
            raise BadRequest("a part of the form has a transfer encoding", hint="send the parts' bytes as they are")
        if hdrs.CONTENT_ENCODING in part.headers:
            raise UnsupportedMedia("a part of the form is compressed", hint="send the file as it is")
        if part.name == self._file:
            return await self._read_file(part)
        if part.name not in self._fields:
            self.ignored.append(unknown("part", part.name or "", (*self._fields, self._file)))
            await self._read_small(part, UNKNOWN_BYTES)
            return
        if part.name in self.values:
            raise BadRequest(f"the form says '{part.name}' twice", hint=_HINT)
        self.values[part.name] = _text(await self._read_small(part, FIELD_BYTES), part.name)

    async def _read_file(self, part: BodyPartReader) -> None:
        if self.has_file:
            raise BadRequest("the form has two files", hint="send each file in a request of its own")
        self.has_file = True
        self.filename = part.filename
        size = 0
        while data := await self._safely(part.read_chunk(READ_BYTES)):
            size += len(data)
            if size > self._max_bytes:
                raise self._too_big()
            await self._take(data)

    async def _read_small(self, part: BodyPartReader, most: int) -> bytes:
        held = bytearray()
        while data := await self._safely(part.read_chunk(READ_BYTES)):
            held += data
            if len(held) > most:
                raise BodyTooBig(f"a field of the form is longer than {most} bytes", hint=_HINT)
        return bytes(held)

    def _too_big(self) -> BodyTooBig:
        return BodyTooBig(
            f"the file is larger than {self._max_bytes} bytes",
            hint="send it compressed, as FLAC or Opus, or in parts; upload.max_mb sets the limit",
        )

    async def _safely(self, step: Awaitable[T]) -> T:
        """One step of the library's reader, in time; whatever it makes of bad input is the client's fault."""
        try:
            async with self._pace.kept():
                return await step
        except (ValueError, RuntimeError, AssertionError, KeyError, HttpProcessingError, web.HTTPException) as error:
            raise BadRequest(_BROKEN, hint=_HINT) from error
        except (ClientError, ConnectionError) as error:  # the client left in mid-body
            raise BadRequest("the body ended before the form did", hint=_HINT) from error


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The name of something nobody knows, made fit to be shown.

    Raises:
        BadRequest: it is nearly one that is known, and surely was meant to be.
    """
    shown = "".join(c for c in name[:SHOWN] if c.isprintable())
    plain = {_plainly(one): one for one in known}
    if near := get_close_matches(_plainly(shown), plain, n=1, cutoff=LIKENESS):
        raise BadRequest(f"there is no {what} '{shown}'", hint=f"did you mean '{plain[near[0]]}'?")
    return shown


def _plainly(name: str) -> str:
    """A name without what people remember wrongly."""
    return name.lower().replace("_", "").replace("-", "")


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadRequest(f"the field '{name}' is not UTF-8", hint=_HINT) from None
