"""The session machine: sans-I/O, with time as an argument.

Five entrances (``receive``, ``marked``, ``heard``, ``stored``, ``tick``), each with ``now`` in monotonic seconds and
each answered by the effects the driver must carry out, in order.  ``deadline`` tells when ``tick`` is wanted.  A sixth,
``picked``, lets an engine that kept a question waiting ask for its newest form.  The same inputs at the same times
give the same effects, so a conversation is a file (``tests/golden``).
"""

from __future__ import annotations

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
    Position,
    ProgressKept,
    Receipt,
    Settled,
    SpeechBegan,
    SpeechEnded,
)
from streamsrv.session.channel import Channel
from streamsrv.session.effects import AnyEffect, Close, Cut, Hear, Leave, Release, Say, Settle
from streamsrv.session.hearing import Hearing
from streamsrv.session.progress import Progress
from streamsrv.session.settings import MachineSettings, window_over
from streamsrv.session.states import MOVES, OVER, TAKES_AUDIO, State, Trigger

MAX_READY_FINALS = 200
"""Finals told to who resumes: the newest.  A peer can have missed those of the last minute (the ring); one message
must not carry hours.  Older ones are read with the transcript."""

EndCause: TypeAlias = Literal["finish", "disconnect", "timeout", "error"]


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
        self.fresh = epoch == 1 or all(start == ChannelStart() for start in starts)
        """Nothing of the stream is stored or acknowledged: its options may still change."""
        self._epoch = epoch
        self._resume_at = resume_at
        self._finals_before = finals
        self._channels = [self._channel(number, start) for number, start in enumerate(starts)]
        self._hearing = Hearing(settings, interim=options.interim)
        self._progress = Progress(settings, self._channels, now)
        self._finals = len(finals)
        self._tail_cut = self._passed_over = False
        self._settling = False
        self._parted_at = self._excused_to = 0.0
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
            finals=tuple(sorted(self._finals_before, key=lambda final: final.stop)[-MAX_READY_FINALS:]),
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

    def pass_over(self) -> None:
        """Audio came that is not taken any more: whoever sent it must not be told that all was heard."""
        self._passed_over = True

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

    def excuse(self, until: float) -> None:
        """A peer that is away could not come back before: its time begins then (see ``window_over``)."""
        self._excused_to = max(self._excused_to, until)

    def heard(self, answer: Answer, now: float) -> list[AnyEffect]:
        """An engine answered."""
        return [] if self.state in OVER else self._hearing.heard(answer, now)

    def picked(self, request: int, now: float) -> Hear | None:
        """The engine has time for this question: its newest form, or ``None`` when its answer is no longer wanted.

        For engines that let questions wait: a partial then covers the newest audio, however long it waited.
        """
        return None if self.state in OVER else self._hearing.picked(request, now)

    def stored(self, receipt: Receipt, now: float) -> list[AnyEffect]:
        """The store confirmed something."""
        if self.state in OVER:
            return []
        match receipt:
            case FinalKept():
                return self._final_kept(receipt, now)
            case ProgressKept(restarts=restarts):
                return self._progress.noted(restarts, now)
            case Settled():
                return self._settled()
            case Outdated():
                return self._superseded()

    def tick(self, now: float) -> list[AnyEffect]:
        """The alarm rang; harmless when it rings early."""
        if self.state is State.PARTED and now >= self._window_over:
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
            return self._window_over
        if self.state in TAKES_AUDIO:
            return self.last_heard + self.settings.idle_timeout_s
        return None

    @property
    def _window_over(self) -> float:
        return window_over(self._parted_at, self._excused_to, self.settings.resume_window_s)

    @property
    def settled(self) -> Position:
        """Everything before, of every channel, is in stored finals or was silence."""
        return min(ours.settled for ours in self._channels)

    # --- commands -----------------------------------------------------------------------------------------------

    def _move(self, trigger: Trigger) -> bool:
        new = MOVES.get((self.state, trigger))
        if new is None:
            return False
        self.state = new
        return True

    def _configure(self, options: Options) -> list[AnyEffect]:
        if self.state is State.OPEN and self.fresh:
            self.options = options
            self._channels[:] = [self._channel(number, ChannelStart()) for number in range(options.tracks)]
            self._hearing.interim = options.interim
            return [Say(event=events.Configured(options=options))]
        if self.state not in TAKES_AUDIO:
            return []
        wanted = msgspec.structs.replace(self.options, interim=options.interim)
        effects: list[AnyEffect] = []
        if options != wanted:
            effects.append(
                _warn("configure_late", "after the first audio only 'interim' can change; the rest is as it was")
            )
        self.options = wanted
        self._hearing.interim = wanted.interim
        return [*effects, Say(event=events.Configured(options=wanted))]

    def _flush(self) -> list[AnyEffect]:
        return [Cut(cause="flush")] if self.state in TAKES_AUDIO else []

    def _end(self, trigger: Trigger, cause: EndCause) -> list[AnyEffect]:
        if trigger is Trigger.FINISH and self._passed_over:
            return []  # the server goes away: another one hears what was passed over, and the end
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
            return [*self._hearing.forget_all(), Leave()]
        parting = tuple(ours.number for ours in self._channels if ours.promises)
        return [Say(event=events.GoAway(within_ms=round(within_s * 1000))), Cut(cause="part", channels=parting)]

    def _abort(self, abort: commands.Abort, now: float) -> list[AnyEffect]:
        """A lasting error is said after the tail's finals; any other closes at once, and the stream can be resumed."""
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
        return [Say(event=failed), Close(code=4409, reason="superseded"), *self._hearing.forget_all(), Leave()]

    # --- marks --------------------------------------------------------------------------------------------------

    def _advanced(self, mark: Advanced, now: float) -> list[AnyEffect]:
        ours = self._channels[mark.channel]
        ours.position, ours.arrived, ours.restart, ours.quiet = mark.position, now, mark.restart, mark.quiet
        if mark.position > self.settings.max_stream_s * RATE_HZ:
            message = f"the stream is longer than {self.settings.max_stream_s:g} s"
            abort = commands.Abort(
                code="too_long",
                message=message,
                hint="begin a new stream",
                close_code=4413,
                retryable=False,
                lasting=True,
            )
            return self._abort(abort, now)
        return [*self._hearing.partial(ours, now), *self._progress.due(now)]

    def _began(self, mark: SpeechBegan, now: float) -> list[AnyEffect]:
        ours = self._channels[mark.channel]
        ours.position, ours.arrived = mark.position, now
        utterance = ours.next_utterance
        ours.next_utterance += 1
        ours.begin(mark.start, utterance=utterance)
        started = events.SpeechStarted(channel=ours.number, utterance=utterance, at=mark.start)
        return [Say(event=started), *self._hearing.partial(ours, now)]

    def _ended(self, mark: SpeechEnded, now: float) -> list[AnyEffect]:
        ours = self._channels[mark.channel]
        ours.position, ours.arrived = mark.position, now
        segment = ours.end(stop=mark.stop, speech_at=mark.speech_at, now=now, cause=mark.cause, over=mark.over)
        effects: list[AnyEffect] = []
        if mark.over:
            at = max(mark.speech_stop, segment.start)
            effects.append(Say(event=events.SpeechStopped(channel=ours.number, utterance=segment.utterance, at=at)))
        else:
            ours.begin(mark.stop, utterance=segment.utterance)
        return [*effects, *self._hearing.final(ours, segment, now, speech_stop=mark.speech_stop)]

    def _cut_made(self, mark: CutMade, now: float) -> list[AnyEffect]:
        if mark.cause != "finish":
            self._progress.flush()
        else:
            self._tail_cut, self._position = True, mark.position
        return [*self._flushed(), *self._settle()]

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
        return [*effects, *self._flushed(), *self._progress.due(now), *self._settle()]

    def _flushed(self) -> list[AnyEffect]:
        answers = self._progress.flushed()
        return [] if self.state is State.LEAVING else answers

    def _settle(self) -> list[AnyEffect]:
        """When the tail is cut and every final is stored, the stream can end, or the server can let go of it."""
        if self._settling or any(ours.waiting for ours in self._channels):
            return []
        if self.state is State.ENDING and self._tail_cut:
            self._settling = True
            return [Settle()]
        if self.state is State.LEAVING and not self._progress.flushing:
            self._move(Trigger.SETTLED)
            failed = events.Failed(
                code="draining",
                message="this server is going away",
                hint="reconnect; resume with the token from 'ready'",
                retryable=True,
                retry_after_ms=0,
            )
            return [Say(event=failed), Close(code=1012, reason="draining"), *self._hearing.forget_all(), Leave()]
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


def _failed(abort: commands.Abort) -> events.Failed:
    after = None if abort.retry_after_s is None else round(abort.retry_after_s * 1000)
    return events.Failed(
        code=abort.code, message=abort.message, hint=abort.hint, retryable=abort.retryable, retry_after_ms=after
    )
