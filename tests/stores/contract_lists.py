"""What every store must do for those who read on, list and delete; part of ``StoreContract``."""

from __future__ import annotations

import asyncio

import pytest

from streamsrv.errors import Conflict, NotFound
from streamsrv.stores.base import Anchor, FinalName, ListPlace, StreamKey, StreamStats, TranscriptStore
from tests.stores.builders import NOW_MS, begin, final, texts, token

DAY_MS = 86_400_000


async def talked(store: TranscriptStore, interview: str, *, at_ms: int, ended: bool = True) -> StreamKey:
    """An interview of one stream with one final; over a second after it began."""
    _, key = await begin(store, interview, f"s-{interview}", now_ms=at_ms)
    await store.keep_final(key, final(0))
    if ended:
        await store.end_stream(key, stats=StreamStats(), now_ms=at_ms + 1_000)
    return key


async def listed(store: TranscriptStore, limit: int = 100, after: ListPlace | None = None) -> list[str]:
    return [one.interview.id for one in await store.interviews(limit=limit, after=after)]


class ListContract:
    """Reading on, listing, deleting."""

    # --- reading on -------------------------------------------------------------------------------------------------

    async def test_finals_are_read_on_in_the_order_of_storing(self, store: TranscriptStore) -> None:
        _, one = await begin(store)
        _, two = await begin(store, stream="s2")
        _, other = await begin(store, "other", "s3")
        order = [(one, 0), (two, 0), (two, 1), (other, 0), (one, 1), (two, 2)]
        for key, segment in order:
            await store.keep_final(key, final(segment))
        wanted = [(key.stream, segment) for key, segment in order if key is not other]
        read: list[tuple[str, int]] = []
        place = 0
        while some := await store.finals_since("talk", place, limit=2):
            assert len(some) <= 2
            assert [one.place for one in some] == sorted({one.place for one in some})
            place = some[-1].place
            read += [(one.stream, one.final.segment) for one in some]
        assert read == wanted

    async def test_the_place_of_a_final_is_where_reading_on_begins(self, store: TranscriptStore) -> None:
        _, one = await begin(store)
        _, two = await begin(store, stream="s2")
        for key, segment in [(one, 0), (two, 0), (one, 1)]:
            await store.keep_final(key, final(segment))
        place = await store.place_of("talk", FinalName("s2", 0, 0))
        (rest,) = await store.finals_since("talk", place, limit=10)
        assert (rest.stream, rest.final) == ("s1", final(1))

    @pytest.mark.parametrize("name", [FinalName("s1", 0, 7), FinalName("s1", 3, 0), FinalName("s9", 0, 0)])
    async def test_an_unknown_final_is_before_all(self, store: TranscriptStore, name: FinalName) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        assert await store.place_of("talk", name) == 0
        assert await store.place_of("nothing", name) == 0

    async def test_reading_on_over_a_resume(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert not await store.keep_final(key, final(1, text="late"))
        await store.keep_final(resumed.key, final(1))
        found = await store.finals_since("talk", 0, limit=10)
        assert [one.final.text for one in found] == ["segment 0", "segment 1"]

    # --- lists ------------------------------------------------------------------------------------------------------

    async def test_nothing_is_listed_where_nothing_is(self, store: TranscriptStore) -> None:
        assert await store.interviews(limit=10) == ()

    async def test_newest_first_with_state_and_streams(self, store: TranscriptStore) -> None:
        await talked(store, "old", at_ms=NOW_MS)
        await talked(store, "new", at_ms=NOW_MS + 5, ended=False)
        await begin(store, "new", "s2", now_ms=NOW_MS + 9)
        new, old = await store.interviews(limit=10)
        assert (new.interview.id, new.interview.status, new.streams, new.at_ms) == ("new", "live", 2, NOW_MS + 5)
        assert old.interview == await store.interview("old")
        assert (old.streams, old.at_ms) == (1, NOW_MS)

    async def test_pages_show_each_once_also_those_of_one_moment(self, store: TranscriptStore) -> None:
        for number in range(7):
            await talked(store, f"i{number}", at_ms=NOW_MS + number // 3)
        found: list[str] = []
        after: ListPlace | None = None
        while page := await store.interviews(limit=2, after=after):
            found += [one.interview.id for one in page]
            after = ListPlace(page[-1].at_ms, page[-1].interview.id)
        assert found == ["i6", "i5", "i4", "i3", "i2", "i1", "i0"]

    async def test_status_and_times_choose(self, store: TranscriptStore) -> None:
        for number in range(4):
            await talked(store, f"i{number}", at_ms=NOW_MS + number, ended=number != 2)
        live = await store.interviews(status="live", limit=10)
        assert [one.interview.id for one in live] == ["i2"]
        some = await store.interviews(since_ms=NOW_MS + 1, until_ms=NOW_MS + 3, limit=10)
        assert [one.interview.id for one in some] == ["i2", "i1"]

    # --- deleting ---------------------------------------------------------------------------------------------------

    async def test_deleting_leaves_nothing_and_nobody_else_notices(self, store: TranscriptStore) -> None:
        key = await talked(store, "talk", at_ms=NOW_MS, ended=False)
        await store.keep_progress(key, (1_920,), (Anchor(position=0, utc_ms=NOW_MS),))
        await talked(store, "other", at_ms=NOW_MS)
        assert await store.delete_interview("talk")
        assert await store.interview("talk") is None
        assert (await store.streams("talk"), await store.finals("talk")) == ((), ())
        assert (await store.finals_since("talk", 0, limit=9), await store.left_streams()) == ((), ())
        assert await listed(store) == ["other"]
        assert await texts(store, "other") == ["segment 0"]

    async def test_deleting_what_is_not_there(self, store: TranscriptStore) -> None:
        assert not await store.delete_interview("talk")
        await talked(store, "talk", at_ms=NOW_MS)
        assert await store.delete_interview("talk")
        assert not await store.delete_interview("talk")

    async def test_a_large_interview_is_deleted_whole(self, store: TranscriptStore) -> None:
        _, key = await begin(store)
        await asyncio.gather(*(store.keep_final(key, final(number)) for number in range(1_201)))
        assert await store.delete_interview("talk")
        again, _ = await begin(store, stream="s2")
        assert again.order == 1
        assert await texts(store) == []

    async def test_a_session_of_a_deleted_interview_writes_no_more(self, store: TranscriptStore) -> None:
        key = await talked(store, "talk", at_ms=NOW_MS, ended=False)
        await store.delete_interview("talk")
        for late in (
            store.keep_final(key, final(1)),
            store.keep_progress(key, (0,), ()),
            store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS),
        ):
            with pytest.raises(NotFound):
                await late
        with pytest.raises(NotFound):
            await store.resume_stream(key.stream, token(key.stream), now_ms=NOW_MS)

    async def test_the_name_can_be_used_again(self, store: TranscriptStore) -> None:
        await talked(store, "talk", at_ms=NOW_MS)
        await store.delete_interview("talk")
        await begin(store, stream="s9", now_ms=NOW_MS + 7)
        found = await store.interview("talk")
        assert found is not None
        assert (found.status, found.started_ms) == ("live", NOW_MS + 7)
        assert await texts(store) == []

    async def test_expired_are_the_completed_oldest_first(self, store: TranscriptStore) -> None:
        await talked(store, "live", at_ms=NOW_MS, ended=False)
        for age in (2, 5, 3):
            await talked(store, f"age{age}", at_ms=NOW_MS - age * DAY_MS)
        assert await store.expired(NOW_MS - 2 * DAY_MS, limit=9) == ("age5", "age3")
        assert await store.expired(NOW_MS, limit=1) == ("age5",)
        assert await store.expired(0, limit=9) == ()

    async def test_racing_deletes_and_newcomers(self, store: TranscriptStore) -> None:
        """Whoever begins while an interview goes is refused or begins anew; never half of each."""
        _, key = await begin(store)
        await asyncio.gather(*(store.keep_final(key, final(number)) for number in range(1_100)))
        deleting = asyncio.ensure_future(store.delete_interview("talk"))
        await asyncio.sleep(0)  # the deletion has begun
        begun = 0
        for number in range(50):
            try:
                await begin(store, stream=f"n{number}")
                begun += 1
            except Conflict:
                continue
        assert await deleting
        left = await store.streams("talk")
        assert [stream.order for stream in left] == list(range(1, begun + 1))
        assert await texts(store) == []
