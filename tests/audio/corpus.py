"""Recordings in every container that is taken, and files that are broken or meant to hurt; all made here, none kept."""

from __future__ import annotations

import functools
import io
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeAlias

import av
import numpy as np
import numpy.typing as npt
import soundfile as sf
from av.audio.stream import AudioStream

from streamsrv.errors import BadMedia, MediaTooLong, StreamsrvError, UnsupportedMedia

Samples = npt.NDArray[np.int16]


def sound(rate_hz: int, channels: int = 1, seconds: float = 1.5) -> Samples:
    """Gliding tones, each channel its own; frames x channels."""
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    top = min(rate_hz * 0.3, 3_000)
    columns = [
        0.3 * np.sin(2 * np.pi * (200 + 130 * n + (top - 200) * t / (4 * seconds)) * t) * (0.7 + 0.3 * np.sin(9 * t))
        for n in range(channels)
    ]
    return (np.stack(columns, axis=1) * 32_767).astype(np.int16)


def pcm(samples: Samples, subtype: str, container: str = "WAV", rate_hz: int = 16_000) -> bytes:
    """As libsndfile writes it."""
    out = io.BytesIO()
    # libsndfile scales between whole numbers, and leaves them as they are in floats.
    sf.write(
        out, samples / 32_768 if subtype in ("FLOAT", "DOUBLE") else samples, rate_hz, format=container, subtype=subtype
    )
    return out.getvalue()


def coded(samples: Samples, rate_hz: int, container: str, codec: str, *, video: bool = False, **options: str) -> bytes:
    """As FFmpeg's muxers write it; with a black picture beside the sound if wanted."""
    out = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(out, "w", format=container, options=options) as muxer:
        picture = muxer.add_stream("libvpx", rate=10) if video else None
        stream = muxer.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, AudioStream)
        stream.layout = layout
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
            for number in range(10):
                still = av.VideoFrame.from_ndarray(np.zeros((48, 32), np.uint8), format="yuv420p")
                still.pts = number
                muxer.mux(picture.encode(still))
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
        if picture is not None:
            muxer.mux(picture.encode(None))
    return out.getvalue()


