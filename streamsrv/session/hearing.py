"""A session's questions to its engine, and what becomes of the answers."""

from __future__ import annotations

from streamsrv import events
from streamsrv.facts import RATE_HZ, Answer, Position
from streamsrv.session import channel as parts
from streamsrv.session.agreement import continuation
from streamsrv.session.channel import Asked, Channel, Segment
from streamsrv.session.effects import AnyEffect, Forget, Hear, Hold, Keep, Say
from streamsrv.session.settings import MachineSettings
from streamsrv.session.transcript import join, stable_chars
from streamsrv.session.trimming import UNTRIMMED, Trim, doubtful, overdue, trimmed

MOST_UNHEARD_S = 0.3
"""Of a segment's end, silence to the detector, that a final may leave unheard."""
BUSY = 3.0
"""Pauses between partials, in shortest ones, from which on the engine has no time for one at each pause of speech: half
as long again as promised."""
EARLY_S = 0.005
"""A partial may be asked so much before its time: audio that comes in steps of the same length just misses it."""


class Hearing:
    """Asks for partials at their pace, and for finals where no partial is one; hands finals on in segment order.

    Args:
        settings: pace and deadlines.
        interim: whether the peer wants to see partials; may be changed.
    """

    def __init__(self, settings: MachineSettings, *, interim: bool) -> None:
        self.interim = interim
        self._settings = settings
        self._asked: dict[int, Asked] = {}
        self._next_request = 0
        self._every_s = settings.partial_every_s
        """Pause between two partials: the settings', or what the engine has time for if that is longer."""

    def partial(self, channel: Channel, now: float) -> list[AnyEffect]:
        """Ask for a partial when it is time: one at a time per channel, and only with new audio.

        When a segment may be about to end, one is asked for at once: its answer can be the final.
        """
        segment = channel.open
        if segment is None:
            return []
        if self._may_end(channel, segment):
            return [self._ask(self._newest(channel, segment, now), now)]
        if not (self.interim or self._settings.partials_always):
            return []
        early = now < segment.asked_at + self._every_s - EARLY_S
        short = channel.position < segment.start + self._settings.partial_first_s * RATE_HZ
        if early or short or channel.position <= segment.asked or self._partial_pending(channel):
            return []
        return [self._ask(self._newest(channel, segment, now), now + self._every_s)]

    def final(self, channel: Channel, segment: Segment, now: float, *, speech_stop: Position) -> list[AnyEffect]:
        """Ask what was said in a segment that has ended, unless a partial covers all of its speech."""
        covering = self._covering(segment, speech_stop) if segment.over else None
        if covering is None or segment.stop - covering.stop > MOST_UNHEARD_S * RATE_HZ:
            return [self._ask_final(channel, segment, now)]
        needless = [
            request
            for request, asked in self._asked.items()
            if asked.segment is segment and asked is not covering and not asked.picked
        ]
        for request in needless:
            del self._asked[request]
        effects: list[AnyEffect] = [Forget(request=request) for request in needless]
        if segment.known is not None and segment.known[0] is covering:
            return [*effects, *self._final_heard(*segment.known, now)]
        covering.concludes = True
        return effects

    def picked(self, request: int, now: float) -> Hear | None:
        """The newest form of a question that has waited; ``None`` when nobody wants its answer any more."""
        asked = self._asked.get(request)
        if asked is None:
            return None
        if asked.final:
            return parts.hear(asked, request=request, deadline=now + self._settings.final_within_s)
        if asked.segment is not asked.channel.open:
            del self._asked[request]
            return None
        asked = self._asked[request] = self._newest(asked.channel, asked.segment, now, kept=asked.kept)
        asked.picked = True
        return parts.hear(asked, request=request, deadline=now + self._every_s)

    def heard(self, answer: Answer, now: float) -> list[AnyEffect]:
        """An answer came; one that was forgotten is ignored, and a partial whose segment has ended, unless it is to be
        the final."""
        self._every_s = max(self._settings.partial_every_s, answer.every_s)
        asked = self._asked.pop(answer.request, None)
        if asked is None:
            return []
        if asked.concludes and (answer.failed or not answer.conclusive or self._doubted(asked, answer)):
            return [self._ask_final(asked.channel, asked.segment, now)]
        if asked.final or asked.concludes:
            return self._final_heard(asked, answer, now)
        if asked.segment is not asked.channel.open:
            return []
        effects = [] if answer.failed else self._partial_heard(asked, answer, now)
        return [*effects, *self.partial(asked.channel, now)]

    def forget_all(self) -> list[AnyEffect]:
        """No answer is wanted any more."""
        forgotten: list[AnyEffect] = [Forget(request=request) for request in self._asked]
        self._asked.clear()
        return forgotten

    def _newest(self, channel: Channel, segment: Segment, now: float, *, kept: bool = False) -> Asked:
        """A partial of everything there is, begun where its words are not decided yet.

        Args:
            kept: begun where the last one that was believed began, while that may be.
        """
        segment.asked, segment.asked_at = channel.position, now
        return Asked(
            channel=channel,
            segment=segment,
            stop=channel.position,
            arrived=channel.arrived,
            final=False,
            trim=self._trimmed(segment, channel.position, kept=kept),
            kept=kept,
        )

    def _trimmed(self, segment: Segment, stop: Position, *, kept: bool) -> Trim:
        """Where a partial may begin; somewhere new only if its answer can be compared with what was believed."""
        agreement = segment.agreement
        if (kept or not agreement.volatile) and not self._overdue(segment, stop):
            return segment.trim
        return trimmed(segment.trim, agreement.stable, start=segment.start, stop=stop, settings=self._settings)

    def _overdue(self, segment: Segment, stop: Position) -> bool:
        return overdue(segment.trim, start=segment.start, stop=stop, settings=self._settings)

    def _may_end(self, channel: Channel, segment: Segment) -> bool:
        """Whether speech has paused for long enough that a partial may become the final; once a pause.

        Not while partials come less often than promised: a pause that is no end would cost one more.
        """
        after = self._settings.concluded_after_s
        pause = channel.position - channel.quiet
        busy = self._every_s > BUSY * self._settings.partial_every_s
        if after is None or busy or channel.quiet < after * RATE_HZ or segment.paused_at >= pause:
            return False
        segment.paused_at = pause
        return self._covering(segment, pause) is None

    def _covering(self, segment: Segment, speech_stop: Position) -> Asked | None:
        """The partial, answered or being heard, that covers all speech of a segment and the silence after it."""
        after = self._settings.concluded_after_s
        if after is None:
            return None
        enough = speech_stop + round(after * RATE_HZ)
        heard = [asked for asked in self._asked.values() if asked.segment is segment and asked.picked]
        if segment.known is not None:
            heard.append(segment.known[0])
        newest = max(heard, key=lambda asked: asked.stop, default=None)
        return newest if newest is not None and newest.stop >= enough else None

    def _ask_final(self, channel: Channel, segment: Segment, now: float) -> AnyEffect:
        trim = segment.trim if self._settings.trim_finals else UNTRIMMED
        asked = Asked(
            channel=channel, segment=segment, stop=segment.stop, arrived=segment.speech_at, final=True, trim=trim
        )
        return self._ask(asked, now + self._settings.final_within_s)

    def _ask(self, asked: Asked, deadline: float) -> AnyEffect:
        request = self._next_request
        self._next_request += 1
        self._asked[request] = asked
        return parts.hear(asked, request=request, deadline=deadline)

    def _partial_pending(self, channel: Channel) -> bool:
        return any(asked.channel is channel and not (asked.final or asked.concludes) for asked in self._asked.values())

    def _doubted(self, asked: Asked, answer: Answer) -> bool:
        """Whether a partial that begins later than those before was heard as if it began at the wrong place."""
        segment, agreement = asked.segment, asked.segment.agreement
        if asked.trim.words <= segment.trim.words or self._overdue(segment, asked.stop):
            return False
        heard = continuation(agreement.stable, parts.whole(asked, answer))
        return doubtful(agreement.stable[asked.trim.words :], agreement.volatile, heard)

    def _partial_heard(self, asked: Asked, answer: Answer, now: float) -> list[AnyEffect]:
        channel, segment, agreement = asked.channel, asked.segment, asked.segment.agreement
        if self._doubted(asked, answer):  # it told nothing, so its turn is not over yet
            return [self._ask(self._newest(channel, segment, now, kept=True), now + self._every_s)]
        if asked.trim.words > segment.trim.words:
            segment.trim = asked.trim
        segment.known = (asked, answer) if answer.conclusive else None
        before = agreement.stable_to
        agreement.update(parts.whole(asked, answer))
        effects: list[AnyEffect] = []
        if agreement.stable_to is not None and agreement.stable_to != before:
            earliest = min(agreement.stable_to, channel.position)
            effects.append(Hold(channel=channel.number, earliest=earliest))
        return [*effects, *self._said(asked, now)]

    def _said(self, asked: Asked, now: float) -> list[AnyEffect]:
        """The partial, when there is something new in it."""
        segment = asked.segment
        words = segment.agreement.words
        text = join(words)
        stable = stable_chars(segment.agreement.stable, text)
        if not self.interim or (text, stable) == segment.said:
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
        channel, segment = asked.channel, asked.segment
        segment.final = parts.conclude(asked, answer, now)
        effects: list[AnyEffect] = [_gave_up(channel, segment)] if answer.failed else []
        for waiting in channel.waiting:
            if waiting.final is None:
                break
            if not waiting.handed:
                waiting.handed = True
                effects.append(Keep(final=waiting.final))
        return effects


def _gave_up(channel: Channel, segment: Segment) -> Say:
    message = f"the engine gave segment {segment.number} up after its retries; its text is empty"
    warned = events.Warned(code="segment_failed", message=message, channel=channel.number, segment=segment.number)
    return Say(event=warned)
