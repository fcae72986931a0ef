"""RingBuffer against its oracle: whatever is written and not released can be read, bit for bit."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamsrv._native.ring import RingBuffer
from streamsrv.errors import RingFull
from tests.oracle import RingOracle

CAPACITY = 40_000
PATTERN = array("h", ((7_919 * i) % 65_536 - 32_768 for i in range(1 << 16)))


def samples(at: int, count: int) -> array[int]:
    """What belongs at positions ``at ..``: no two neighbourhoods look alike."""
    at %= 30_011
    return PATTERN[at : at + count]


class RingModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ring = RingBuffer(CAPACITY)
        self.oracle = RingOracle(CAPACITY)

    @rule(count=st.one_of(st.integers(0, 400), st.integers(0, 30_000)))
    def write(self, count: int) -> None:
        new = samples(self.oracle.end, count)
        if self.oracle.fits(count):
            self.ring.write(new)
            self.oracle.write(new)
        else:
            with pytest.raises(RingFull):
                self.ring.write(new)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        begin = data.draw(st.integers(self.oracle.start, self.oracle.end))
        stop = data.draw(st.integers(begin, self.oracle.end))
        assert array("h", self.ring.read(begin, stop)).tolist() == list(self.oracle.read(begin, stop))

    @rule(back=st.integers(0, 45_000))
    def release(self, back: int) -> None:
        self.ring.release(self.oracle.end - back)
        self.oracle.release(self.oracle.end - back)

    @precondition(lambda self: self.oracle.start > 0)
    @rule()
    def read_what_was_released(self) -> None:
        with pytest.raises(ValueError):
            self.ring.read(self.oracle.start - 1, self.oracle.end)

    @rule(past=st.integers(1, 9))
    def read_what_never_came(self, past: int) -> None:
        with pytest.raises(ValueError):
            self.ring.read(self.oracle.end, self.oracle.end + past)

    @invariant()
    def bounds(self) -> None:
        held = self.oracle.end - self.oracle.start
        assert (self.ring.start, self.ring.end) == (self.oracle.start, self.oracle.end)
        assert self.ring.room == CAPACITY - held
        assert 2 * held <= self.ring.allocated <= max(16_384, 2 * 65_536)


TestRingModel = RingModel.TestCase
TestRingModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_an_idle_ring_costs_nothing_and_a_drained_one_little() -> None:
    ring = RingBuffer(960_000)
    assert ring.allocated == 0
    ring.write(bytes(2 * 900_000))
    assert ring.allocated == 2 * (1 << 20)
    ring.release(895_000)
    assert ring.allocated == 32_768
    assert ring.read(895_000, 900_000) == bytes(10_000)


def test_shrinking_does_not_see_saw() -> None:
    ring = RingBuffer(960_000)
    sizes = set()
    for _ in range(500):
        ring.write(bytes(640))
        ring.release(ring.end - 9_600)
        sizes.add(ring.allocated)
    assert sizes == {16_384, 32_768}


def test_the_last_sample_fits_and_one_more_does_not() -> None:
    ring = RingBuffer(1_000)
    ring.write(samples(0, 1_000))
    with pytest.raises(RingFull):
        ring.write(samples(1_000, 1))
    assert ring.room == 0
    assert ring.read(0, 1_000) == samples(0, 1_000).tobytes()
    ring.release(1)
    ring.write(samples(1_000, 1))
    assert ring.end == 1_001


def test_half_a_sample_is_refused() -> None:
    ring = RingBuffer(10)
    with pytest.raises(ValueError):
        ring.write(b"abc")
    assert ring.end == 0


def test_any_buffer_will_do_even_one_that_is_not_aligned() -> None:
    ring = RingBuffer(100)
    ring.write(bytearray(b"\1\0\2\0"))
    ring.write(memoryview(b"x\3\0\4\0")[1:])
    ring.write(array("h", [5]))
    assert array("h", ring.read(0, 5)).tolist() == [1, 2, 3, 4, 5]
    with pytest.raises((TypeError, BufferError)):
        ring.write("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        ring.write(memoryview(b"abcdefgh")[::2])


def test_positions_go_beyond_32_bits() -> None:
    ring = RingBuffer(20_000)
    begin = 5 * (1 << 32) + 3
    ring.skip_to(begin)
    ring.write(samples(0, 20_000))
    assert (ring.start, ring.end) == (begin, begin + 20_000)
    assert ring.read(begin + 7, begin + 20_000) == samples(0, 20_000)[7:].tobytes()


def test_only_a_fresh_ring_skips() -> None:
    ring = RingBuffer(10)
    with pytest.raises(ValueError):
        ring.skip_to(-1)
    ring.write(b"\0\0")
    with pytest.raises(ValueError):
        ring.skip_to(7)


@pytest.mark.parametrize("capacity", [0, -1, 1 << 40])
def test_capacity_has_bounds(capacity: int) -> None:
    with pytest.raises(ValueError):
        RingBuffer(capacity)


def test_it_says_what_it_is() -> None:
    assert repr(RingBuffer(10)) == "<RingBuffer 0..0 of 10 samples>"
