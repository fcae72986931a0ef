"""Decoder and rounding against their oracles, message by message."""

from __future__ import annotations

import itertools
import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv._native.pcm import Decoder, round_into
from streamsrv._native.ring import RingBuffer
from streamsrv.errors import RingFull
from tests import oracle

ENCODINGS = list(oracle.WIDTHS)
LAYOUTS = st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.sampled_from([1, n])))
HARD_FLOATS = [math.nan, math.inf, -math.inf, 1e38, -1e38, 0.0, -0.0, 1.0, -1.0, 0.5 / 32768, 1.5 / 32768, 1e-40]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces, some perhaps empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


def rings(count: int) -> tuple[RingBuffer, ...]:
    return tuple(RingBuffer(100_000) for _ in range(count))


def held(ring: RingBuffer) -> list[int]:
    return array("h", ring.read(ring.start, ring.end)).tolist()


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@given(st.sampled_from(ENCODINGS), LAYOUTS, st.binary(max_size=700), st.lists(st.integers(0, 10_000), max_size=6))
def test_rings_get_what_the_oracle_says(encoding: str, layout: tuple[int, int], data: bytes, cuts: list[int]) -> None:
    channels, tracks = layout
    decoder, targets = Decoder(encoding, channels, tracks), rings(tracks)
    taken = sum(decoder.into_rings(piece, targets) for piece in split(data, cuts))
    values, broken, left = oracle.decode(encoding, channels, tracks, data)
    assert [held(ring) for ring in targets] == [[oracle.round_sample(v) for v in track] for track in values]
    assert (taken, decoder.nonfinite, decoder.dangling) == (len(values[0]), broken, left)


@given(st.sampled_from(ENCODINGS), LAYOUTS, st.binary(max_size=700), st.lists(st.integers(0, 10_000), max_size=6))
def test_the_resampler_gets_what_the_oracle_says(
    encoding: str, layout: tuple[int, int], data: bytes, cuts: list[int]
) -> None:
    channels, tracks = layout
    decoder = Decoder(encoding, channels, tracks)
    got = array("f", b"".join(decoder.into_floats(piece) for piece in split(data, cuts)))
    values, broken, left = oracle.decode(encoding, channels, tracks, data)
    rows = zip(*values, strict=True)
    assert got == array("f", [value / 32768 for row in rows for value in row])
    assert (decoder.nonfinite, decoder.dangling) == (broken, left)


@given(LAYOUTS, st.lists(st.sampled_from(HARD_FLOATS), max_size=60))
def test_hard_floats_become_silence_or_full_scale(layout: tuple[int, int], values: list[float]) -> None:
    channels, tracks = layout
    decoder, targets = Decoder("pcm_f32le", channels, tracks), rings(tracks)
    data = floats(*values)
    decoder.into_rings(data, targets)
    want, broken, _ = oracle.decode("pcm_f32le", channels, tracks, data)
    assert [held(ring) for ring in targets] == [[oracle.round_sample(v) for v in track] for track in want]
    assert decoder.nonfinite == broken


def test_every_broken_float_is_counted() -> None:
    decoder, (ring,) = Decoder("pcm_f32le", 1, 1), rings(1)
    decoder.into_rings(floats(math.nan, 0.25, math.inf, -math.inf, 1e38, -1e38), (ring,))
    assert held(ring) == [0, 8192, 0, 0, 32767, -32768]
    assert decoder.nonfinite == 3


def test_telephone_codes_have_the_values_of_g711() -> None:
    tables = {}
    for name in ("mulaw", "alaw"):
        (ring,) = rings(1)
        Decoder(name, 1, 1).into_rings(bytes(range(256)), (ring,))
        tables[name] = held(ring)
    assert [tables["mulaw"][code] for code in (0x00, 0x7F, 0x80, 0xFF, 0x9F)] == [-32124, 0, 32124, 0, 8316]
    assert [tables["alaw"][code] for code in (0x2A, 0xAA, 0x55, 0xD5, 0x00)] == [-32256, 32256, -8, 8, -5504]


def test_one_byte_at_a_time() -> None:
    data = struct.pack("<6h", 1, -2, 3, -4, 32767, -32768)
    decoder, targets = Decoder("pcm_s16le", 2, 2), rings(2)
    for byte in data:
        decoder.into_rings(bytes([byte]), targets)
    assert [held(ring) for ring in targets] == [[1, 3, 32767], [-2, -4, -32768]]


