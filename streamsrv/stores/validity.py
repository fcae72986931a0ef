"""Which finals of a stream count, and where its next owner goes on: the rule of epochs, the same in every store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from streamsrv.facts import ChannelStart, Position
from streamsrv.stores.base import EpochStart

Limits: TypeAlias = Mapping[int, Sequence[Position]]
"""Per epoch and channel: the first position at which its finals no longer count."""


class Placed(NamedTuple):
    """Where a final lies; the order of the fields is the order in which ``continuations`` wants them."""

    channel: int
    segment: int
    epoch: int
    utterance: int
    start: Position
    stop: Position


def limits(epochs: Sequence[EpochStart]) -> dict[int, tuple[Position, ...]]:
    """For each epoch but the last: per channel, the earliest beginning of a later epoch."""
    found: dict[int, tuple[Position, ...]] = {}
    later: tuple[Position, ...] = ()
    for epoch in reversed(epochs):
        if later:
            found[epoch.epoch] = later
        later = tuple(map(min, epoch.begins, later)) if later else epoch.begins
    return found


def counts(bounds: Limits, epoch: int, channel: int, start: Position) -> bool:
    """Whether a final is valid: no later epoch begins at or before its start."""
    bound = bounds.get(epoch, ())
    return channel >= len(bound) or start < bound[channel]


def continuations(
    epochs: Sequence[EpochStart], restarts: Sequence[Position], found: Iterable[Placed]
) -> tuple[ChannelStart, ...]:
    """Where each channel goes on: behind its valid finals, up to the first segment number that is missing.

    Args:
        epochs: of the stream, oldest first.
        restarts: per channel.
        found: its finals, by channel, segment, epoch.
    """
    kept = list(epochs[-1].begins)
    segments = [0] * len(restarts)
    utterances = [0] * len(restarts)
    bounds = limits(epochs)
    for channel, segment, epoch, utterance, start, stop in found:
        if segment != segments[channel] or not counts(bounds, epoch, channel, start):
            continue
        kept[channel] = max(kept[channel], stop)
        segments[channel] = segment + 1
        utterances[channel] = max(utterances[channel], utterance + 1)
    return tuple(
        ChannelStart(restart=restart, kept_to=to, next_segment=segment, next_utterance=utterance)
        for restart, to, segment, utterance in zip(restarts, kept, segments, utterances, strict=True)
    )
