"""Takeovers: the part of the contract that is about epochs.  Tested as part of ``StoreContract``."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamsrv.errors import Forbidden, NotFound, StreamEnded
from streamsrv.facts import ChannelStart
from streamsrv.stores.base import Anchor, EpochStart, StreamKey, StreamStats, TranscriptStore
from tests.stores.builders import NOW_MS, SECOND, TWO, begin, final, texts, token


class EpochContract:
    """Who owns a stream, from where, and what becomes of those who owned it."""

    async def test_resume_is_refused(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        with pytest.raises(NotFound):
            await store.resume_stream("nobody", token("nobody"), now_ms=NOW_MS)
        with pytest.raises(Forbidden):
            await store.resume_stream("s1", token("s2"), now_ms=NOW_MS)
        assert (await store.streams("talk"))[0].epochs[-1].epoch == 1
        await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
        with pytest.raises(Forbidden):
            await store.resume_stream("s1", token("s2"), now_ms=NOW_MS)
        with pytest.raises(StreamEnded):
            await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)

    async def test_resume_tells_where_each_channel_goes_on(self, store: TranscriptStore) -> None:
        _, key = await begin(store, options=TWO)
        first = final(0, start=100, stop=900, utterance=0)
        second = final(1, start=900, stop=1_500, utterance=0, endpoint=False)
        for one in (first, second):
            await store.keep_final(key, one)
        await store.keep_progress(key, (0, 1_920), ())
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert resumed.key == StreamKey(interview="talk", stream="s1", epoch=2)
        assert resumed.starts == (
            ChannelStart(restart=0, kept_to=1_500, next_segment=2, next_utterance=1),
            ChannelStart(restart=1_920, kept_to=0, next_segment=0, next_utterance=0),
        )
        assert resumed.finals == (first, second)
        assert resumed.stream.epochs == (EpochStart(epoch=1, begins=(0, 0)), EpochStart(epoch=2, begins=(1_500, 0)))
        assert await store.streams("talk") == (resumed.stream,)

    async def test_finals_of_a_resumed_stream_are_by_channel_and_start(self, store: TranscriptStore) -> None:
        _, key = await begin(store, options=TWO)
        for segment in range(11):
            await store.keep_final(key, final(segment, channel=1, text=f"b{segment}"))
            await store.keep_final(key, final(segment, text=f"a{segment}"))
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert [one.text for one in resumed.finals] == [f"{letter}{n}" for letter in "ab" for n in range(11)]

    async def test_racing_resumes_get_distinct_gapless_epochs(self, store: TranscriptStore) -> None:
        await begin(store)
        resumed = await asyncio.gather(*(store.resume_stream("s1", token("s1"), now_ms=NOW_MS) for _ in range(20)))
        assert sorted(one.key.epoch for one in resumed) == list(range(2, 22))
        answers = await asyncio.gather(*(store.keep_final(one.key, final(0)) for one in resumed))
        assert [one.key.epoch for one, kept in zip(resumed, answers, strict=True) if kept] == [21]
        assert [kept.epoch for kept in await store.finals("talk")] == [21]

    async def test_a_late_writer_is_refused_everything(self, store: TranscriptStore) -> None:
        _, old = await begin(store)
        await store.keep_final(old, final(0))
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        anchor = Anchor(position=0, utc_ms=NOW_MS)
        assert not await store.keep_final(old, final(1))
        assert not await store.keep_progress(old, (1_920,), ())
        assert not await store.keep_progress(old, (1_920,), (anchor,))
        assert not await store.end_stream(old, stats=StreamStats(), now_ms=NOW_MS)
        assert await store.streams("talk") == (resumed.stream,)
        assert await texts(store) == ["segment 0"]

    async def test_a_final_kept_before_the_takeover_stays_kept(self, store: TranscriptStore) -> None:
        """Its writer may have missed the answer and asks again."""
        _, old = await begin(store)
        await store.keep_final(old, final(0))
        await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert await store.keep_final(old, final(0))
        assert not await store.keep_final(old, final(0, channel=1))

    async def test_the_epoch_begins_before_the_first_missing_segment(self, store: TranscriptStore) -> None:
        _, old = await begin(store)
        for segment in (0, 1, 3):
            await store.keep_final(old, final(segment))
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert resumed.starts[0].kept_to == 2 * SECOND
        assert resumed.starts[0].next_segment == 2
        assert [one.segment for one in resumed.finals] == [0, 1]
        assert not await store.keep_final(old, final(3)), "stored, but no longer valid"
        await store.keep_final(resumed.key, final(2, text="two anew", stop=5 * SECOND))
        assert await texts(store) == ["segment 0", "segment 1", "two anew"]
        third = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert third.starts[0] == ChannelStart(kept_to=5 * SECOND, next_segment=3, next_utterance=3)

    async def test_takeover_in_the_middle_of_writing_loses_and_doubles_nothing(self, store: TranscriptStore) -> None:
        """What was acknowledged is there; what was refused, the new owner writes; nothing overlaps."""
        _, old = await begin(store)
        writes = [asyncio.ensure_future(store.keep_final(old, final(segment))) for segment in range(60)]
        resumes = []
        for _ in range(3):
            resumes.append(asyncio.ensure_future(store.resume_stream("s1", token("s1"), now_ms=NOW_MS)))
            writes.append(asyncio.ensure_future(store.keep_final(old, final(len(writes)))))
        resumed = max(await asyncio.gather(*resumes), key=lambda one: one.key.epoch)
        kept = [n for n, answer in enumerate(await asyncio.gather(*writes)) if answer]
        assert [one.segment for one in resumed.finals] == kept
        for segment in range(resumed.starts[0].next_segment, 70):
            assert await store.keep_final(resumed.key, final(segment))
        assert await texts(store) == [f"segment {n}" for n in range(70)]

    @pytest.mark.parametrize("seed", range(12))
    async def test_random_lives_agree_with_the_model(self, store: TranscriptStore, seed: int) -> None:
        await _live(store, random.Random(seed))


async def _live(store: TranscriptStore, rng: random.Random) -> None:
    """One stream through keeps, lost keeps, takeovers and late writers; the model is a list of valid segments."""
    _, key = await begin(store)
    owners = [key]
    valid: list[tuple[int, int]] = []
    """Epoch and segment of what was written without a gap."""
    gapped: list[tuple[int, int]] = []
    """Behind a segment that is missing: valid until the next takeover."""
    following = 0
    for _ in range(rng.randrange(20, 60)):
        choice = rng.random()
        if choice < 0.5:
            segment = following
            assert await store.keep_final(owners[-1], final(segment, text=f"{owners[-1].epoch}:{segment}"))
            (gapped if gapped or segment != len(valid) else valid).append((owners[-1].epoch, segment))
            following += 1
        elif choice < 0.65:
            following += 1
        elif choice < 0.8:
            resumed = await store.resume_stream(key.stream, token(key.stream), now_ms=NOW_MS)
            owners.append(resumed.key)
            gapped.clear()
            following = len(valid)
            assert resumed.starts[0].next_segment == len(valid)
            assert resumed.starts[0].kept_to == len(valid) * SECOND
        elif len(owners) > 1:
            late = rng.choice(owners[:-1])
            segment = rng.randrange(following + 3)
            known = (late.epoch, segment) in valid
            assert await store.keep_final(late, final(segment, text=f"{late.epoch}:{segment}")) is known
        assert await texts(store) == [f"{epoch}:{segment}" for epoch, segment in valid + gapped]
