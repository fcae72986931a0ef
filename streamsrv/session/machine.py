"""The session machine: sans-I/O, with time as an argument.

Five entrances (``receive``, ``marked``, ``heard``, ``stored``, ``tick``), each with ``now`` in monotonic seconds and
each answered by the effects the driver must carry out, in order.  ``deadline`` tells when ``tick`` is wanted.  The
same inputs at the same times give the same effects, so a conversation is a file (``tests/golden``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from streamsrv import commands, events
from streamsrv.commands import AnyCommand, Options
from streamsrv.facts import (
    RATE_HZ,
    Advanced,
    Answer,
    ChannelStart,
    CutMade,
    FinalKept,
    Gap,
    Mark,
    Outdated,
    ProgressKept,
    Receipt,
    Settled,
    SpeechBegan,
    SpeechEnded,
)
from streamsrv.session import channel as parts
from streamsrv.session.channel import Asked, Channel, Segment
from streamsrv.session.effects import AnyEffect, Close, Cut, Forget, Hold, Keep, Leave, Note, Release, Say, Settle
from streamsrv.session.states import MOVES, OVER, TAKES_AUDIO, State, Trigger
from streamsrv.session.transcript import join, stable_chars

MAX_FLUSHES = 64
"""Flushes waiting for their finals; further ones are answered together with the newest."""


EndCause: TypeAlias = Literal["finish", "disconnect", "timeout", "error"]


class MachineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a session may do, and how long it waits."""

    idle_timeout_s: float = 60.0
    resume_window_s: float = 60.0
    max_stream_s: float = 14_400.0
    ack_every_s: float = 0.9
    """Restart points come every 0.96 s of silence, so each finds its ack due: at least one a second."""
    partial_every_s: float = 0.1
    agreement: int = 2
    """Equal hypotheses that make a word stable."""
    partials_always: bool = True
    """Ask for partials even when nobody wants to see them: a live engine is then up to date at the endpoint."""
    final_within_s: float = 1.0
    """Deadline of a final, from the end of its segment."""


