"""A session's questions to its engine, and what becomes of the answers."""

from __future__ import annotations

from streamsrv import events
from streamsrv.facts import RATE_HZ, Answer
from streamsrv.session import channel as parts
from streamsrv.session.channel import Asked, Channel, Segment
from streamsrv.session.effects import AnyEffect, Forget, Hear, Hold, Keep, Say
from streamsrv.session.settings import MachineSettings
from streamsrv.session.transcript import join, stable_chars
from streamsrv.session.trimming import UNTRIMMED, trimmed

EARLY_S = 0.005
"""A partial may be asked so much before its time: audio that comes in steps of the same length just misses it."""


class Hearing:
    """Asks for partials at their pace and for finals at once; hands finals on in segment order.

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
        """Ask for a partial when it is time: one at a time per channel, and only with new audio."""
        segment = channel.open
        if segment is None or not (self.interim or self._settings.partials_always):
            return []
        early = now < segment.asked_at + self._every_s - EARLY_S
        short = channel.position < segment.start + self._settings.partial_first_s * RATE_HZ
        if early or short or channel.position <= segment.asked or self._partial_pending(channel):
            return []
        return [self._ask(self._newest(channel, segment, now), now + self._every_s)]

    def final(self, channel: Channel, segment: Segment, now: float) -> list[AnyEffect]:
        """Ask what was said in a segment that has ended."""
        trim = segment.trim if self._settings.trim_finals else UNTRIMMED
        asked = Asked(
            channel=channel, segment=segment, stop=segment.stop, arrived=segment.speech_at, final=True, trim=trim
        )
        return [self._ask(asked, now + self._settings.final_within_s)]

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
        asked = self._asked[request] = self._newest(asked.channel, asked.segment, now)
        return parts.hear(asked, request=request, deadline=now + self._every_s)

    def heard(self, answer: Answer, now: float) -> list[AnyEffect]:
        """An answer came; one that was forgotten, or whose segment has ended meanwhile, is ignored."""
        self._every_s = max(self._settings.partial_every_s, answer.every_s)
        asked = self._asked.pop(answer.request, None)
        if asked is None:
            return []
        if asked.final:
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

    def _newest(self, channel: Channel, segment: Segment, now: float) -> Asked:
        """A partial of everything there is, begun where its words are not decided yet."""
        segment.asked, segment.asked_at = channel.position, now
        segment.trim = trimmed(
            segment.trim,
            segment.agreement.stable,
            start=segment.start,
            stop=channel.position,
            settings=self._settings,
        )
        return Asked(
            channel=channel,
            segment=segment,
            stop=channel.position,
            arrived=channel.arrived,
            final=False,
            trim=segment.trim,
        )

    def _ask(self, asked: Asked, deadline: float) -> AnyEffect:
        request = self._next_request
        self._next_request += 1
        self._asked[request] = asked
        return parts.hear(asked, request=request, deadline=deadline)

    def _partial_pending(self, channel: Channel) -> bool:
        return any(asked.channel is channel and not asked.final for asked in self._asked.values())

    def _partial_heard(self, asked: Asked, answer: Answer, now: float) -> list[AnyEffect]:
        agreement = asked.segment.agreement
        before = agreement.stable_to
        agreement.update(parts.whole(asked, answer))
        effects: list[AnyEffect] = []
        if agreement.stable_to is not None and agreement.stable_to != before:
            earliest = min(agreement.stable_to, asked.channel.position)
            effects.append(Hold(channel=asked.channel.number, earliest=earliest))
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