def test_an_empty_message_changes_nothing() -> None:
    decoder, targets = Decoder("pcm_s16le", 1, 1), rings(1)
    decoder.into_rings(b"\1", targets)
    assert decoder.into_rings(b"", targets) == 0
    assert (decoder.dangling, targets[0].end) == (1, 0)
    assert decoder.into_floats(b"") == b""


def test_a_message_that_does_not_fit_is_not_taken_at_all() -> None:
    roomy, tight = RingBuffer(100), RingBuffer(3)
    decoder = Decoder("pcm_s16le", 2, 2)
    decoder.into_rings(b"\7", (roomy, tight))
    with pytest.raises(RingFull):
        decoder.into_rings(b"\0" * 16, (roomy, tight))
    assert (roomy.end, tight.end, decoder.dangling) == (0, 0, 1)
    decoder.into_rings(b"\0" + b"\1\0" * 5, (roomy, tight))
    assert held(roomy) == [7, 1, 1]


def test_a_longer_message_than_a_block_is_seamless() -> None:
    values = [(i * 37) % 65_536 - 32_768 for i in range(5_000)]
    data = struct.pack("<5000h", *values)
    (direct,), (mixed,) = rings(1), rings(1)
    Decoder("pcm_s16le", 1, 1).into_rings(data, (direct,))
    doubled = struct.pack("<10000h", *(v for value in values for v in (value, value)))
    Decoder("pcm_s16le", 2, 1).into_rings(doubled, (mixed,))
    assert held(direct) == held(mixed) == values


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50), st.sampled_from([1, 2]))
def test_energy_and_peak_are_those_of_the_newest_message(values: list[int], channels: int) -> None:
    decoder, targets = Decoder("pcm_s16le", channels, channels), rings(channels)
    decoder.into_rings(struct.pack("<4h", 32767, 32767, 32767, 32767), targets)
    interleaved = [v for value in values for v in [value, 0][:channels]]
    decoder.into_rings(struct.pack(f"<{len(interleaved)}h", *interleaved), targets)
    assert decoder.energy(0) == pytest.approx(sum((v / 32768) ** 2 for v in values) / len(values))
    assert decoder.peak(0) == max(abs(v) for v in values) / 32768
    if channels == 2:
        assert (decoder.energy(1), decoder.peak(1)) == (0.0, 0.0)
    decoder.into_rings(b"", targets)
    assert (decoder.energy(0), decoder.peak(0)) == (0.0, 0.0)


def test_measures_of_a_track_that_is_not_there() -> None:
    decoder = Decoder("pcm_s16le", 2, 1)
    for ask in (decoder.energy, decoder.peak):
        with pytest.raises(ValueError):
            ask(1)


@given(st.lists(st.floats(width=32), max_size=60), st.sampled_from([1, 2, 3]))
def test_rounding_is_half_to_even_and_clips(values: list[float], columns: int) -> None:
    values = values[: len(values) // columns * columns]
    targets = rings(columns)
    assert round_into(floats(*values), targets) == len(values) // columns
    want = [oracle.round_sample(struct.unpack("<f", floats(v))[0] * 32768.0) for v in values]
    assert [held(ring) for ring in targets] == [want[column::columns] for column in range(columns)]


def test_halves_go_to_even() -> None:
    (ring,) = rings(1)
    round_into(floats(*(v / 32768 for v in (0.5, 1.5, 2.5, -0.5, -1.5, 32767.5, -32768.5))), (ring,))
    assert held(ring) == [0, 2, 2, 0, -2, 32767, -32768]


def test_misuse_is_told() -> None:
    ring = RingBuffer(10)
    with pytest.raises(ValueError):
        Decoder("opus", 1, 1)
    for channels, tracks in ((0, 1), (9, 1), (4, 2)):
        with pytest.raises(ValueError):
            Decoder("alaw", channels, tracks)
    decoder = Decoder("pcm_s16le", 2, 2)
    for targets in ((), (ring,), (ring, ring)):
        with pytest.raises(ValueError):
            decoder.into_rings(b"\0" * 4, targets)
    with pytest.raises(TypeError):
        decoder.into_rings(b"", (ring, "ring"))  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        round_into(b"\0" * 6, (ring,))
    with pytest.raises(ValueError):
        round_into(b"", ())


@given(st.integers(0, 40), st.integers(0, 40))
def test_frames_tells_what_a_message_will_give(first: int, second: int) -> None:
    decoder, targets = Decoder("pcm_s24le", 2, 1), rings(1)
    decoder.into_rings(bytes(first), targets)
    promised = decoder.frames(second)
    assert decoder.into_rings(bytes(second), targets) == promised
