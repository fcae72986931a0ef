"""Judges a run by its ledger: seven invariants, the words, and what must not be left over.

Pure, and without any performance: whatever the timing was, a run is right or it is wrong.  Each complaint is one
sentence that begins with the invariant's name.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from streamsrv.cli.complaints import SETUP
from tests.adversity.runs.comers import judge_comers
from tests.adversity.runs.ledger import Handed, Ledger, Row, Shown, Snapshot, Speaking, Watching
from tests.adversity.runs.speech import Placed

SLACK = 1_600
"""Samples by which a stored final may miss the edge of a word: a tone fades within 10 ms, a frame has 20 ms."""
SAYS = {"garble": "damaged", "age": "version"}
"""What a server says of a database that it must not use."""
MOST_WER = 0.01
"""Share of recorded digits that may differ from the undisturbed run.  Tones must not differ at all."""


def judge(ledger: Ledger, undisturbed: Ledger | None = None) -> list[str]:
    """Every complaint about a run; none when it kept all promises.

    Args:
        undisturbed: the same run without faults, which recorded digits are compared with.
    """
    return [
        *_ended(ledger),
        *_shown_is_stored(ledger),
        *_stored_once(ledger),
        *_handed_on(ledger),
        *_handed_in_order(ledger),
        *_covered(ledger),
        *_kept_through_failures(ledger),
        *_not_restarted(ledger),
        *_words(ledger, undisturbed),
        *_files(ledger),
        *_refused(ledger),
        *_knocked(ledger),
        *judge_comers(ledger),
        *(f"left over: {one}" for one in ledger.left_over),
        *(f"log: {one}" for one in ledger.complaints),
    ]


def _ended(ledger: Ledger) -> Iterator[str]:
    for number, one in enumerate(ledger.speaking):
        if one.ended != "closed":
            yield f"end: speaker {number} did not come to an end: {one.ended}"


def _shown_is_stored(ledger: Ledger) -> Iterator[str]:
    """I1: every final that was shown as stored is in the store, as it was shown.

    One that was shown from a spool may have been replaced by a later epoch; its words are in the store all the same.
    (Whether anything is left in a spool is looked at when all is over.)
    """
    kept = {row.key: row for row in ledger.rows}
    for final in _all_shown(ledger):
        row = kept.get(final.key)
        if final.durable == "spool" and (row is None or row.text != final.text):
            if ledger.plan.spoken == "tones" and not _holds_words(ledger.rows, final):
                yield f"I1: {_name(final)}, {final.text!r}, was shown at {final.at:.2f} s (spool) and is nowhere stored"
        elif row is None:
            yield f"I1: {_name(final)} was shown at {final.at:.2f} s ({final.durable}) and is not stored"
        elif row.text != final.text:
            yield f"I1: {_name(final)} was shown as {final.text!r} and stored as {row.text!r}"
    for number, one in enumerate(ledger.watching):
        seen = {final.key for final in one.shown}
        for row in ledger.rows:
            if row.interview == one.interview and row.key not in seen:
                yield f"I1: segment {row.key} was not shown to viewer {number}"


def _stored_once(ledger: Ledger) -> Iterator[str]:
    """I2: one row for each segment, and segments without a gap; nobody was shown one twice on one connection."""
    for key, times in Counter(row.key for row in ledger.rows).items():
        if times > 1:
            yield f"I2: segment {key} is stored {times} times"
    for track in _tracks(ledger.rows):
        numbers = sorted({row.segment for row in track})
        if numbers != list(range(len(numbers))):
            yield f"I2: {track[0].stream} channel {track[0].channel} has the segments {numbers}"
    for number, one in enumerate(ledger.speaking):
        for (connection, key), times in Counter((shown.connection, shown.key) for shown in one.shown).items():
            if times > 1:
                yield f"I2: speaker {number} was shown {key} {times} times by {connection}"
        stored = sum(1 for row in ledger.rows if row.stream == one.stream)
        if one.closed_finals is not None and one.closed_finals != stored:
            yield f"I2: speaker {number} was told of {one.closed_finals} finals at the end, {stored} are stored"
    for number, watching in enumerate(ledger.watching):
        yield from _watched_once(number, watching)


def _watched_once(number: int, watching: Watching) -> Iterator[str]:
    """A viewer is shown a final once; one that it saw from a spool may come again until it is stored."""
    surely: set[tuple[str, int, int]] = set()
    for final in watching.shown:
        if final.key in surely:
            yield f"I2: viewer {number} was shown {_name(final)} again at {final.at:.2f} s"
        elif final.durable == "store":
            surely.add(final.key)


def _handed_on(ledger: Ledger) -> Iterator[str]:
    """I3: every final is in every sink, and an idempotency key means one event only."""
    for sink in ledger.sinks:
        events = [event for event in ledger.handed if event.sink == sink]
        finals = _deduped(events)
        for row in ledger.rows:
            event = finals.get(row.key)
            if event is None:
                yield f"I3: segment {row.key} is not in {sink}"
            elif event.text != row.text:
                yield f"I3: segment {row.key} is {event.text!r} in {sink} and {row.text!r} in the store"
        for key in finals.keys() - {row.key for row in ledger.rows}:
            yield f"I3: segment {key} is in {sink} and not in the store"
        meanings: dict[str, str] = {}
        for event in events:
            if meanings.setdefault(event.key, event.text) != event.text:
                yield f"I3: key {event.key} stands for two different events in {sink}"
        completed = {event.interview for event in events if event.kind == "transcript.completed"}
        for interview in ledger.plan.interviews:
            if interview not in completed:
                yield f"I3: the end of {interview} is not in {sink}"


def _handed_in_order(ledger: Ledger) -> Iterator[str]:
    """I4: within a sink first copies of an interview's events come in order; what comes again may come at any time."""
    for sink in ledger.sinks:
        first: dict[str, Handed] = {}
        for event in ledger.handed:
            if event.sink == sink:
                first.setdefault(event.key, event)
        events = list(first.values())
        yield from _channels_in_order(events)
        yield from _as_stored(ledger, events)
        yield from _ends_in_order(events)