def in_front(mp4: bytes) -> bytes:
    """The same MP4 with its index before its samples, as for the web."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "front.mp4"))
        with av.open(io.BytesIO(mp4), "r") as source, av.open(path, "w", options={"movflags": "faststart"}) as target:
            stream = target.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        return Path(path).read_bytes()


class Good(NamedTuple):
    """A recording, and what must come out."""

    data: bytes
    container: str
    codec: str
    rate_hz: int
    samples: Samples
    exact: int | None
    """Greatest difference of a sample; ``None``: a lossy codec, compared by likeness."""


@functools.cache
def good() -> dict[str, Good]:
    """Every kind there is, small."""
    cases: dict[str, Good] = {}

    def add(name: str, data: bytes, codec: str, rate: int, samples: Samples, exact: int | None) -> None:
        cases[name] = Good(data, name.split("-")[0], codec, rate, samples, exact)

    for subtype, codec, exact in (
        ("PCM_16", "pcm_s16le", 0),
        ("PCM_U8", "pcm_u8", 256),
        ("PCM_24", "pcm_s24le", 0),
        ("PCM_32", "pcm_s32le", 0),
        ("FLOAT", "pcm_f32le", 1),
        ("DOUBLE", "pcm_f64le", 1),
        ("ULAW", "pcm_mulaw", 1_024),
        ("ALAW", "pcm_alaw", 1_024),
    ):
        samples = sound(16_000)
        add(f"wav-{subtype}", pcm(samples, subtype), codec, 16_000, samples, exact)
    for rate, channels in ((8_000, 1), (11_025, 2), (22_050, 3), (44_100, 2), (48_000, 8), (192_000, 1)):
        samples = sound(rate, channels, 0.7)
        add(f"wav-{rate}-{channels}", pcm(samples, "PCM_16", "WAV", rate), "pcm_s16le", rate, samples, 0)
        add(f"flac-{rate}-{channels}", pcm(samples, "PCM_16", "FLAC", rate), "flac", rate, samples, 0)
    stereo, mono = sound(48_000, 2), sound(16_000)
    add("wav-extensible", pcm(stereo, "PCM_16", "WAVEX", 48_000), "pcm_s16le", 48_000, stereo, 0)
    add("wav-rf64", pcm(stereo, "PCM_16", "RF64", 48_000), "pcm_s16le", 48_000, stereo, 0)
    add("aiff-16", pcm(stereo, "PCM_16", "AIFF", 48_000), "pcm_s16be", 48_000, stereo, 0)
    add("flac-24", pcm(stereo, "PCM_24", "FLAC", 48_000), "flac", 48_000, stereo, 0)
    add("ogg-vorbis", pcm(stereo, "VORBIS", "OGG", 48_000), "vorbis", 48_000, stereo, None)
    add("ogg-opus", coded(stereo, 48_000, "ogg", "libopus"), "opus", 48_000, stereo, None)
    add("ogg-flac", coded(stereo, 48_000, "ogg", "flac"), "flac", 48_000, stereo, 0)
    add("mp3", coded(stereo, 48_000, "mp3", "libmp3lame"), "mp3", 48_000, stereo, None)
    add("mp3-mpeg2", pcm(mono, "MPEG_LAYER_III", "MP3"), "mp3", 16_000, mono, None)
    add("aac", coded(stereo, 48_000, "adts", "aac"), "aac", 48_000, stereo, None)
    add("mp4-aac", coded(stereo, 48_000, "mp4", "aac"), "aac", 48_000, stereo, None)
    add("mp4-front", in_front(cases["mp4-aac"].data), "aac", 48_000, stereo, None)
    moving = coded(stereo, 48_000, "mp4", "aac", movflags="frag_keyframe+empty_moov", frag_duration="200000")
    add("mp4-fragments", moving, "aac", 48_000, stereo, None)
    add("mp4-alac", coded(stereo, 48_000, "ipod", "alac"), "alac", 48_000, stereo, 0)
    add("mp4-opus", coded(stereo, 48_000, "mp4", "libopus"), "opus", 48_000, stereo, None)
    add("mp4-mov", coded(stereo, 48_000, "mov", "pcm_s16le"), "pcm_s16le", 48_000, stereo, 0)
    add("mp4-3gp", coded(sound(8_000), 8_000, "3gp", "libopencore_amrnb"), "amrnb", 8_000, sound(8_000), None)
    add("amr", coded(sound(8_000), 8_000, "amr", "libopencore_amrnb"), "amrnb", 8_000, sound(8_000), None)
    add("webm-opus", coded(stereo, 48_000, "webm", "libopus"), "opus", 48_000, stereo, None)
    add("webm-video", coded(stereo, 48_000, "webm", "libopus", video=True), "opus", 48_000, stereo, None)
    add("mkv-flac", coded(stereo, 48_000, "matroska", "flac"), "flac", 48_000, stereo, 0)
    add("mkv-pcm", coded(stereo, 48_000, "matroska", "pcm_s16le"), "pcm_s16le", 48_000, stereo, 0)
    return cases


def recorder_webm(seconds: float = 3.0) -> bytes:
    """WebM as MediaRecorder streams it: nothing can be seeked, so no length is known, and clusters are short."""
    return coded(sound(48_000, 1, seconds), 48_000, "webm", "libopus", live="1", cluster_time_limit="250")


# --- broken and hostile ------------------------------------------------------------------------------------------


def wav_header(
    *, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, align: int | None = None, size: int = 3_200
) -> bytes:
    """44 bytes that may claim anything."""
    align = channels * bits // 8 if align is None else align
    form = struct.pack("<HHIIHH", tag, channels & 0xFFFF, rate, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    return b"RIFF" + struct.pack("<I", 3_236) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + _le(size)


def _le(value: int) -> bytes:
    return struct.pack("<I", value)


Errors: TypeAlias = type[StreamsrvError] | tuple[type[StreamsrvError], ...]


class Broken(NamedTuple):
    """A file, and what is promised for it."""

    data: bytes
    error: Errors | None = None
    """What is raised; ``None``: it is decoded as far as it goes."""
    warnings: frozenset[str] = frozenset()
    """What is told at least."""
    samples: int | None = None
    """Frames that come out, where the number is certain."""


_EITHER = (BadMedia, UnsupportedMedia)


def _page(body: bytes, *, flags: int, number: int, serial: int = 7, granule: int = 0) -> bytes:
    """An Ogg page with its checksum."""
    table = bytes([255] * (len(body) // 255) + [len(body) % 255])
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, number, 0) + bytes([len(table)]) + table
    page = bytearray(head + body)
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x104C11DB7 if checksum & 0x80000000 else 0)
    page[22:26] = _le(checksum)
    return bytes(page)


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1 << 20))
    return out.getvalue()


def flac_bomb(seconds: int) -> bytes:
    """Digital silence, eight channels of it: some thousand times as long as it is big."""
    return pcm(np.zeros((48_000 * seconds, 8), np.int16), "PCM_16", "FLAC", 48_000)


def without_length(flac: bytes) -> bytes:
    """FLAC whose header does not know how much follows."""
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def _cases() -> Iterator[tuple[str, Broken]]:
    yield from _strangers()
    yield from _wavs()
    yield from _oggs()
    yield from _flacs()
    yield from _boxes()


def _strangers() -> Iterator[tuple[str, Broken]]:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    yield "empty", Broken(b"", BadMedia)
    yield "one byte", Broken(b"R", UnsupportedMedia)
    yield "text", Broken(b"this is no audio at all\n" * 100, UnsupportedMedia)
    yield "page", Broken(b"<!doctype html><html></html>" * 50, UnsupportedMedia)
    yield "playlist", Broken(playlist, UnsupportedMedia)
    yield "concat", Broken(b"ffconcat version 1.0\nfile '/etc/passwd'\n", UnsupportedMedia)
    yield "sdp", Broken(b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n", UnsupportedMedia)
    yield "dash", Broken(b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>', UnsupportedMedia)
    yield "zip", Broken(_zip(), UnsupportedMedia)
    yield "gzip", Broken(b"\x1f\x8b\x08" + bytes(500), UnsupportedMedia)
    yield "program", Broken(b"\x7fELF\2\1\1" + bytes(500), UnsupportedMedia)
    yield "picture", Broken(b"\x89PNG\r\n\x1a\n" + bytes(500), UnsupportedMedia)
    yield "zeros", Broken(bytes(10_000), UnsupportedMedia)
    yield "playlist in RIFF", Broken(b"RIFF\x10\0\0\0WAVE" + playlist, _EITHER)
    yield "mp3 tag alone", Broken(b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(2_000), BadMedia)
    yield "mp3 noise", Broken(b"\xff\xfb\x90\x64" + random.Random(1).randbytes(20_000), BadMedia)
    yield "aac noise", Broken(b"\xff\xf1\x50\x80" + random.Random(2).randbytes(20_000), BadMedia)
    yield "amr noise", Broken(b"#!AMR\n" + random.Random(3).randbytes(20_000), None)
    yield "aiff ima4", Broken(_aifc(b"ima4"), UnsupportedMedia)


def _aifc(codec: bytes) -> bytes:
    common = struct.pack(">HIH", 1, 1_000, 16) + bytes.fromhex("400cfa00000000000000") + codec + b"\0\0"
    chunks = (
        b"COMM" + struct.pack(">I", len(common)) + common + b"SSND" + struct.pack(">III", 2_008, 0, 0) + bytes(2_000)
    )
    return b"FORM" + struct.pack(">I", 4 + len(chunks)) + b"AIFC" + chunks


def _wavs() -> Iterator[tuple[str, Broken]]:
    audio = sound(16_000, 1, 0.1).tobytes()
    nan = np.full(1_600, np.nan, "<f4")
    nan[::3], nan[1::7] = np.inf, 1e38
    short = frozenset({"truncated"})
    yield "header alone", Broken(wav_header()[:36], BadMedia)
    yield "no format", Broken(b"RIFF\x20\0\0\0WAVEdata\x10\0\0\0" + bytes(16), BadMedia)
    yield "no samples", Broken(wav_header(size=0), None, samples=0)
    yield "1 Hz", Broken(wav_header(rate=1) + audio, UnsupportedMedia)
    yield "0 Hz", Broken(wav_header(rate=0) + audio, UnsupportedMedia)
    yield "4 GHz", Broken(wav_header(rate=4_000_000_000) + audio, UnsupportedMedia)
    yield "an odd rate", Broken(wav_header(rate=16_001) + audio, UnsupportedMedia)
    yield "1024 channels", Broken(wav_header(channels=1_024) + audio, UnsupportedMedia)
    yield "65535 channels", Broken(wav_header(channels=65_535) + audio, UnsupportedMedia)
    yield "no channels", Broken(wav_header(channels=0) + audio, UnsupportedMedia)
    yield "17 bits", Broken(wav_header(bits=17, align=3) + audio[:3_000], None, samples=1_000)
    yield "40 bits", Broken(wav_header(bits=40) + audio, UnsupportedMedia)
    yield "no block", Broken(wav_header(align=0) + audio, UnsupportedMedia)
    yield "ima adpcm", Broken(wav_header(tag=0x11, bits=4, align=256) + audio, UnsupportedMedia)
    yield "ms adpcm", Broken(wav_header(tag=2, bits=4, align=256) + audio, UnsupportedMedia)
    yield "mp3 in wav", Broken(wav_header(tag=0x55) + audio, UnsupportedMedia)
    yield "length unknown", Broken(wav_header(size=0xFFFFFFFF) + audio, None, samples=1_600)
    yield "length too great", Broken(wav_header(size=1_000_000_000) + audio, None, short, samples=1_600)
    yield "length too small", Broken(wav_header(size=10) + audio, None, frozenset({"lengths"}), samples=1_600)
    yield "length none", Broken(wav_header(size=0) + audio, None, samples=1_600)
    yield "odd byte", Broken(wav_header(size=3_201) + audio + b"\1", None, samples=1_600)
    yield "not numbers", Broken(wav_header(tag=3, bits=32, size=6_400) + nan.tobytes(), None, samples=1_600)
    yield "wav and zip", Broken(wav_header() + audio + _zip(), None, frozenset({"lengths"}), samples=1_600)
    yield "million chunks", Broken(b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 1_000_000, BadMedia)
    yield "great format", Broken(b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\x7f" + bytes(5_000), _EITHER)


def _oggs() -> Iterator[tuple[str, Broken]]:
    vorbis = good()["ogg-vorbis"].data
    opus = good()["ogg-opus"].data
    head = _page(b"OpusHead\1\1\0\0\x80\xbb\0\0\0\0\0", flags=2, number=0)
    tags = _page(b"OpusTags\0\0\0\0\0\0\0\0", flags=0, number=1)
    empty = _page(b"", flags=0, number=2)
    other = pcm(sound(16_000, 1, 1.0), "VORBIS", "OGG")
    yield "chain", Broken(vorbis + other, None, frozenset({"changed"}))
    yield "chain of kinds", Broken(opus + other, None, frozenset({"changed"}))
    yield "chain too long", Broken(opus * 50, MediaTooLong)
    yield "chain with a stranger", Broken(opus + head + tags + other, None, frozenset({"changed"}))
    yield "ogg cut", Broken(opus[: len(opus) * 2 // 3], None, frozenset({"truncated"}))
    yield "ogg with a hole", Broken(opus[: len(opus) // 2] + bytes(999) + opus[len(opus) // 2 + 99 :], None)
    yield "ogg head alone", Broken(head, _EITHER)
    yield "ogg of empty pages", Broken(head + tags + empty * 200_000, (BadMedia, UnsupportedMedia))
    yield "ogg of heads", Broken(head * 20_000, _EITHER)
    yield "ogg speex", Broken(_page(b"Speex   1.2" + bytes(69), flags=2, number=0) + tags, _EITHER)
    yield "ogg noise", Broken(b"OggS" + random.Random(4).randbytes(50_000), _EITHER)


def _flacs() -> Iterator[tuple[str, Broken]]:
    flac = pcm(sound(16_000, 1, 2.0), "PCM_16", "FLAC")
    yield "flac cut", Broken(flac[: len(flac) // 2], None, frozenset({"truncated"}))
    yield "flac without length", Broken(without_length(flac), None, samples=32_000)
    yield "flac with a hole", Broken(flac[:9_000] + bytes(3_000) + flac[12_000:], None)
    yield "flac at 384 kHz", Broken(pcm(sound(384_000, 1, 0.1), "PCM_16", "FLAC", 384_000), UnsupportedMedia)
    yield "flac bomb", Broken(flac_bomb(120), MediaTooLong)
    yield "flac bomb, silent", Broken(without_length(flac_bomb(120)), MediaTooLong)
    yield "flac noise", Broken(b"fLaC" + random.Random(5).randbytes(50_000), _EITHER)
    yield "flac of pictures", Broken(b"fLaC" + b"\6\xff\xff\xff" * 1_000, _EITHER)


def _boxes() -> Iterator[tuple[str, Broken]]:
    mp4, webm = good()["mp4-aac"].data, good()["webm-opus"].data
    nested = b"".join(struct.pack(">I4s", 8 * (400 - depth), b"moov") for depth in range(400))
    yield "mp4 cut", Broken(mp4[: len(mp4) // 2], BadMedia)
    front = good()["mp4-front"].data
    yield "mp4 cut behind its index", Broken(front[: len(front) // 2], None, frozenset({"truncated"}))
    yield "mp4 head alone", Broken(mp4[:32], BadMedia)
    yield "mp4 nested", Broken(mp4[:28] + nested, BadMedia)
    yield "mp4 of great boxes", Broken(mp4[:28] + b"\0\0\0\1moov\x7f" + bytes(7) + bytes(100), BadMedia)
    yield "mp4 noise", Broken(mp4[:28] + random.Random(6).randbytes(50_000), BadMedia)
    yield "webm cut", Broken(webm[: len(webm) // 2], None, frozenset({"truncated"}))
    yield "webm codec", Broken(webm.replace(b"A_OPUS", b"A_XYZQ"), UnsupportedMedia)
    yield "webm without sound", Broken(webm.replace(b"\x83\x81\x02", b"\x83\x81\x11"), _EITHER)
    yield (
        "webm of great elements",
        Broken(webm[:40] + b"\x18S\x80g\1" + b"\xff" * 7 + b"\xec\x08" + bytes(200), _EITHER),
    )
    yield "webm noise", Broken(webm[:40] + random.Random(7).randbytes(50_000), _EITHER)


@functools.cache
def broken() -> dict[str, Broken]:
    """Every file that is not as it should be."""
    return dict(_cases())


def mutations(data: bytes, seed: int) -> Iterator[bytes]:
    """The same file, hurt by chance: bytes changed, cut out, repeated, and the tail dropped."""
    chance = random.Random(seed)
    ways = (_flip, _cut, _repeat, _drop)

    def hurt(way: Callable[[bytearray, random.Random], None]) -> bytes:
        copy = bytearray(data)
        way(copy, chance)
        return bytes(copy)

    yield from (hurt(way) for way in ways)


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(1 + len(data) // 500):
        data[chance.randrange(len(data))] = chance.randrange(256)


def _cut(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randrange(1, 2_000)]


def _repeat(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.randrange(1, 5_000)] * 3


def _drop(data: bytearray, chance: random.Random) -> None:
    """The head is hurt as well: there the lengths are."""
    for _ in range(4):
        data[chance.randrange(min(100, len(data)))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
    del data[chance.randrange(len(data) // 2, len(data)) :]
