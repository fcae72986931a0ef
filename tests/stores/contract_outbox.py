"""What every store must do so that finals reach the sinks; its own tests subclass ``OutboxContract``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pytest

from streamsrv.stores.base import StoredFinal, StreamKey, StreamStats
from streamsrv.stores.handoff import Completion, DeadLetter, Deletion, Lease, Outgoing, SinkFigures, Store
from tests.stores.builders import NOW_MS, TWO, begin, final, token

MakeStore: TypeAlias = Callable[[], Store]
"""Another store on the same data, not yet opened; the one before is closed by then."""
SINKS = ("kafka", "webhook")
MUCH = 1_000


async def waiting(store: Store, sink: str = "kafka", interview: str = "talk", limit: int = MUCH) -> list[Outgoing]:
    return [handoff.what for handoff in (await store.waiting(sink, interview, limit=limit)).handoffs]


async def places(store: Store, sink: str = "kafka", interview: str = "talk") -> list[int]:
    return [handoff.place for handoff in (await store.waiting(sink, interview, limit=MUCH)).handoffs]


async def segments(store: Store, sink: str = "kafka", interview: str = "talk") -> list[int]:
    found = await waiting(store, sink, interview)
    return [what.final.segment for what in found if isinstance(what, StoredFinal)]


async def end(store: Store, key: StreamKey, now_ms: int = NOW_MS + 9) -> None:
    assert await store.end_stream(key, stats=StreamStats(), now_ms=now_ms)


class OutboxContract:
    """All promises of ``stores.handoff``."""

    @pytest.fixture
    async def store(self, make: MakeStore) -> AsyncIterator[Store]:
        store = make()
        store.hand_to(SINKS)
        await store.open()
        yield store
        await store.close()

    # --- what waits ---------------------------------------------------------------------------------------------

    async def test_nothing_waits_at_first(self, store: Store) -> None:
        assert await store.due("kafka", limit=9) == ()
        assert await waiting(store) == []
        assert await store.figures() == ()
        assert await store.dead_letters(limit=9) == ()

    async def test_a_final_waits_for_each_sink_and_comes_whole(self, store: Store) -> None:
        stream, key = await begin(store, options=TWO)
        await store.keep_final(key, final(0, channel=1))
        for sink in SINKS:
            assert await store.due(sink, limit=9) == ("talk",)
            found = await store.waiting(sink, "talk", limit=9)
            assert found.streams == (stream,)
            (handoff,) = found.handoffs
            assert handoff.what == StoredFinal(stream="s1", epoch=1, final=final(0, channel=1))
            assert (handoff.attempts, handoff.superseded) == (0, False)
        assert await store.due("elsewhere", limit=9) == ()

    async def test_finals_come_oldest_first_and_no_more_than_asked(self, store: Store) -> None:
        _, one = await begin(store)
        _, two = await begin(store, stream="a-second")
        for segment in range(12):
            await store.keep_final(one, final(segment, text="one"))
            await store.keep_final(two, final(segment, text="two"))
        found = await waiting(store)
        assert [(what.final.segment, what.final.text) for what in found if isinstance(what, StoredFinal)] == [
            (segment, text) for segment in range(12) for text in ("one", "two")
        ]
        assert await waiting(store, limit=5) == found[:5]

    async def test_the_same_final_again_waits_once(self, store: Store) -> None:
        _, key = await begin(store)
        await asyncio.gather(*(store.keep_final(key, final(0)) for _ in range(5)))
        await store.handed("kafka", "talk", await places(store))
        assert await store.keep_final(key, final(0))
        assert await segments(store) == []
        assert await segments(store, "webhook") == [0]

    async def test_only_what_is_stored_from_now_on(self, store: Store) -> None:
        store.hand_to(())
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        store.hand_to(("webhook",))
        assert await store.keep_final(key, final(0))
        await store.keep_final(key, final(1))
        await end(store, key)
        assert await waiting(store) == []
        assert await segments(store, "webhook") == [1]
        assert len(await waiting(store, "webhook")) == 2

    async def test_who_waits_for_news_is_told_the_interview(self, store: Store) -> None:
        told: list[str] = []
        store.hand_to(SINKS, stored=told.append)
        _, key = await begin(store)
        told.clear()
        await store.keep_final(key, final(0))
        assert set(told) == {"talk"}
        told.clear()
        await end(store, key)
        assert set(told) == {"talk"}
        told.clear()
        await store.delete_interview("talk")
        assert set(told) == {"talk"}

    async def test_a_refused_final_waits_for_nobody(self, store: Store) -> None:
        _, key = await begin(store)
        await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert not await store.keep_final(key, final(0))
        assert await store.due("kafka", limit=9) == ()

    async def test_interviews_that_are_due_come_by_name_in_pages(self, store: Store) -> None:
        names = [f"t-{number}" for number in range(7)]
        for name in names:
            _, key = await begin(store, name, f"s-{name}")
            for segment in range(3):
                await store.keep_final(key, final(segment))
        assert await store.due("kafka", limit=9) == tuple(names)
        assert await store.due("kafka", after="t-2", limit=3) == ("t-3", "t-4", "t-5")
        assert await store.due("kafka", after="t-6", limit=3) == ()

    async def test_what_waits_is_there_after_reopening(self, store: Store, make: MakeStore) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        await store.keep_final(key, final(1))
        await store.refused("kafka", "talk", (await places(store))[0], reason="no", dead=False, now_ms=NOW_MS)
        before = await store.waiting("kafka", "talk", limit=9)
        await store.close()
        again = make()
        await again.open()
        try:
            assert await again.waiting("kafka", "talk", limit=9) == before
        finally:
            await again.close()

    async def test_finals_that_a_newer_epoch_overtook_are_marked(self, store: Store) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        # Segment 1 is missing, so the next epoch begins behind segment 0 and segment 2 counts no more.
        await store.keep_final(key, final(2))
        await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        found = (await store.waiting("kafka", "talk", limit=9)).handoffs
        assert [handoff.superseded for handoff in found] == [False, True]

    # --- handed, refused ----------------------------------------------------------------------------------------

    async def test_what_is_handed_waits_no_more_for_this_sink(self, store: Store) -> None:
        _, key = await begin(store)
        for segment in range(4):
            await store.keep_final(key, final(segment))
        kafka = await places(store)
        for _ in range(2):
            await store.handed("kafka", "talk", [kafka[0], kafka[2]])
            assert await segments(store) == [1, 3]
        assert await segments(store, "webhook") == [0, 1, 2, 3]
        await store.handed("kafka", "talk", [kafka[1], kafka[3], 10**12])
        assert await store.due("kafka", limit=9) == ()
        assert await store.due("webhook", limit=9) == ("talk",)

    async def test_places_of_others_are_left_alone(self, store: Store) -> None:
        _, key = await begin(store)
        await begin(store, "other", "s2")
        await store.keep_final(key, final(0))
        (place,) = await places(store)
        for sink, interview in (("webhook", "talk"), ("kafka", "other")):
            await store.handed(sink, interview, [place])
            await store.refused(sink, interview, place, reason="no", dead=True, now_ms=NOW_MS)
        assert await segments(store) == [0]
        assert await store.dead_letters(limit=9) == ()

    async def test_places_are_never_used_again(self, store: Store) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        old = await places(store)
        await store.handed("kafka", "talk", old)
        await store.delete_interview("talk")
        for sink in SINKS:
            await store.handed(sink, "talk", await places(store, sink))
        _, key = await begin(store, stream="s2")
        await store.keep_final(key, final(0))
        await store.handed("kafka", "talk", old)
        assert await segments(store) == [0]

    async def test_refusals_are_counted_until_it_is_parked(self, store: Store) -> None:
        _, key = await begin(store, options=TWO)
        await store.keep_final(key, final(0, channel=1))
        await store.keep_final(key, final(1, channel=1))
        place = (await places(store))[0]
        for attempts in (1, 2):
            await store.refused("kafka", "talk", place, reason="too large", dead=False, now_ms=NOW_MS)
            found = (await store.waiting("kafka", "talk", limit=9)).handoffs
            assert [(one.place == place, one.attempts) for one in found] == [(True, attempts), (False, 0)]
        await store.refused("kafka", "talk", place, reason="still too large", dead=True, now_ms=NOW_MS + 3)
        await store.refused("kafka", "talk", place, reason="late", dead=True, now_ms=NOW_MS + 4)
        assert await segments(store) == [1]
        assert await segments(store, "webhook") == [0, 1]
        assert await store.dead_letters(limit=9) == (
            DeadLetter(
                sink="kafka", interview="talk", place=place, kind="final", stream="s1", channel=1, segment=0,
                attempts=3, reason="still too large", parked_ms=NOW_MS + 3,
            ),
        )  # fmt: skip

    async def test_dead_letters_in_pages_and_of_one_sink(self, store: Store) -> None:
        _, key = await begin(store)
        for segment in range(5):
            await store.keep_final(key, final(segment))
        for sink in SINKS:
            for place in await places(store, sink):
                await store.refused(sink, "talk", place, reason="no", dead=True, now_ms=NOW_MS)
        everything = await store.dead_letters(limit=99)
        assert len(everything) == 10
        assert [one.place for one in everything] == sorted(one.place for one in everything)
        of_kafka = tuple(one for one in everything if one.sink == "kafka")
        assert await store.dead_letters(sink="kafka", limit=99) == of_kafka
        assert await store.dead_letters(sink="kafka", after=of_kafka[1].place, limit=2) == of_kafka[2:4]

    async def test_a_retried_letter_waits_at_its_old_place(self, store: Store) -> None:
        for interview in ("talk", "other"):
            _, key = await begin(store, interview, f"s-{interview}")
            await store.keep_final(key, final(0))
            await store.keep_final(key, final(1))
            for sink in SINKS:
                first, _ = await places(store, sink, interview)
                await store.refused(sink, interview, first, reason="no", dead=True, now_ms=NOW_MS)
        assert await store.retry(sink="kafka", interview="talk") == 1
        found = (await store.waiting("kafka", "talk", limit=9)).handoffs
        assert [one.attempts for one in found] == [0, 0]
        assert await segments(store) == [0, 1]
        assert await segments(store, "webhook") == [1]
        assert await store.retry(sink="webhook") == 2
        assert await store.retry() == 1
        assert await store.retry() == 0

    async def test_figures_of_each_sink(self, store: Store) -> None:
        _, key = await begin(store)
        for segment in range(3):
            await store.keep_final(key, final(segment))
        found = (await store.waiting("kafka", "talk", limit=9)).handoffs
        await store.handed("kafka", "talk", [found[0].place])
        await store.refused("kafka", "talk", found[1].place, reason="no", dead=True, now_ms=NOW_MS)
        (webhook,) = (await store.waiting("webhook", "talk", limit=1)).handoffs
        assert await store.figures() == (
            SinkFigures(sink="kafka", pending=1, oldest_ms=found[2].stored_ms, dead=1),
            SinkFigures(sink="webhook", pending=3, oldest_ms=webhook.stored_ms, dead=0),
        )
        await store.handed("kafka", "talk", [found[2].place])
        assert (await store.figures())[0] == SinkFigures(sink="kafka", pending=0, oldest_ms=None, dead=1)

    # --- completed, deleted -------------------------------------------------------------------------------------

    async def test_a_completion_comes_behind_the_finals(self, store: Store) -> None:
        _, one = await begin(store)
        _, two = await begin(store, stream="s2")
        await store.keep_final(one, final(0))
        await end(store, one, NOW_MS + 1)
        await store.keep_final(two, final(0))
        assert len(await waiting(store)) == 2
        await end(store, two, NOW_MS + 2)
        await end(store, two, NOW_MS + 3)
        *finals, last = await waiting(store)
        assert len(finals) == 2
        assert last == Completion(revision=1, started_ms=NOW_MS, ended_ms=NOW_MS + 2)

    async def test_a_completion_that_was_handed_is_not_handed_again(self, store: Store) -> None:
        _, key = await begin(store)
        await end(store, key)
        await store.handed("kafka", "talk", await places(store))
        assert await store.due("kafka", limit=9) == ()
        await end(store, key)
        assert await store.due("kafka", limit=9) == ()
        assert await store.due("webhook", limit=9) == ("talk",)

    async def test_the_revision_rises_when_it_completes_again(self, store: Store) -> None:
        _, key = await begin(store)
        await end(store, key)
        await store.handed("kafka", "talk", await places(store))
        _, again = await begin(store, stream="s2", now_ms=NOW_MS + 20)
        await store.keep_final(again, final(0))
        # For the webhook the first revision is not true any more: it was never handed, and is not.
        assert [type(what) for what in await waiting(store, "webhook")] == [StoredFinal]
        await end(store, again, NOW_MS + 30)
        for sink in SINKS:
            assert (await waiting(store, sink))[-1] == Completion(revision=2, started_ms=NOW_MS, ended_ms=NOW_MS + 30)
            assert len(await waiting(store, sink)) == 2

    async def test_revisions_are_counted_without_sinks(self, store: Store) -> None:
        store.hand_to(())
        _, key = await begin(store)
        await end(store, key)
        store.hand_to(SINKS)
        _, key = await begin(store, stream="s2")
        await end(store, key)
        (found,) = await waiting(store)
        assert isinstance(found, Completion)
        assert found.revision == 2

    async def test_a_deletion_outlives_its_interview_until_all_have_it(self, store: Store, make: MakeStore) -> None:
        _, key = await begin(store)
        await begin(store, stream="s2")
        await store.keep_final(key, final(0))
        await end(store, key)
        assert await store.delete_interview("talk")
        assert not await store.delete_interview("talk")
        for sink in SINKS:
            (found,) = await waiting(store, sink)
            assert isinstance(found, Deletion)
            assert found.streams == ("s1", "s2")
        await store.handed("kafka", "talk", await places(store))
        await store.close()
        again = make()
        await again.open()
        try:
            assert await again.due("kafka", limit=9) == ()
            assert await again.due("webhook", limit=9) == ("talk",)
            await again.handed("webhook", "talk", await places(again, "webhook"))
            assert await again.figures() == ()
        finally:
            await again.close()

    async def test_deleting_twice_or_nothing_is_told_once_or_not(self, store: Store) -> None:
        await begin(store)
        await asyncio.gather(store.delete_interview("talk"), store.delete_interview("talk"))
        await store.delete_interview("never")
        assert await store.due("kafka", limit=9) == ("talk",)
        assert len(await waiting(store)) == 1

    async def test_a_name_used_again_waits_behind_its_deletion(self, store: Store) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        await store.delete_interview("talk")
        _, key = await begin(store, stream="s2")
        await store.keep_final(key, final(0))
        await end(store, key)
        deletion, kept, completion = await waiting(store)
        assert isinstance(deletion, Deletion)
        assert isinstance(kept, StoredFinal)
        assert kept.stream == "s2"
        assert isinstance(completion, Completion)
        assert completion.revision == 1

    async def test_dead_letters_of_a_deleted_interview_go_with_it(self, store: Store) -> None:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        await store.refused("kafka", "talk", (await places(store))[0], reason="no", dead=True, now_ms=NOW_MS)
        await store.delete_interview("talk")
        assert await store.dead_letters(limit=9) == ()
        await store.refused("kafka", "talk", (await places(store))[0], reason="gone", dead=True, now_ms=NOW_MS)
        (letter,) = await store.dead_letters(limit=9)
        assert (letter.kind, letter.stream, letter.reason) == ("deleted", None, "gone")
        assert await store.retry() == 1
        assert len(await waiting(store)) == 1

    async def test_a_dead_completion_names_its_revision(self, store: Store) -> None:
        _, key = await begin(store)
        await end(store, key)
        await store.refused("kafka", "talk", (await places(store))[0], reason="no", dead=True, now_ms=NOW_MS)
        (letter,) = await store.dead_letters(limit=9)
        assert (letter.kind, letter.revision) == ("completed", 1)

    # --- leases -------------------------------------------------------------------------------------------------

    async def test_a_lease_is_one_nodes_whatever_the_time(self, store: Store) -> None:
        async def lease(node: str, number: int, sink: str = "kafka", interview: str = "talk") -> Lease | None:
            return await store.lease(sink, interview, Lease(node=node, until_ms=number))

        held = Lease(node="a", until_ms=100)
        assert await lease("a", 100) is None
        assert await lease("b", NOW_MS) == held
        assert await lease("b", 50, sink="webhook") is None
        assert await lease("b", 50, interview="other") is None
        assert await lease("a", 99) is None
        assert await lease("b", NOW_MS) == Lease(node="a", until_ms=99)

    async def test_a_lease_is_taken_over_only_while_it_is_as_it_was_seen(self, store: Store) -> None:
        first, renewed = Lease(node="a", until_ms=100), Lease(node="a", until_ms=101)
        mine, late = Lease(node="b", until_ms=7), Lease(node="c", until_ms=8)
        assert await store.lease("kafka", "talk", first) is None
        assert await store.lease("kafka", "talk", renewed) is None
        assert await store.lease("kafka", "talk", mine, over=first) == renewed
        assert await store.lease("kafka", "talk", mine, over=Lease(node="c", until_ms=101)) == renewed
        assert await store.lease("kafka", "talk", mine, over=renewed) is None
        assert await store.lease("kafka", "talk", late, over=renewed) == mine
        assert await store.lease("kafka", "talk", renewed) == mine

    async def test_a_lease_is_given_back_by_its_holder_alone(self, store: Store) -> None:
        one, two = Lease(node="a", until_ms=100), Lease(node="b", until_ms=100)
        assert await store.lease("kafka", "talk", one) is None
        await store.release("kafka", "talk", node="b")
        assert await store.lease("kafka", "talk", two) == one
        await store.release("kafka", "talk", node="a")
        assert await store.lease("kafka", "talk", two, over=one) is None

    async def test_of_many_who_want_a_lease_one_gets_it(self, store: Store) -> None:
        over: Lease | None = None
        for number in range(3):
            wanted = [Lease(node=f"n{n}-{number}", until_ms=number) for n in range(16)]
            found = await asyncio.gather(*(store.lease("kafka", "talk", one, over=over) for one in wanted))
            (over,) = (one for one, other in zip(wanted, found, strict=True) if other is None)
            assert {other for other in found if other is not None} == {over}