class Machine:
    """One session of one stream.

    Args:
        settings: bounds and pauses.
        options: the stream's options.
        epoch: this connection's epoch.
        resume_at: first sample the client shall send.
        starts: where each channel begins; zeros for a new stream.
        finals: what a resumed stream has stored so far.
        now: monotonic seconds.
    """

    def __init__(
        self,
        settings: MachineSettings,
        *,
        options: Options,
        epoch: int,
        resume_at: int,
        starts: Sequence[ChannelStart],
        finals: tuple[events.Final, ...] = (),
        now: float,
    ) -> None:
        self.settings = settings
        self.options = options
        self.state = State.OPEN
        self.last_heard = now
        """When the peer last sent anything; the driver moves it with every message."""
        self._epoch = epoch
        self._resume_at = resume_at
        self._finals_before = finals
        self._channels = [self._channel(number, start) for number, start in enumerate(starts)]
        self._asked: dict[int, Asked] = {}
        self._next_request = 0
        self._flushes: deque[list[int]] = deque()
        self._finals = len(finals)
        self._tail_cut = False
        self._settling = False
        self._noting = False
        self._acked_at = now
        self._acked = self._lowest_noted()
        self._parted_at = 0.0
        self._cause: EndCause = "finish"
        self._goodbye: commands.Abort | None = None
        self._position = max(start.restart for start in starts)

    def _channel(self, number: int, start: ChannelStart) -> Channel:
        return Channel(number, self.settings.agreement, start)

    # --- entrances ----------------------------------------------------------------------------------------------

    def open(self) -> list[AnyEffect]:
        """The greeting; call once, first."""
        states = tuple(
            events.ChannelState(channel=c.number, kept_to=c.kept_to, next_segment=c.next_segment)
            for c in self._channels
        )
        ready = events.Ready(
            epoch=self._epoch,
            resume_at=self._resume_at,
            channels=states,
            options=self.options,
            finals=self._finals_before,
        )
        self._finals_before = ()
        return [Say(event=ready)]

    def receive(self, command: AnyCommand, now: float) -> list[AnyEffect]:
        """The peer, or the server itself, asked for something."""
        match command:
            case commands.KeepAlive():
                return []
            case commands.Audio():
                self._move(Trigger.AUDIO)
                return []
            case commands.Configure(options=options):
                return self._configure(options)
            case commands.Flush():
                return self._flush()
            case commands.Finish():
                return self._end(Trigger.FINISH, "finish")
            case commands.Disconnect(clean=clean):
                return self._disconnect(clean, now)
            case commands.Drain(within_s=within_s):
                return self._drain(within_s)
            case commands.Abort():
                return self._abort(command, now)
            case commands.Supersede():
                return self._superseded()
            case commands.Ignore(code=code, what=what):
                return [_warn(code, what)]

    def marked(self, mark: Mark, now: float) -> list[AnyEffect]:
        """The front found something in the audio."""
        if self.state in OVER:
            return []
        match mark:
            case Advanced():
                return self._advanced(mark, now)
            case SpeechBegan():
                return self._began(mark, now)
            case SpeechEnded():
                return self._ended(mark, now)
            case CutMade():
                return self._cut_made(mark, now)
            case Gap():
                return [Say(event=events.AudioGap(channel=mark.channel, start=mark.start, stop=mark.stop))]

    def heard(self, answer: Answer, now: float) -> list[AnyEffect]:
        """An engine answered; what was forgotten or is over is ignored."""
        asked = self._asked.pop(answer.request, None)
        if asked is None or self.state in OVER:
            return []
        if asked.final:
            return self._final_heard(asked, answer, now)
        if asked.segment is not asked.channel.open:
            return []
        return self._partial_heard(asked, answer, now)

    def stored(self, receipt: Receipt, now: float) -> list[AnyEffect]:
        """The store confirmed something."""
        if self.state in OVER:
            return []
        match receipt:
            case FinalKept():
                return self._final_kept(receipt, now)
            case ProgressKept(restarts=restarts):
                self._noting = False
                for ours, restart in zip(self._channels, restarts, strict=True):
                    ours.noted = restart
                return self._ack(now)
            case Settled():
                return self._settled()
            case Outdated():
                return self._superseded()

    def tick(self, now: float) -> list[AnyEffect]:
        """The alarm rang; harmless when it rings early."""
        if self.state is State.PARTED and now >= self._parted_at + self.settings.resume_window_s:
            return self._end(Trigger.WINDOW_OVER, "timeout")
        if self.state in TAKES_AUDIO and now >= self.last_heard + self.settings.idle_timeout_s:
            message = f"nothing was sent for {self.settings.idle_timeout_s:g} s"
            hint = 'send audio or {"type":"keepalive"}; resume with the token from \'ready\''
            abort = commands.Abort(code="idle", message=message, hint=hint, close_code=4408, retryable=True)
            return self._abort(abort, now)
        return []

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is wanted, monotonic seconds; never later than needed, sometimes earlier."""
        if self.state is State.PARTED:
            return self._parted_at + self.settings.resume_window_s
        if self.state in TAKES_AUDIO:
            return self.last_heard + self.settings.idle_timeout_s
        return None

    # --- commands -----------------------------------------------------------------------------------------------

    def _move(self, trigger: Trigger) -> bool:
        new = MOVES.get((self.state, trigger))
        if new is None:
            return False
        self.state = new
        return True

    def _configure(self, options: Options) -> list[AnyEffect]:
        if self.state is State.OPEN and self._epoch == 1:
            self.options = options
            self._channels = [self._channel(number, ChannelStart()) for number in range(options.tracks)]
            return [Say(event=events.Configured(options=options))]
        if self.state not in TAKES_AUDIO:
            return []
        wanted = msgspec.structs.replace(self.options, interim=options.interim)
        effects: list[AnyEffect] = []
        if options != wanted:
            effects.append(_warn("configure_late", "after the first audio only 'interim' can change; the rest is as it was"))
        self.options = wanted
        return [*effects, Say(event=events.Configured(options=wanted))]

    def _flush(self) -> list[AnyEffect]:
        return [Cut(cause="flush")] if self.state in TAKES_AUDIO else []

    def _end(self, trigger: Trigger, cause: EndCause) -> list[AnyEffect]:
        if not self._move(trigger):
            return []
        self._cause = cause
        return [Cut(cause="finish")]

    def _disconnect(self, clean: bool, now: float) -> list[AnyEffect]:
        if clean:
            return self._end(Trigger.FINISH, "disconnect")
        if self._move(Trigger.CUT):
            self._parted_at = now
        return []

    def _drain(self, within_s: float) -> list[AnyEffect]:
        if not self._move(Trigger.DRAIN):
            return []
        if self.state is State.GONE:
            return [*self._forget_all(), Leave()]
        return [Say(event=events.GoAway(within_ms=round(within_s * 1000))), Cut(cause="flush")]

    def _abort(self, abort: commands.Abort, now: float) -> list[AnyEffect]:
        """A lasting error is said after the tail's finals; any other closes at once and leaves the stream to a resume."""
        if abort.lasting:
            self._goodbye = self._goodbye or abort
            return self._end(Trigger.FATAL, "error")
        if self.state not in TAKES_AUDIO:
            return []
        self._disconnect(False, now)
        return [Say(event=_failed(abort)), Close(code=abort.close_code, reason=abort.code)]

    def _superseded(self) -> list[AnyEffect]:
        if not self._move(Trigger.SUPERSEDED):
            return []
        failed = events.Failed(
            code="superseded",
            message="this stream was resumed by a newer connection",
            hint="only the newest connection of a stream is served; close the other one first",
            retryable=False,
        )
        return [Say(event=failed), Close(code=4409, reason="superseded"), *self._forget_all(), Leave()]

    def _forget_all(self) -> list[AnyEffect]:
        forgotten: list[AnyEffect] = [Forget(request=request) for request in self._asked]
        self._asked.clear()
        return forgotten

    # --- marks --------------------------------------------------------------------------------------------------

    def _advanced(self, mark: Advanced, now: float) -> list[AnyEffect]:
        ours = self._channels[mark.channel]
        ours.position, ours.restart = mark.position, mark.restart
        if mark.position > self.settings.max_stream_s * RATE_HZ:
            message = f"the stream is longer than {self.settings.max_stream_s:g} s"
            abort = commands.Abort(
                code="too_long", message=message, hint="begin a new stream", close_code=4413, retryable=False, lasting=True
            )
            return self._abort(abort, now)
        return [*self._ask(ours, now), *self._progress(now)]

    def _began(self, mark: SpeechBegan, now: float) -> list[AnyEffect]:
        ours = self._channels[mark.channel]
        ours.position = mark.position
        utterance = ours.next_utterance
        ours.next_utterance += 1
        ours.begin(mark.start, utterance=utterance)
        started = events.SpeechStarted(channel=ours.number, utterance=utterance, at=mark.start)
        return [Say(event=started), *self._ask(ours, now)]

    def _ended(self, mark: SpeechEnded, now: float) -> list[AnyEffect]:
        ours = self._channels[mark.channel]
        ours.position = mark.position
        segment = ours.end(stop=mark.stop, speech_at=mark.speech_at, now=now, cause=mark.cause, over=mark.over)
        effects: list[AnyEffect] = []
        if mark.over:
            at = max(mark.speech_stop, segment.start)
            effects.append(Say(event=events.SpeechStopped(channel=ours.number, utterance=segment.utterance, at=at)))
        else:
            ours.begin(mark.stop, utterance=segment.utterance)
        asked = Asked(channel=ours, segment=segment, stop=mark.stop, arrived=mark.speech_at, final=True)
        return [*effects, self._question(asked, now + self.settings.final_within_s)]

    def _cut_made(self, mark: CutMade, now: float) -> list[AnyEffect]:
        if mark.cause == "flush":
            self._flushes.append([c.next_segment - (c.open is not None) for c in self._channels])
            if len(self._flushes) > MAX_FLUSHES:
                self._flushes.popleft()
        else:
            self._tail_cut, self._position = True, mark.position
        return [*self._flushed(), *self._settle()]

    # --- questions and answers ----------------------------------------------------------------------------------

    def _question(self, asked: Asked, deadline: float) -> AnyEffect:
        request = self._next_request
        self._next_request += 1
        self._asked[request] = asked
        return parts.hear(asked, request=request, deadline=deadline)

    def _ask(self, ours: Channel, now: float) -> list[AnyEffect]:
        """Ask for a partial when it is time: one at a time per channel, and only with new audio."""
        segment = ours.open
        if segment is None or not (self.options.interim or self.settings.partials_always):
            return []
        if ours.position <= segment.asked or now < segment.asked_at + self.settings.partial_every_s - 0.005:
            return []
        if any(asked.channel is ours and not asked.final for asked in self._asked.values()):
            return []
        segment.asked, segment.asked_at = ours.position, now
        asked = Asked(channel=ours, segment=segment, stop=ours.position, arrived=now, final=False)
        return [self._question(asked, now + self.settings.partial_every_s)]

    def _partial_heard(self, asked: Asked, answer: Answer, now: float) -> list[AnyEffect]:
        ours, segment = asked.channel, asked.segment
        agreement = segment.agreement
        before = agreement.stable_to
        agreement.update(answer.words)
        effects: list[AnyEffect] = []
        if agreement.stable_to is not None and agreement.stable_to != before:
            effects.append(Hold(channel=ours.number, earliest=min(agreement.stable_to, ours.position)))
        effects += self._partial(asked, now)
        return [*effects, *self._ask(ours, now)]

    def _partial(self, asked: Asked, now: float) -> list[AnyEffect]:
        segment = asked.segment
        words = segment.agreement.words
        text = join(words)
        stable = stable_chars(segment.agreement.stable, text)
        if not self.options.interim or (text, stable) == segment.said:
            return []
        segment.said = (text, stable)
        partial = events.Partial(
            channel=asked.channel.number,
            utterance=segment.utterance,
            segment=segment.number,
            start=segment.start,
            stop=asked.stop,
            text=text,
            stable_chars=stable,
            words=words,
            lag_ms=max(0, round((now - asked.arrived) * 1000)),
        )
        return [Say(event=partial)]

    def _final_heard(self, asked: Asked, answer: Answer, now: float) -> list[AnyEffect]:
        asked.segment.final = parts.conclude(asked.channel, asked.segment, answer, now)
        effects: list[AnyEffect] = []
        if answer.failed:
            effects.append(_segment_failed(asked.channel, asked.segment))
        return [*effects, *self._keep(asked.channel)]

    def _keep(self, ours: Channel) -> list[AnyEffect]:
        """Hand finals to the store in segment order, whatever order the engine answered in."""
        effects: list[AnyEffect] = []
        for segment in ours.waiting:
            if segment.final is None:
                break
            if not segment.handed:
                segment.handed = True
                effects.append(Keep(final=segment.final))
        return effects

    # --- receipts -----------------------------------------------------------------------------------------------

    def _final_kept(self, receipt: FinalKept, now: float) -> list[AnyEffect]:
        ours = self._channels[receipt.channel]
        segment = ours.stored(receipt.segment)
        if segment is None or segment.final is None:
            return []
        self._finals += 1
        final = msgspec.structs.replace(
            segment.final, durable=receipt.durable, latency_ms=max(0, round((now - segment.speech_at) * 1000))
        )
        effects: list[AnyEffect] = [Release(channel=ours.number, position=segment.stop), Say(event=final)]
        if final.words:
            ours.last_word_stop = final.words[-1].stop
        if segment.over:
            end = events.UtteranceEnd(
                channel=ours.number, utterance=segment.utterance, last_word_stop=max(ours.last_word_stop, segment.start)
            )
            effects.append(Say(event=end))
        return [*effects, *self._flushed(), *self._progress(now), *self._settle()]

    def _flushed(self) -> list[AnyEffect]:
        """Answer the flushes whose finals were all said."""
        answered = False
        while self._flushes and all(
            not c.waiting or c.waiting[0].number >= upto
            for c, upto in zip(self._channels, self._flushes[0], strict=True)
        ):
            self._flushes.popleft()
            answered = True
        if not answered or self.state is State.LEAVING:
            return []
        return [Say(event=events.Ack(position=self._acked, flushed=True))]

    def _progress(self, now: float) -> list[AnyEffect]:
        """Once a second: store what may be acknowledged, or say that nothing moved."""
        if self._noting or now < self._acked_at + self.settings.ack_every_s:
            return []
        for ours in self._channels:
            ours.acknowledge()
        if all(ours.safe == ours.noted for ours in self._channels):
            return self._ack(now)
        self._noting = True
        return [Note(restarts=tuple(ours.safe for ours in self._channels))]

    def _ack(self, now: float) -> list[AnyEffect]:
        self._acked_at = now
        self._acked = self._lowest_noted()
        return [Say(event=events.Ack(position=self._acked))]

    def _lowest_noted(self) -> int:
        return min(ours.noted for ours in self._channels)

    def _settle(self) -> list[AnyEffect]:
        """When the tail is cut and every final is stored, the stream can end, or the server can let go of it."""
        if self._settling or any(ours.waiting for ours in self._channels):
            return []
        if self.state is State.ENDING and self._tail_cut:
            self._settling = True
            return [Settle()]
        if self.state is State.LEAVING and not self._flushes:
            self._move(Trigger.SETTLED)
            failed = events.Failed(
                code="draining",
                message="this server is going away",
                hint="reconnect; resume with the token from 'ready'",
                retryable=True,
                retry_after_ms=0,
            )
            return [Say(event=failed), Close(code=1012, reason="draining"), *self._forget_all(), Leave()]
        return []

    def _settled(self) -> list[AnyEffect]:
        if not self._move(Trigger.SETTLED):
            return []
        if self._goodbye is not None:
            goodbye = self._goodbye
            return [Say(event=_failed(goodbye)), Close(code=goodbye.close_code, reason=goodbye.code), Leave()]
        closed = events.Closed(cause=self._cause, position=self._position, finals=self._finals)
        return [Say(event=closed), Close(code=1000), Leave()]


def _warn(code: str, message: str) -> Say:
    return Say(event=events.Warned(code=code, message=message))


def _segment_failed(ours: Channel, segment: Segment) -> Say:
    message = f"the engine gave segment {segment.number} up after its retries; its text is empty"
    return Say(event=events.Warned(code="segment_failed", message=message, channel=ours.number, segment=segment.number))


def _failed(abort: commands.Abort) -> events.Failed:
    after = None if abort.retry_after_s is None else round(abort.retry_after_s * 1000)
    return events.Failed(
        code=abort.code, message=abort.message, hint=abort.hint, retryable=abort.retryable, retry_after_ms=after
    )
