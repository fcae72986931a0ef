"""One conversation: written while a machine runs, replayed against a fresh one."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import msgspec

from streamsrv.commands import AnyCommand, Options
from streamsrv.facts import Answer, ChannelStart, Mark, Receipt
from streamsrv.session.effects import AnyEffect
from streamsrv.session.machine import Machine
from streamsrv.session.settings import MachineSettings


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's arguments."""

    about: str
    settings: MachineSettings
    options: Options
    epoch: int
    resume_at: int
    starts: tuple[ChannelStart, ...]
    now: float


class Entrance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call, exactly one of the first five (none: ``open``)."""

    now: float
    receive: AnyCommand | None = None
    marked: Mark | None = None
    heard: Answer | None = None
    stored: Receipt | None = None
    tick: bool = False
    gave: tuple[AnyEffect, ...] = ()


Tape: TypeAlias = tuple[Head, list[Entrance]]


def enter(machine: Machine, call: Entrance) -> list[AnyEffect]:
    """Make the call."""
    if call.receive is not None:
        machine.last_heard = call.now
        return machine.receive(call.receive, call.now)
    if call.marked is not None:
        machine.last_heard = call.now
        return machine.marked(call.marked, call.now)
    if call.heard is not None:
        return machine.heard(call.heard, call.now)
    if call.stored is not None:
        return machine.stored(call.stored, call.now)
    return machine.tick(call.now) if call.tick else machine.open()


def machine_of(head: Head) -> Machine:
    return Machine(
        head.settings,
        options=head.options,
        epoch=head.epoch,
        resume_at=head.resume_at,
        starts=head.starts,
        now=head.now,
    )


def read(path: Path) -> Tape:
    head, *lines = path.read_bytes().splitlines()
    return msgspec.json.decode(head, type=Head), [msgspec.json.decode(line, type=Entrance) for line in lines]


def write(path: Path, tape: Tape) -> None:
    head, calls = tape
    path.write_bytes(b"\n".join(msgspec.json.encode(part) for part in (head, *calls)) + b"\n")
