"""What every store must do.  A store's own tests subclass ``StoreContract`` and give the fixture ``make``."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pytest

from streamsrv.commands import Options
from streamsrv.errors import Conflict, NotFound, StoreUnavailable
from streamsrv.events import Final
from streamsrv.facts import ChannelStart, Word
from streamsrv.stores.base import Anchor, EpochStart, Interview, StreamKey, StreamStats, TranscriptStore
from tests.stores.builders import NOW_MS, SECOND, TWO, begin, final, texts, token
from tests.stores.contract_epochs import EpochContract
from tests.stores.contract_jobs import JobContract
from tests.stores.contract_lists import ListContract

Make: TypeAlias = Callable[[], TranscriptStore]
"""Another store on the same data, not yet opened; the one before is closed by then."""


class StoreContract(EpochContract, ListContract, JobContract):
    """All promises of ``stores.base``."""

    @pytest.fixture
    async def store(self, make: Make) -> AsyncIterator[TranscriptStore]:
        store = make()
        await store.open()
        yield store
        await store.close()

    # --- streams and interviews -------------------------------------------------------------------------------------

    async def test_unknown_interview_is_empty(self, store: TranscriptStore) -> None:
        assert await store.interview("talk") is None
        assert await store.streams("talk") == ()
        assert await store.finals("talk") == ()
        assert await store.left_streams() == ()

    async def test_begin_records_stream_and_interview(self, store: TranscriptStore) -> None:
        options = Options(sample_rate=8_000, encoding="mulaw", language="pt-BR", speaker="Zoë \N{SNOWMAN}")
        begun, _ = await begin(store, options=options)
        assert (begun.order, begun.status, begun.options, begun.engine) == (1, "live", options, "scripted")
        assert begun.epochs == (EpochStart(epoch=1, begins=(0,)),)
        assert (begun.restarts, begun.anchors, begun.started_ms, begun.ended_ms) == ((0,), (), NOW_MS, None)
        assert await store.streams("talk") == (begun,)
        assert await store.interview("talk") == Interview(id="talk", status="live", started_ms=NOW_MS)

    async def test_begin_again_finds_the_same(self, store: TranscriptStore) -> None:
        first, key = await begin(store)
        assert await store.keep_final(key, final(0))
        again, _ = await begin(store, now_ms=NOW_MS + 5)
        assert again == first
        assert await store.streams("talk") == (first,)

    async def test_an_id_taken_by_another_stream_is_refused(self, store: TranscriptStore) -> None:
        first, _ = await begin(store)
        with pytest.raises(Conflict):
            await begin(store, "other")
        with pytest.raises(Conflict):
            await store.begin_stream(
                interview="talk",
                stream="s1",
                token_hash=token("s2"),
                options=Options(),
                engine="scripted",
                now_ms=NOW_MS,
            )
        assert await store.streams("talk") == (first,)
        assert await store.interview("other") is None

    async def test_orders_are_gapless_when_streams_race(self, store: TranscriptStore) -> None:
        begun = await asyncio.gather(*(begin(store, stream=f"s{n}") for n in range(20)))
        assert sorted(stream.order for stream, _ in begun) == list(range(1, 21))
        assert [stream.order for stream in await store.streams("talk")] == list(range(1, 21))

    async def test_configure_replaces_options_and_channels(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await store.configure_stream(key, TWO)
        (stream,) = await store.streams("talk")
        assert (stream.options, stream.restarts, stream.epochs[0].begins) == (TWO, (0, 0), (0, 0))

    async def test_configure_by_an_old_epoch_changes_nothing(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        await store.configure_stream(key, TWO)
        assert (await store.streams("talk"))[0].options == Options()

    async def test_configure_after_finals_is_refused(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        with pytest.raises(Conflict):
            await store.configure_stream(key, TWO)
        assert (await store.streams("talk"))[0].options == Options()

    async def test_end_keeps_figures_and_completes_the_interview(self, store: TranscriptStore) -> None:
        _, key = await begin(store, options=TWO)
        await store.keep_progress(key, (1_920, 3_840), ())
        stats = StreamStats(position=80_000, silence_ms=(10, 20), loudest_discarded_dbfs=(-31.5, -math.inf))
        assert await store.end_stream(key, stats=stats, now_ms=NOW_MS + 9)
        (stream,) = await store.streams("talk")
        assert (stream.status, stream.ended_ms, stream.restarts) == ("ended", NOW_MS + 9, (1_920, 3_840))
        assert stats == StreamStats(
            position=stream.position,
            silence_ms=stream.silence_ms,
            loudest_discarded_dbfs=stream.loudest_discarded_dbfs,
        )
        assert await store.interview("talk") == Interview(
            id="talk", status="completed", started_ms=NOW_MS, ended_ms=NOW_MS + 9
        )

    async def test_ending_twice_changes_nothing(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        assert await store.end_stream(key, stats=StreamStats(silence_ms=(1,)), now_ms=NOW_MS + 1)
        before = await store.streams("talk"), await store.interview("talk")
        assert await store.end_stream(key, stats=StreamStats(silence_ms=(2,)), now_ms=NOW_MS + 2)
        assert (await store.streams("talk"), await store.interview("talk")) == before

    async def test_interview_lives_while_one_stream_does_and_again(self, store: TranscriptStore) -> None:
        _, one = await begin(store)
        _, two = await begin(store, stream="s2")
        await store.end_stream(one, stats=StreamStats(), now_ms=NOW_MS + 1)
        assert await store.interview("talk") == Interview(id="talk", status="live", started_ms=NOW_MS)
        await store.end_stream(two, stats=StreamStats(), now_ms=NOW_MS + 2)
        assert (await store.interview("talk")) == Interview(
            id="talk", status="completed", started_ms=NOW_MS, ended_ms=NOW_MS + 2
        )
        await begin(store, stream="s3", now_ms=NOW_MS + 3)
        assert await store.interview("talk") == Interview(id="talk", status="live", started_ms=NOW_MS)

    async def test_streams_that_a_server_left_are_found_with_their_epochs(
        self, store: TranscriptStore, make: Make
    ) -> None:
        await begin(store, "a", "s1")
        _, ended = await begin(store, "a", "s2")
        _, three = await begin(store, "b", "s3")
        one = (await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)).key
        await store.end_stream(ended, stats=StreamStats(), now_ms=NOW_MS)
        await store.close()
        again = make()
        await again.open()
        try:
            assert await again.left_streams() == (one, three)
        finally:
            await again.close()

    # --- finals -----------------------------------------------------------------------------------------------------

    async def test_a_final_comes_back_whole(self, store: TranscriptStore) -> None:
        _, key = await begin(store, options=TWO)
        whole = Final(
            channel=1,
            utterance=3,
            segment=4,
            start=17,
            stop=2**40,
            text="naïve “东京” \x00 \\ \N{GRINNING FACE}",
            words=(
                Word(text="naïve", start=17, stop=18, confidence=1 / 3, estimated=True),
                Word(text="东京", start=18, stop=2**40, confidence=1.0, glued=True),
            ),
            language="zh-Hans",
            cause="length",
            endpoint=False,
            engine="scripted",
            failed=True,
            latency_ms=12,
            endpoint_ms=7,
        )
        assert await store.keep_final(key, whole)
        (kept,) = await store.finals("talk")
        assert (kept.stream, kept.epoch, kept.final) == ("s1", 1, whole)

    async def test_finals_are_ordered_by_stream_channel_start(self, store: TranscriptStore) -> None:
        _, two = await begin(store, stream="z-first", options=TWO)
        _, one = await begin(store, stream="a-second")
        assert await store.keep_final(one, final(0, text="d"))
        assert await store.keep_final(two, final(0, channel=1, text="c"))
        for segment in range(12):
            assert await store.keep_final(two, final(segment, text=f"b{segment}"))
        assert await texts(store) == [*(f"b{segment}" for segment in range(12)), "c", "d"]

    async def test_the_same_final_again_is_kept_once(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        assert await asyncio.gather(*(store.keep_final(key, final(0)) for _ in range(5))) == [True] * 5
        assert await store.keep_final(key, final(0))
        assert await texts(store) == ["segment 0"]

    async def test_another_final_under_the_same_key_is_refused(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        with pytest.raises(ValueError, match="another final"):
            await store.keep_final(key, final(0, text="other words"))
        assert await texts(store) == ["segment 0"]

    async def test_a_confidence_that_is_no_number_is_refused(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        bad = Final(
            channel=0, utterance=0, segment=0, start=0, stop=1, text="x", cause="vad", endpoint=True, engine="scripted",
            words=(Word(text="x", start=0, stop=1, confidence=math.nan),),
        )  # fmt: skip
        with pytest.raises(ValueError, match="finite"):
            await store.keep_final(key, bad)
        assert await texts(store) == []

    async def test_unknown_streams_take_nothing(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        for wrong in (
            StreamKey(interview="talk", stream="nobody", epoch=1),
            StreamKey(interview="elsewhere", stream=key.stream, epoch=1),
        ):
            with pytest.raises(NotFound):
                await store.keep_final(wrong, final(0))
            with pytest.raises(NotFound):
                await store.end_stream(wrong, stats=StreamStats(), now_ms=NOW_MS)
        assert await texts(store) == []

    async def test_one_failing_write_fails_alone(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        wrong = StreamKey(interview="talk", stream="nobody", epoch=1)
        writes = [store.keep_final(wrong if n % 3 == 1 else key, final(n // 3 * 2 + (n % 3 == 2))) for n in range(30)]
        answers = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(answer) for answer in answers] == [bool, NotFound, bool] * 10
        assert await texts(store) == [f"segment {n}" for n in range(20)]

    async def test_what_was_kept_is_there_after_reopening(self, store: TranscriptStore, make: Make) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        await store.keep_progress(key, (1_920,), (Anchor(position=0, utc_ms=NOW_MS),))
        before = await store.streams("talk"), await store.finals("talk"), await store.interview("talk")
        await store.close()
        again = make()
        await again.open()
        try:
            assert (await again.streams("talk"), await again.finals("talk"), await again.interview("talk")) == before
            resumed = await again.resume_stream("s1", token("s1"), now_ms=NOW_MS)
            assert resumed.starts == (ChannelStart(restart=1_920, kept_to=SECOND, next_segment=1, next_utterance=1),)
        finally:
            await again.close()

    # --- progress ---------------------------------------------------------------------------------------------------

    async def test_progress_replaces_restarts_and_adds_anchors(self, store: TranscriptStore) -> None:
        _, key = await begin(store, options=TWO)
        late, early = Anchor(position=50_000, utc_ms=NOW_MS + 9_000), Anchor(position=0, utc_ms=NOW_MS)
        assert await store.keep_progress(key, (1_920, 0), (late,))
        assert await store.keep_progress(key, (3_840, 1_920), (early, late))
        assert await store.keep_progress(key, (5_760, 1_920), ())
        (stream,) = await store.streams("talk")
        assert (stream.restarts, stream.anchors) == ((5_760, 1_920), (early, late))

    async def test_the_first_anchor_at_a_position_stays(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        first = Anchor(position=0, utc_ms=NOW_MS)
        await store.keep_progress(key, (0,), (first,))
        await store.keep_progress(key, (0,), (Anchor(position=0, utc_ms=NOW_MS + 1),))
        assert (await store.streams("talk"))[0].anchors == (first,)

    async def test_progress_of_an_unknown_stream(self, store: TranscriptStore) -> None:
        with pytest.raises(NotFound):
            await store.keep_progress(StreamKey(interview="talk", stream="nobody", epoch=1), (0,), ())

    async def test_progress_after_the_end_is_kept_too(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
        assert await store.keep_progress(key, (1_920,), ())
        assert (await store.streams("talk"))[0].restarts == (1_920,)

    # --- callers that go, stores that close -------------------------------------------------------------------------

    async def test_cancelled_callers_lose_and_double_nothing(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        rng = random.Random(7)
        tasks = [asyncio.ensure_future(store.keep_final(key, final(segment))) for segment in range(100)]
        for task in tasks:
            if rng.random() < 0.5:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        acknowledged = {n for n, task in enumerate(tasks) if not task.cancelled() and task.result()}
        assert acknowledged <= {kept.final.segment for kept in await store.finals("talk")}
        assert all([await store.keep_final(key, final(segment)) for segment in range(100)])
        assert await texts(store) == [f"segment {n}" for n in range(100)]

    async def test_close_finishes_what_was_accepted(self, store: TranscriptStore, make: Make) -> None:
        _, key = await begin(store)
        tasks = [asyncio.ensure_future(store.keep_final(key, final(segment))) for segment in range(50)]
        lazy = asyncio.ensure_future(store.keep_progress(key, (1_920,), ()))
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*tasks, lazy) == [True] * 51
        again = make()
        await again.open()
        try:
            assert await texts(again) == [f"segment {n}" for n in range(50)]
            assert (await again.streams("talk"))[0].restarts == (1_920,)
        finally:
            await again.close()

    async def test_a_closed_store_is_unavailable(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.keep_final(key, final(0))
        with pytest.raises(StoreUnavailable):
            await store.finals("talk")
