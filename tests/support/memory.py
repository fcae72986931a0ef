"""A store in memory that keeps the contract's promises to a session, and can be told to be away."""

from __future__ import annotations

import msgspec

from streamsrv.commands import Options
from streamsrv.errors import Forbidden, NotFound, StoreUnavailable, StreamEnded
from streamsrv.events import Final
from streamsrv.facts import ChannelStart, Position
from streamsrv.stores.base import (
    OPEN_JOBS,
    Anchor,
    EpochStart,
    FinalName,
    Interview,
    InterviewStatus,
    Job,
    ListedInterview,
    ListPlace,
    PlacedFinal,
    Resumed,
    StoredFinal,
    Stream,
    StreamKey,
    StreamStats,
)


class MemoryStore:
    """For tests of what stands above a store.  ``away``: every call fails until it is false again."""

    def __init__(self) -> None:
        self.away = False
        self.log: list[str] = []
        self.records: dict[str, Stream] = {}
        self.tokens: dict[str, bytes] = {}
        self.kept: list[StoredFinal] = []
        self.stats: dict[str, StreamStats] = {}
        self.jobs: dict[str, Job] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _called(self, what: str) -> None:
        self._require()
        self.log.append(what)

    def _require(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")

    def _owns(self, key: StreamKey) -> bool:
        if key.stream not in self.records:
            raise NotFound("no such stream in this interview")
        return self.records[key.stream].epochs[-1].epoch == key.epoch

    def _change(self, stream: str, **changes: object) -> None:
        self.records[stream] = msgspec.structs.replace(self.records[stream], **changes)

    async def begin_stream(
        self, *, interview: str, stream: str, token_hash: bytes, options: Options, engine: str, now_ms: int
    ) -> Stream:
        self._called("begin")
        self.tokens[stream] = token_hash
        self.records[stream] = record = Stream(
            id=stream,
            interview=interview,
            order=len(self.records) + 1,
            status="live",
            options=options,
            engine=engine,
            epochs=(EpochStart(epoch=1, begins=(0,) * options.tracks),),
            anchors=(),
            restarts=(0,) * options.tracks,
            started_ms=now_ms,
        )
        return record

    async def configure_stream(self, key: StreamKey, options: Options) -> None:
        self._called("configure")
        self._change(key.stream, options=options, restarts=(0,) * options.tracks)

    async def resume_stream(self, stream: str, token_hash: bytes, *, now_ms: int) -> Resumed:
        self._called("resume")
        record = self.records.get(stream)
        if record is None:
            raise NotFound("no such stream")
        if self.tokens[stream] != token_hash:
            raise Forbidden("wrong token")
        if record.status == "ended":
            raise StreamEnded("it ended")
        finals = tuple(kept.final for kept in self.kept if kept.stream == stream)
        starts = tuple(
            ChannelStart(
                restart=record.restarts[channel],
                kept_to=max((f.stop for f in finals if f.channel == channel), default=0),
                next_segment=sum(f.channel == channel for f in finals),
                next_utterance=max((f.utterance + 1 for f in finals if f.channel == channel), default=0),
            )
            for channel in range(record.options.tracks)
        )
        epoch = EpochStart(epoch=record.epochs[-1].epoch + 1, begins=tuple(start.kept_to for start in starts))
        self._change(stream, epochs=(*record.epochs, epoch))
        key = StreamKey(interview=record.interview, stream=stream, epoch=epoch.epoch)
        return Resumed(stream=self.records[stream], key=key, starts=starts, finals=finals)

    async def keep_final(self, key: StreamKey, final: Final) -> bool:
        self._called("final")
        if not self._owns(key):
            return False
        known = (key.stream, key.epoch, final.channel, final.segment)
        if known in {(one.stream, one.epoch, one.final.channel, one.final.segment) for one in self.kept}:
            return True
        self.kept.append(StoredFinal(stream=key.stream, epoch=key.epoch, final=final))
        return True

    async def keep_progress(self, key: StreamKey, restarts: tuple[Position, ...], anchors: tuple[Anchor, ...]) -> bool:
        self._called("progress")
        if not self._owns(key):
            return False
        record = self.records[key.stream]
        if len(restarts) != record.options.tracks:
            raise ValueError(f"{record.options.tracks} restarts are wanted, not {restarts}")
        self._change(key.stream, restarts=restarts, anchors=(*record.anchors, *anchors))
        return True

    def hurry(self) -> None:
        pass

    async def end_stream(self, key: StreamKey, *, stats: StreamStats, now_ms: int) -> bool:
        self._called("end")
        if not self._owns(key):
            return False
        self.stats[key.stream] = stats
        self._change(key.stream, status="ended", ended_ms=now_ms)
        return True

    async def interview(self, interview: str) -> Interview | None:
        return None

    async def streams(self, interview: str) -> tuple[Stream, ...]:
        return tuple(record for record in self.records.values() if record.interview == interview)

    async def finals(self, interview: str) -> tuple[StoredFinal, ...]:
        return tuple(self.kept)

    async def left_streams(self) -> tuple[StreamKey, ...]:
        self._require()
        return tuple(
            StreamKey(interview=record.interview, stream=record.id, epoch=record.epochs[-1].epoch)
            for record in self.records.values()
            if record.status == "live"
        )

    async def keep_job(self, job: Job) -> None:
        self._called("job")
        self.jobs[job.id] = job

    async def job(self, job: str) -> Job | None:
        return self.jobs.get(job)

    async def open_jobs(self) -> tuple[Job, ...]:
        self._require()
        return tuple(job for job in self.jobs.values() if job.state in OPEN_JOBS)

    # --- reading on, listing, deleting --------------------------------------------------------------------------

    async def place_of(self, interview: str, name: FinalName) -> int:
        wanted = (name.stream, name.channel, name.segment)
        places = [
            at for at, one in enumerate(self.kept, 1) if (one.stream, one.final.channel, one.final.segment) == wanted
        ]
        return places[0] if places else 0

    async def finals_since(self, interview: str, place: int, *, limit: int) -> tuple[PlacedFinal, ...]:
        self._called("since")
        found = [
            PlacedFinal(place=at, stream=one.stream, final=one.final)
            for at, one in enumerate(self.kept, 1)
            if at > place and self.records[one.stream].interview == interview
        ]
        return tuple(found[:limit])

    async def interviews(
        self,
        *,
        status: InterviewStatus | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after: ListPlace | None = None,
        limit: int,
    ) -> tuple[ListedInterview, ...]:
        return ()

    async def delete_interview(self, interview: str) -> bool:
        self._called("delete")
        gone = [name for name, record in self.records.items() if record.interview == interview]
        for name in gone:
            del self.records[name]
        self.kept = [one for one in self.kept if one.stream not in gone]
        return bool(gone)

    async def expired(self, before_ms: int, *, limit: int) -> tuple[str, ...]:
        return ()
