"""What really happened in a run: sent, acknowledged, shown, stored, handed on.  A file, so that it can be judged again.

Positions are samples at 16 000 Hz since a stream began; times are seconds since the speakers began.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.adversity.runs.plan import Plan


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A final in the store."""

    interview: str
    stream: str
    epoch: int
    channel: int
    segment: int
    text: str
    start: int
    stop: int

    @property
    def key(self) -> tuple[str, int, int]:
        """What readers know a final by."""
        return self.stream, self.channel, self.segment


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A final as somebody was told it."""

    at: float
    connection: str
    """The server's id of the session."""
    again: bool
    """It came with a greeting: stored before."""
    stream: str
    channel: int
    segment: int
    text: str
    durable: str

    @property
    def key(self) -> tuple[str, int, int]:
        return self.stream, self.channel, self.segment


class Acked(msgspec.Struct, frozen=True, kw_only=True):
    """An acknowledgement, per channel the same."""

    at: float
    stream: str
    position: int
    given: int
    """What the speaker had given by then."""


class Greeted(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that was let in."""

    at: float
    connection: str
    stream: str
    epoch: int
    resume_at: int


class Speaking(msgspec.Struct, kw_only=True):
    """What one speaker saw."""

    greeted: list[Greeted] = []
    acked: list[Acked] = []
    shown: list[Shown] = []
    ended: str = "never"
    """``closed`` is the one good end; otherwise what the client raised."""
    closed_finals: int | None = None
    """Finals of the stream, as ``closed`` tells."""

    @property
    def stream(self) -> str:
        """The stream that ended; earlier ones were begun in vain."""
        return self.greeted[-1].stream if self.greeted else ""


class Watching(msgspec.Struct, kw_only=True):
    """What one viewer saw."""

    interview: str
    shown: list[Shown] = []


class Sending(msgspec.Struct, kw_only=True):
    """What became of one uploaded file."""

    attempts: int = 0
    """Times it was sent: one that got no answer may have been taken all the same."""
    job: str = ""
    stream: str = ""
    """Of the attempt that was answered."""
    ended: str = "never"
    """``done`` is the one good end; otherwise the job's state, or what the server said."""
    streams: list[str] = []
    """Of all attempts, as the store has them."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A start that had to fail."""

    why: str
    code: int
    said: str
    untouched: bool
    """Whether every byte of the data is as it was."""


class Spooled(msgspec.Struct, frozen=True, kw_only=True):
    """A final in a node's spool."""

    stream: str
    epoch: int
    channel: int
    segment: int
    text: str

    @property
    def key(self) -> tuple[str, int, int]:
        return self.stream, self.channel, self.segment


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The store and the spools, read by somebody else right after a process died."""

    at: float
    why: str
    spooled: list[Spooled] = []
    """Of all nodes; read before the store, so that a final on its way there is seen in one of the two."""
    readable: bool = True
    """Whether the store could be read; else nothing that follows is known."""
    rows: list[Row] = []
    restarts: dict[str, list[int]] = {}
    """Acknowledged restart points of each stream, per channel."""
    epochs: dict[str, int] = {}
    """The epoch that owns each stream."""


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink holds, in its order."""

    sink: str
    key: str
    """The event's idempotency key."""
    kind: str
    interview: str
    stream: str = ""
    epoch: int = 0
    channel: int = 0
    segment: int = 0
    text: str = ""
    revision: int = 0
    """Of a completion."""

    @property
    def final(self) -> tuple[str, int, int]:
        """What readers know the final by that it hands on."""
        return self.stream, self.channel, self.segment


class Knocked(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody without the token of a stream was answered."""

    at: float
    status: int
    foreign: bool = False
    """It had that of another interview's stream."""


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """One who took a stream with its speaker's own token."""

    at: float
    """When it was answered."""
    stream: str
    status: int
    """Of the handshake; 0: nobody answered."""
    epoch: int = 0
    """Of the greeting; 0: there was none."""
    code: int = 0
    """What the server closed it with; 0: it left by itself, or its line broke."""


class Leaving(msgspec.Struct, kw_only=True):
    """What somebody saw who went away from a stream and came back."""

    stream: str = ""
    """Empty: it never came about."""
    shown: list[Shown] = []
    """Before it left."""
    acked: int = 0
    flushed: bool = False
    """Whether it left with everything heard."""
    resumed_at: int = -1
    """Where it was to go on; -1: it was not let in again."""
    again: list[tuple[str, int, int]] = []
    """Keys of the finals that it was greeted with."""
    away_s: float = 0.0
    """When it asked, since it left, if it was too late."""
    ended: str = ""
    """``closed``, or the status with which it was told that it is too late."""


class Died(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a process."""

    at: float
    name: str
    code: int
    wanted: bool
    """Whether the run had asked for it."""


class Ledger(msgspec.Struct, kw_only=True):
    """One run."""

    plan: Plan
    speaking: list[Speaking] = []
    watching: list[Watching] = []
    sending: list[Sending] = []
    refused: list[Refused] = []
    snapshots: list[Snapshot] = []
    rows: list[Row] = []
    """The store when all was over."""
    order: dict[str, list[tuple[str, int, int]]] = {}
    """What each interview's finals are known by, in the order in which they were stored."""
    sinks: list[str] = []
    knocked: list[Knocked] = []
    rivals: list[Rival] = []
    left: list[Leaving] = []
    late: list[Knocked] = []
    """What those were answered who came with a right token when all was over."""
    consumed: list[Handed] | None = None
    """What somebody made of a sink who died again and again; ``None``: nobody read."""
    consumer_lives: int = 0
    filled: dict[str, int] = {}
    """Bytes that were free on a full disk just before room was made."""
    handed: list[Handed] = []
    died: list[Died] = []
    left_over: list[str] = []
    """Locks, jobs, sessions and processes that should be gone, in words."""
    complaints: list[str] = []
    """Lines of level error in the logs."""
    seconds: dict[str, float] = {}
    """How long each part took: ``start``, ``play``, ``hand on``, ``end``."""

    def write(self, path: Path) -> Path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))
        return path


def read(path: Path) -> Ledger:
    """A ledger from its file."""
    return msgspec.json.decode(path.read_bytes(), type=Ledger)
