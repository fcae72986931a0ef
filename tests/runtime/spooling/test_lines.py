"""Lines of a spool file: complete ones are read back, everything else is noticed."""

from __future__ import annotations

import math
import random

import pytest

from streamsrv.runtime.spooling import lines
from streamsrv.stores.base import Anchor, StreamKey, StreamStats
from tests.stores.builders import NOW_MS, final

KEY = StreamKey(interview="talk", stream="st-1", epoch=2)


def entries() -> list[lines.Entry]:
    stats = StreamStats(position=96_000, silence_ms=(7, 8), loudest_discarded_dbfs=(-41.5, -math.inf))
    return [
        lines.Entry(key=KEY, at_ms=NOW_MS, final=final(0), anchors=(Anchor(position=0, utc_ms=NOW_MS),)),
        lines.Entry(key=KEY, at_ms=NOW_MS + 1, final=final(1, text="line\nbreaks are no \u2028 trouble")),
        lines.Entry(key=KEY, at_ms=NOW_MS + 2, restarts=(1_920, 3_840)),
        lines.Entry(key=KEY, at_ms=NOW_MS + 3, end=lines.End.of(stats, NOW_MS)),
    ]


def file_of(found: list[lines.Entry]) -> list[bytes]:
    return [lines.line(number, lines.encode(entry)) for number, entry in enumerate(found)]


def test_what_was_written_is_read_back() -> None:
    wanted = entries()
    read = lines.read(b"".join(file_of(wanted)))
    assert read.sound == wanted
    assert (read.behind, read.torn, read.damaged, read.whole, read.finals) == ([], False, 0, True, 2)
    assert read.sound[-1].end is not None
    assert read.sound[-1].end.stats == StreamStats(
        position=96_000, silence_ms=(7, 8), loudest_discarded_dbfs=(-41.5, -math.inf)
    )


def test_an_empty_file_is_whole() -> None:
    assert lines.read(b"").whole


def test_overhead_is_no_less_than_it_is() -> None:
    body = lines.encode(entries()[0])
    assert len(lines.line(9_999_999_999, body)) <= len(body) + lines.OVERHEAD_BYTES


def test_a_file_cut_anywhere_gives_all_complete_lines_and_says_that_it_is_torn() -> None:
    parts = file_of(entries())
    whole = b"".join(parts)
    ends = [sum(map(len, parts[:count])) for count in range(len(parts) + 1)]
    for cut in range(len(whole)):
        read = lines.read(whole[:cut])
        complete = max(count for count, end in enumerate(ends) if end <= cut)
        assert read.sound == entries()[:complete]
        assert (read.torn, read.damaged, read.behind) == (cut not in ends, 0, [])


def test_a_tail_of_zeros_is_torn() -> None:
    read = lines.read(b"".join(file_of(entries()[:2])) + bytes(4096))
    assert (len(read.sound), read.torn) == (2, True)


@pytest.mark.parametrize("seed", range(50))
def test_a_changed_byte_is_always_noticed(seed: int) -> None:
    chance = random.Random(seed)
    parts = file_of(entries())
    whole = bytearray(b"".join(parts))
    whole[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    read = lines.read(bytes(whole))
    assert not read.whole
    assert all(entry in entries() for entry in (*read.sound, *read.behind)), "nothing changed is believed"
    assert len(read.sound) + len(read.behind) >= len(parts) - 2, "one line and at most its neighbour are lost"


def test_behind_a_missing_line_only_finals_count() -> None:
    parts = file_of(entries())
    read = lines.read(parts[0] + parts[2] + parts[3])
    assert (len(read.sound), len(read.behind), read.damaged) == (1, 2, 1)
    assert list(lines.finals_of(read.behind)) == []
    read = lines.read(parts[1])
    assert [entry.final for entry in lines.finals_of(read.behind)] == [entries()[1].final]


def test_a_line_that_comes_again_is_noticed() -> None:
    parts = file_of(entries())
    assert not lines.read(parts[0] + parts[0] + parts[1]).whole