def _channels_in_order(events: Sequence[Handed]) -> Iterator[str]:
    """Those of one channel by segment, also such as a later epoch replaced."""
    newest: dict[tuple[str, int], int] = {}
    for event in events:
        if event.kind == "final":
            track = (event.stream, event.channel)
            if event.segment < newest.get(track, -1):
                yield f"I4: {event.key} came after segment {newest[track]} of its channel into {event.sink}"
            newest[track] = max(event.segment, newest.get(track, -1))


def _as_stored(ledger: Ledger, events: Sequence[Handed]) -> Iterator[str]:
    """Those of one interview, over all its streams and channels, as they were stored."""
    epochs = {row.key: row.epoch for row in ledger.rows}
    places = {key: place for keys in ledger.order.values() for place, key in enumerate(keys)}
    newest: dict[str, Handed] = {}
    for event in events:
        if event.kind != "final" or epochs.get(event.final) != event.epoch or event.final not in places:
            continue  # a later epoch took its place in the store, or I3 complains
        before = newest.get(event.interview)
        if before is not None and places[event.final] < places[before.final]:
            yield f"I4: {event.key} came after {before.key}, which was stored later, into {event.sink}"
        else:
            newest[event.interview] = event


def _ends_in_order(events: Sequence[Handed]) -> Iterator[str]:
    """The ends of an interview by revision, and the last one after all its finals."""
    ends: dict[str, Handed] = {}
    after: dict[str, int] = {}
    for event in events:
        if event.kind == "transcript.completed":
            before = ends.get(event.interview)
            if before is not None and event.revision < before.revision:
                late = f"revision {event.revision} of {event.interview}"
                yield f"I4: {late} came after {before.revision} into {event.sink}"
            ends[event.interview], after[event.interview] = event, 0
        elif event.kind == "final":
            after[event.interview] = after.get(event.interview, 0) + 1
    for interview, end in ends.items():
        if after[interview]:
            yield f"I4: a final of {interview} came after its end into {end.sink}"


