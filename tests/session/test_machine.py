"""The promises of a session, over many random schedules of engine and store."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamsrv import commands, events
from streamsrv.facts import Answer, ChannelStart, FinalKept, Outdated, SpeechBegan
from streamsrv.session.effects import AnyEffect, Close, Cut, Hear, Keep, Leave, Say
from streamsrv.session.settings import MOST_WINDOWS, MachineSettings
from streamsrv.session.states import State
from tests.session.world import WORD, World, spoken

SEEDS = range(300)


def conversation(seed: int, make: type[World] = World) -> World:
    """Some utterances on one or two channels, cut by silence, length and flush, then the end."""
    world = make(seed, channels=1 + seed % 2)
    for _ in range(world.random.randint(1, 5)):
        channel = world.random.randrange(world.channels)
        world.pass_audio(channel, world.random.uniform(0.3, 2.0))
        while world.random.random() < 0.3:
            world.speak(channel, world.random.uniform(0.5, 3.0), cause="length")
        world.speak(channel, world.random.uniform(0.3, 3.0))
        if world.random.random() < 0.3:
            world.receive(commands.Flush())
    world.receive(commands.Finish())
    world.settle()
    return world


@pytest.mark.parametrize("block", range(6))
def test_every_segment_has_one_final_stored_before_it_is_said_and_stable_words_stay(block: int) -> None:
    for seed in SEEDS[block * 50 : block * 50 + 50]:
        world = conversation(seed)
        assert world.closed == 1000, f"seed {seed}"
        assert world.left, f"seed {seed}"
        assert world.machine.state is State.ENDED, f"seed {seed}"
        keys = [(final.channel, final.segment) for final in world.finals]
        assert len(keys) == len(set(keys)), f"seed {seed}: a segment has two finals"
        for channel in range(world.channels):
            numbers = [segment for own, segment in keys if own == channel]
            assert numbers == list(range(len(numbers))), f"seed {seed}: finals out of order or missing"
        assert [(k.channel, k.segment) for k in world.kept] == keys, f"seed {seed}"
        check_stability(world)
        check_text(world)
        check_acks(world)


def check_stability(world: World) -> None:
    promised: dict[tuple[int, int], str] = {}
    for event in world.said:
        if isinstance(event, events.Partial | events.Final):
            key = (event.channel, event.segment)
            assert event.text.startswith(promised.get(key, "")), f"seed {world.seed}: stable words taken back"
            if isinstance(event, events.Partial):
                promised[key] = event.text[: event.stable_chars]


def check_text(world: World) -> None:
    """Where no unsteady word was promised, the final says what was spoken, and nothing between segments is lost."""
    for final in world.finals:
        wrong = [word for word in final.words if word.text != spoken(word.start)]
        assert len(wrong) <= len(final.words) * 0.5, f"seed {world.seed}"
    for before, after in zip(world.finals, world.finals[1:], strict=False):
        if before.channel == after.channel and not before.endpoint:
            assert after.start == before.stop, f"seed {world.seed}: audio between two segments of one utterance"
            assert after.utterance == before.utterance


def check_acks(world: World) -> None:
    assert world.acks == sorted(world.acks), f"seed {world.seed}: an ack went back"
    stored: dict[int, int] = dict.fromkeys(range(world.channels), 0)
    for event in world.said:
        if isinstance(event, events.Final):
            stored[event.channel] += 1
        elif isinstance(event, events.Ack):
            for final in world.finals:
                if final.segment >= stored[final.channel]:
                    assert event.position <= final.start, f"seed {world.seed}: acknowledged what is not stored"


class Watched(World):
    """Notes how far the machine says it is, after each step, and how many finals were stored then."""

    def run(self, effects: Sequence[AnyEffect]) -> None:
        super().run(effects)
        self.__dict__.setdefault("steps", []).append((self.machine.settled, len(self.finals)))


@pytest.mark.parametrize("block", range(3))
def test_what_is_settled_only_grows_and_never_runs_ahead_of_any_channel(block: int) -> None:
    for seed in SEEDS[block * 50 : block * 50 + 50]:
        world = conversation(seed, Watched)
        reached = [settled for settled, _ in world.__dict__["steps"]]
        assert reached == sorted(reached), f"seed {seed}"
        for settled, stored in world.__dict__["steps"]:
            ahead = [final for final in world.finals[stored:] if final.start < settled]
            assert not ahead, f"seed {seed}: a final that begins before it is not stored"
        assert reached[-1] > 0 or world.channels > 1, f"seed {seed}"


def test_the_same_inputs_give_the_same_effects() -> None:
    assert conversation(7).effects == conversation(7).effects


def test_an_engine_that_answers_out_of_order_changes_nothing_about_the_order_of_finals() -> None:
    world = World(1, mute=True)
    world.pass_audio(0, 0.5)
    world.speak(0, 1.0)
    world.pass_audio(0, 0.5)
    world.speak(0, 1.0)
    questions = [effect for effect in world.effects if isinstance(effect, Hear) and effect.final]
    second = world.machine.heard(Answer(request=questions[1].request), world.now)
    assert not [effect for effect in second if isinstance(effect, Keep)]
    first = world.machine.heard(Answer(request=questions[0].request), world.now)
    assert [effect.final.segment for effect in first if isinstance(effect, Keep)] == [0, 1]


def test_a_final_is_said_only_after_the_store_has_it() -> None:
    world = World(2, mute=True)
    world.speak(0, 1.0)
    question = next(effect for effect in world.effects if isinstance(effect, Hear) and effect.final)
    heard = world.machine.heard(Answer(request=question.request), world.now)
    assert not [effect for effect in heard if isinstance(effect, Say) and isinstance(effect.event, events.Final)]
    kept = world.machine.stored(FinalKept(channel=0, segment=0), world.now)
    assert [type(effect.event) for effect in kept if isinstance(effect, Say)][:2] == [events.Final, events.UtteranceEnd]


def test_a_flush_without_speech_is_answered_at_once() -> None:
    world = World(3)
    world.pass_audio(0, 0.5)
    world.receive(commands.Flush())
    assert isinstance(world.said[-1], events.Ack)
    assert world.said[-1].flushed


def test_a_flush_is_answered_after_the_finals_it_asked_for() -> None:
    world = World(4)
    world.speak(0, 1.0, cause="length")
    world.pass_audio(0, 1.0)
    world.receive(commands.Flush())
    assert not any(isinstance(event, events.Ack) and event.flushed for event in world.said)
    world.settle()
    answered = next(n for n, e in enumerate(world.said) if isinstance(e, events.Ack) and e.flushed)
    assert [e.cause for e in world.said[:answered] if isinstance(e, events.Final)] == ["length", "flush"]


def test_configure_is_taken_before_the_first_audio_and_only_interim_after_it() -> None:
    world = World(5)
    wanted = commands.Options(sample_rate=8_000, encoding="mulaw")
    world.receive(commands.Configure(options=wanted))
    assert world.machine.options == wanted
    world.pass_audio(0, 0.2)
    world.receive(commands.Configure(options=commands.Options(sample_rate=48_000, interim=False)))
    assert world.machine.options == commands.Options(sample_rate=8_000, encoding="mulaw", interim=False)
    assert [type(event) for event in world.said[-2:]] == [events.Warned, events.Configured]


def test_without_interim_no_partial_is_said() -> None:
    world = World(6)
    world.receive(commands.Configure(options=commands.Options(interim=False)))
    world.speak(0, 3.0)
    world.settle()
    assert world.of(events.Partial) == []
    assert len(world.finals) == 1


def test_a_cut_flushes_nothing_waits_and_then_ends_the_stream() -> None:
    world = World(7, settings=MachineSettings(resume_window_s=60.0))
    world.speak(0, 1.0, cause="length")
    world.settle()
    world.receive(commands.Disconnect(clean=False))
    assert world.machine.state is State.PARTED
    world.wind(world.now + 59.9)
    assert world.machine.state is State.PARTED
    world.wind(world.now + 0.2)
    world.settle()
    assert world.left
    ends = [event for event in world.said if isinstance(event, events.Closed)]
    assert [end.cause for end in ends] == ["timeout"]
    assert world.finals[-1].cause == "finish"


def test_a_clean_close_decodes_the_tail_without_anybody_listening() -> None:
    world = World(8)
    world.speak(0, 1.0, cause="length")
    world.receive(commands.Disconnect(clean=True))
    world.settle()
    assert len(world.kept) == 2
    assert world.machine.state is State.ENDED


def test_a_silent_peer_is_told_and_closed_and_may_come_back() -> None:
    world = World(9, settings=MachineSettings(idle_timeout_s=60.0))
    world.wind(world.now + 59.0)
    assert world.closed is None
    world.wind(world.now + 1.1)
    assert world.closed == 4408
    assert world.machine.state is State.PARTED
    failed = world.said[-1]
    assert isinstance(failed, events.Failed)
    assert failed.code == "idle"
    assert failed.retryable


def test_a_stream_that_is_too_long_is_ended_for_good() -> None:
    world = World(10, settings=MachineSettings(max_stream_s=5.0))
    world.speak(0, 6.0, cause="length")
    world.settle()
    assert world.closed == 4413
    assert world.machine.state is State.ENDED
    assert isinstance(world.said[-1], events.Failed)
    assert not world.said[-1].retryable
    assert world.finals[-1].cause == "finish", "what was said before the limit is not lost"


def test_a_drain_finalises_what_was_said_and_sends_the_peer_elsewhere() -> None:
    world = World(11)
    world.speak(0, 1.0, cause="length")
    world.pass_audio(0, 2.0)
    world.receive(commands.Drain(within_s=30.0))
    assert world.of(events.GoAway)
    assert Cut(cause="part", channels=(0,)) in world.effects, "its open segment has promised words"
    world.settle()
    assert world.closed == 1012
    assert world.left
    assert world.machine.state is State.GONE
    assert len(world.kept) == 2, "the open segment was finalised"
    assert isinstance(world.said[-1], events.Failed)
    assert world.said[-1].retryable


def test_a_drain_leaves_a_segment_without_promised_words_to_who_hears_it_next() -> None:
    world = World(11, channels=2)
    world.speak(0, 1.0)
    world.settle()
    for channel in (0, 1):
        world.run(world.machine.marked(SpeechBegan(channel=channel, start=32_000, position=32_000), world.now))
    world.receive(commands.Drain(within_s=30.0))
    assert [effect for effect in world.effects if isinstance(effect, Cut)] == [Cut(cause="part")]
    world.settle()
    assert world.left
    assert len(world.kept) == 1


def test_a_newer_epoch_ends_this_one_and_its_questions() -> None:
    world = World(12)
    world.speak(0, 1.0)
    effects = world.machine.stored(Outdated(), world.now)
    assert [type(effect) for effect in effects if isinstance(effect, Close | Leave)] == [Close, Leave]
    assert world.machine.state is State.GONE
    world.run(effects)
    world.settle()
    assert world.finals == []


def test_a_failed_segment_still_has_its_one_final_and_says_why() -> None:
    world = World(13, mute=True)
    world.speak(0, 1.0)
    question = next(effect for effect in world.effects if isinstance(effect, Hear) and effect.final)
    world.run(world.machine.heard(Answer(request=question.request, failed=True, engine="scripted"), world.now))
    world.settle()
    assert world.finals[0].failed
    assert world.finals[0].text == ""
    assert any(isinstance(event, events.Warned) and event.code == "segment_failed" for event in world.said)


def test_a_resumed_channel_goes_on_counting() -> None:
    start = ChannelStart(restart=1_920 * 10, kept_to=25_000, next_segment=4, next_utterance=3)
    world = World(14, starts=(start,))
    world.speak(0, 1.0)
    world.settle()
    assert (world.finals[0].segment, world.finals[0].utterance) == (4, 3)
    ready = world.said[0]
    assert isinstance(ready, events.Ready)
    assert ready.channels[0].next_segment == 4


def test_no_boundary_may_fall_before_the_last_stable_word() -> None:
    world = World(15, unsteady=0.0)
    world.pass_audio(0, 0.1)
    world.speak(0, 4.0)
    world.settle()
    assert world.held[0] > 0
    stable = max(event.stable_chars for event in world.said if isinstance(event, events.Partial))
    words = world.finals[0].text[:stable].split()
    assert world.held[0] == world.finals[0].start + len(words) * WORD


def test_acks_come_at_least_once_a_second_while_audio_flows() -> None:
    world = World(16)
    world.pass_audio(0, 5.0)
    world.speak(0, 5.0)
    assert len(world.acks) >= 9


def test_latency_counts_from_the_arrival_of_the_last_speech() -> None:
    world = World(17)
    world.speak(0, 1.0)
    ended = world.now
    world.settle()
    said_at = world.finals[0].latency_ms
    assert 0 < said_at <= round((world.now - ended) * 1000)
    assert world.finals[0].endpoint_ms == 0


def test_an_outage_of_the_store_adds_to_the_window_but_not_for_ever() -> None:
    world = World(31, settings=MachineSettings(resume_window_s=10.0))
    world.speak(0, 1.0)
    world.receive(commands.Disconnect(clean=False))
    parted = world.now
    for _ in range(400):
        world.machine.excuse(world.now)
        world.wind(world.now + 1.0)
        if world.left:
            break
    assert 10.0 * MOST_WINDOWS <= world.now - parted <= 10.0 * (MOST_WINDOWS + 1) + 5.0
