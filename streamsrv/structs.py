"""msgspec learns what a Struct holds when it is first decoded into.

Two threads that decode into the same one for the first time, at the same time, crash the process (msgspec 0.22: one of
them sees fields that the other has not filled in yet).  So all are learnt before there are threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec

_seen: set[type[msgspec.Struct]] = set()


def learn() -> None:
    """Learn every Struct that is defined by now; takes less than a tenth of a second, and the second time nothing.

    What cannot be decoded into, or names what only type checkers know, is left out: nobody decodes into it.
    """
    for kind in _below(msgspec.Struct):
        if kind not in _seen:
            _seen.add(kind)
            with suppress(TypeError, NameError):
                msgspec.json.Decoder(kind)


def _below(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