def _covered(ledger: Ledger) -> Iterator[str]:
    """I5: no two finals of a channel share a sample, and every word is in one of them."""
    for track in _tracks(ledger.rows):
        for left, right in itertools.pairwise(track):
            if right.start < left.stop:
                yield f"I5: segments {left.segment} and {right.segment} of {left.stream} share samples"
    for number, one in enumerate(ledger.speaking):
        for word in ledger.plan.voices[number].speech.placed():
            if not _holds(ledger.rows, one.stream, word):
                yield f"I5: speaker {number}: {_place(word)} is in no stored final"
        for ack in one.acked:
            if ack.position > ack.given:
                yield f"I5: speaker {number}: {ack.position} was acknowledged when {ack.given} had been given"


def _kept_through_failures(ledger: Ledger) -> Iterator[str]:
    """I6: right after a process died, all that had been acknowledged or shown could be read by others."""
    for snapshot in ledger.snapshots:
        yield from _spooled_through(ledger, snapshot)
        if snapshot.readable:
            yield from _stored_through(ledger, snapshot)


def _stored_through(ledger: Ledger, snapshot: Snapshot) -> Iterator[str]:
    """What was acknowledged, or shown as stored, is in the store."""
    kept = {row.key for row in snapshot.rows}
    for number, one in enumerate(ledger.speaking):
        for final in one.shown:
            if final.at <= snapshot.at and final.durable == "store" and final.key not in kept:
                yield f"I6: {snapshot.why}, and {_name(final)}, shown before, cannot be read"
        for stream, acked in _newest_acks(one, snapshot.at).items():
            restarts = snapshot.restarts.get(stream)
            if restarts is None or min(restarts) < acked:
                yield f"I6: {snapshot.why}, and {stream} was acknowledged to {acked} but knows {restarts}"
            if stream != one.stream:
                continue
            for word in ledger.plan.voices[number].speech.placed():
                if word.stop <= acked and not _holds(snapshot.rows, stream, word):
                    yield f"I6: {snapshot.why}, and {_place(word)} of speaker {number}, acknowledged, is not stored"


def _spooled_through(ledger: Ledger, snapshot: Snapshot) -> Iterator[str]:
    """What was shown from a spool is in one, or in the store since, unless a later epoch has the stream.

    When the store was away then, the rows that it has of the same epoch in the end were there: who wrote that epoch is
    the process that died, or a spool that was read.
    """
    rows = snapshot.rows if snapshot.readable else ledger.rows
    kept = {(one.key, one.epoch, one.text) for many in (snapshot.spooled, rows) for one in many}
    for one in ledger.speaking:
        epochs = {greeted.connection: greeted.epoch for greeted in one.greeted}
        owners = dict(snapshot.epochs)
        for greeted in one.greeted:
            if greeted.at <= snapshot.at:
                owners[greeted.stream] = max(greeted.epoch, owners.get(greeted.stream, 0))
        for final in one.shown:
            if final.at > snapshot.at or final.durable != "spool" or final.connection not in epochs:
                continue
            epoch = epochs[final.connection]
            if epoch == owners[final.stream] and (final.key, epoch, final.text) not in kept:
                yield f"I6: {snapshot.why}, and {_name(final)}, shown from a spool, is neither there nor in the store"


def _not_restarted(ledger: Ledger) -> Iterator[str]:
    """I7: a process ends only when the run wants it to, and then well."""
    for died in ledger.died:
        if not died.wanted:
            yield f"I7: {died.name} ended by itself at {died.at:.2f} s with {died.code}"
        elif died.code not in (0, -9):
            yield f"I7: {died.name} was asked to stop at {died.at:.2f} s and ended with {died.code}"


def _words(ledger: Ledger, undisturbed: Ledger | None) -> Iterator[str]:
    """The transcript is that of the undisturbed run."""
    differ = total = 0
    first = ""
    for number, voice in enumerate(ledger.plan.voices):
        for channel in range(len(voice.speech.channels)):
            got = said(ledger, ledger.speaking[number].stream, channel)
            wanted = voice.speech.words(channel)
            if undisturbed is not None:
                wanted = said(undisturbed, undisturbed.speaking[number].stream, channel)
            errors = distance(got, wanted)
            differ, total = differ + errors, total + len(wanted)
            if errors and not first:
                first = f"speaker {number}, channel {channel}: {' '.join(got)} instead of {' '.join(wanted)}"
    allowed = MOST_WER * total if ledger.plan.spoken == "digits" else 0
    if differ > allowed:
        yield f"words: {differ} of {total} differ; {first}"


def _files(ledger: Ledger) -> Iterator[str]:
    """A file that was taken is heard once and to its end; one that may have been taken is not heard at all, or so."""
    for number, (file, one) in enumerate(zip(ledger.plan.files, ledger.sending, strict=True)):
        if one.ended != "done":
            yield f"file: {number} did not come to an end: {one.ended}"
        if one.stream not in one.streams:
            yield f"file: {number} has no stream of its job"
        if len(one.streams) > one.attempts:
            yield f"file: {number} was sent {one.attempts} times and heard {len(one.streams)} times"
        for stream in one.streams:
            got, wanted = said(ledger, stream, 0), file.speech.words(0)
            if got != wanted:
                yield f"file: {number}: {stream} is {' '.join(got)} instead of {' '.join(wanted)}"
            for word in file.speech.placed():
                if not _holds(ledger.rows, stream, word):
                    yield f"file: {number}: {_place(word)} is in no final of {stream}"


def _refused(ledger: Ledger) -> Iterator[str]:
    """A server with a database that it must not use says so, and leaves it as it is."""
    for one in ledger.refused:
        if one.code != SETUP or SAYS[one.why] not in one.said:
            yield f"refusal: with {one.why} it ended with {one.code}: {one.said[:300]}"
        if not one.untouched:
            yield f"refusal: with {one.why} it changed its database"


def _knocked(ledger: Ledger) -> Iterator[str]:
    """Nobody without its token takes a stream over; a server that is full or leaves says so before it looks."""
    for one in ledger.knocked:
        if one.status not in (403, 404, 503):
            yield f"knock: a wrong token was answered with {one.status} at {one.at:.2f} s"


def said(ledger: Ledger, stream: str, channel: int) -> list[str]:
    """Stored words of one channel, in order."""
    rows = [row for row in ledger.rows if row.stream == stream and row.channel == channel]
    return " ".join(row.text for row in sorted(rows, key=lambda row: row.start)).split()


def distance(got: Sequence[str], wanted: Sequence[str]) -> int:
    """Words to insert, delete or replace."""
    before = list(range(len(wanted) + 1))
    for row, word in enumerate(got, 1):
        now = [row]
        for column, other in enumerate(wanted, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (word != other)))
        before = now
    return before[-1]


def _all_shown(ledger: Ledger) -> Iterator[Shown]:
    for one in ledger.speaking:
        yield from one.shown
    for watching in ledger.watching:
        yield from watching.shown
    for leaving in ledger.left:
        yield from leaving.shown


def _tracks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of each channel of each stream, by start."""
    tracks: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        tracks.setdefault((row.stream, row.channel), []).append(row)
    for track in tracks.values():
        yield sorted(track, key=lambda row: (row.start, row.stop))


def _deduped(events: Sequence[Handed]) -> dict[tuple[str, int, int], Handed]:
    """What a consumer has after it dropped repetitions: the higher epoch wins."""
    best: dict[tuple[str, int, int], Handed] = {}
    for event in events:
        if event.kind == "final" and (event.final not in best or event.epoch > best[event.final].epoch):
            best[event.final] = event
    return best


def _holds(rows: Sequence[Row], stream: str, word: Placed) -> bool:
    return any(
        row.stream == stream
        and row.channel == word.channel
        and row.start <= word.start + SLACK
        and row.stop >= word.stop - SLACK
        for row in rows
    )


def _holds_words(rows: Sequence[Row], final: Shown) -> bool:
    """Whether its words stand together in what is stored of its channel."""
    ours = [row for row in rows if (row.stream, row.channel) == (final.stream, final.channel)]
    stored = " ".join(row.text for row in sorted(ours, key=lambda row: row.start))
    return not final.text or f" {' '.join(final.text.split())} " in f" {' '.join(stored.split())} "


def _newest_acks(one: Speaking, before: float) -> dict[str, int]:
    newest: dict[str, int] = {}
    for ack in one.acked:
        if ack.at <= before:
            newest[ack.stream] = max(ack.position, newest.get(ack.stream, 0))
    return newest


def _name(final: Shown) -> str:
    return f"segment {final.key}"


def _place(word: Placed) -> str:
    return f"the word at {word.start / 16_000:.2f} s of channel {word.channel}"
