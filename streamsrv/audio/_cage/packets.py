"""Bytes -> samples, through FFmpeg's libraries: containers by name, decoders from a list, audio alone.

Nothing is ever guessed from content but by ``sniff``: the demuxer is forced, may open nothing else, and only decoders
of the table below may run.  IMA and MS ADPCM, and every codec nobody records speech with, are not in it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from typing import Final

import av
import av.error
import av.logging
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from streamsrv.audio._cage.flac import Flac
from streamsrv.audio._cage.ogg import Links
from streamsrv.audio._cage.session import Closed, Input, Refused, Session
from streamsrv.audio._cage.sniff import sniff
from streamsrv.audio._cage.speaker import SHORTFALL_S, Speaker
from streamsrv.audio._cage.wav import Wav

_PCM: Final = frozenset(
    {"pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"}
    | {"pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_mulaw", "pcm_alaw"}
)
_MP4: Final = frozenset({"aac", "alac", "mp3", "mp3float", "opus", "flac", "amrnb", "amrwb"})
_MKV: Final = frozenset({"opus", "vorbis", "aac", "flac", "mp3", "mp3float", "pcm_s16le", "pcm_f32le"})
_KINDS: Final[dict[str, tuple[str, frozenset[str]]]] = {
    # what sniff says: (FFmpeg's demuxer, decoders)
    "wav": ("wav", _PCM),
    "aiff": ("aiff", _PCM),
    "flac": ("flac", frozenset({"flac"})),
    "ogg": ("ogg", frozenset({"opus", "vorbis", "flac"})),
    "mp3": ("mp3", frozenset({"mp3", "mp3float"})),
    "aac": ("aac", frozenset({"aac"})),
    "amr": ("amr", frozenset({"amrnb", "amrwb"})),
    "mp4": ("mov", _MP4 | _PCM),
    "webm": ("matroska", _MKV),
    "mkv": ("matroska", _MKV),
}
_DEMUXER_NAMES: Final = "wav,aiff,flac,ogg,mp3,aac,amr,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm"
_PASSING: Final = frozenset({"silent", "codec"})
"""Refusals that concern one link of a chain and not the rest."""
_STATED: Final = frozenset({"flac", "aiff", "mp4", "webm", "mkv"})
"""Kinds whose header states the length; of the others it is an estimate."""
LIVE_BUFFER_BYTES: Final = 4_096
FILE_BUFFER_BYTES: Final = 131_072


def decode(session: Session) -> None:
    """Decode a lane from end to end and say how it went."""
    refusal: Refused | None = None
    try:
        _decode(session)
        session.flush()
    except Closed:
        return
    except Refused as refused:
        refusal = refused
    except MemoryError:
        refusal = Refused("memory")
    except Exception:  # whatever a decoder throws is the recording's fault, and its text is nobody's business
        refusal = Refused("broken")
    try:
        if refusal is not None:
            session.flush()
        session.finish(refusal)
    except Closed:
        return


def _decode(session: Session) -> None:
    kind = sniff(session.input.peek())
    if kind is None:
        raise Refused("container")
    speaker = Speaker(session, kind)
    if kind == "wav":
        _wav(session, speaker)
    elif kind == "ogg":
        _links(session, speaker)
    elif kind == "flac" and session.live is not None:
        _flac(session, speaker)
    else:
        with _open(session.input, kind, live=session.live is not None) as container:
            _play(container, kind, speaker)
        _compare(session, speaker, kind)
    speaker.end()


def _compare(session: Session, speaker: Speaker, kind: str) -> None:
    """What was there with what the header stated."""
    claim = speaker.claimed_s if kind in _STATED else None
    if speaker.began and claim is not None and speaker.seconds + SHORTFALL_S < claim:
        session.warn("truncated")


def _wav(session: Session, speaker: Speaker) -> None:
    wav = Wav(session.input)
    speaker.expect(wav.codec, wav.rate_hz, wav.channels)
    there = None if session.file is None else session.file.size - session.file.tell() + wav.held
    sizes = [size for size in (wav.claimed or None, there) if size is not None]
    speaker.claim(min(sizes) / wav.frame_bytes / wav.rate_hz if sizes else None)
    context = _context(wav.codec, wav.rate_hz, wav.channels)
    _push(context, wav.packets(), speaker)
    if wav.short:
        session.warn("truncated")
    if wav.contradicted:
        session.warn("lengths")


def _flac(session: Session, speaker: Speaker) -> None:
    flac = Flac(session.input)
    speaker.expect("flac", flac.rate_hz, flac.channels)
    speaker.claim(flac.samples / flac.rate_hz)
    context = _context("flac", flac.rate_hz, flac.channels)
    context.extradata = flac.info
    _push(context, flac.packets(), speaker)
    _compare(session, speaker, "flac")


def _context(codec: str, rate_hz: int, channels: int) -> AudioCodecContext:
    context = av.CodecContext.create(codec, "r")
    if not isinstance(context, AudioCodecContext):
        raise Refused("codec", codec)
    context.sample_rate, context.layout, context.thread_count = rate_hz, f"{channels}C", 1
    return context


def _push(context: AudioCodecContext, packets: Iterable[bytes], speaker: Speaker) -> None:
    """Decode packets that were cut out here."""
    for data in packets:
        for frame in _heard(context, Packet(data), speaker):
            speaker.hear(frame)
    for frame in _heard(context, None, speaker):
        speaker.hear(frame)
    speaker.drain()


def _links(session: Session, speaker: Speaker) -> None:
    if session.file is not None:
        with _open(session.file, "ogg", live=False) as container:
            speaker.claim(_stated(container))
        session.file.seek(0)
    links = Links(session.input)
    more = True
    while more:
        try:
            with _open(links, "ogg", live=True) as container:
                _play(container, "ogg", speaker)
        except (av.error.FFmpegError, Refused) as failure:
            if not speaker.began or (isinstance(failure, Refused) and failure.reason not in _PASSING):
                raise
            session.warn("damaged")
        more = links.advance()
    if links.damaged:
        session.warn("damaged")
    elif not links.ended:
        session.warn("truncated")
    speaker.end()


def _open(source: Input | Links, kind: str, *, live: bool) -> InputContainer:
    demuxer, decoders = _KINDS[kind]
    told = {
        "format_whitelist": _DEMUXER_NAMES,
        "codec_whitelist": ",".join(sorted(decoders)),
        "protocol_whitelist": "none",
        "max_streams": "16",
    }
    if live:
        # Nothing is read ahead to find out what the header says or the first frame will tell.
        told |= {"probesize": "32", "analyzeduration": "0"}
    return av.open(
        source, "r", format=demuxer, options=told, buffer_size=LIVE_BUFFER_BYTES if live else FILE_BUFFER_BYTES
    )


def _play(container: InputContainer, kind: str, speaker: Speaker) -> None:
    """Every sample of the container's first audio stream."""
    if not container.streams.audio:
        raise Refused("silent")
    stream = container.streams.audio[0]
    context = stream.codec_context
    if context is None or context.name not in _KINDS[kind][1]:
        raise Refused("codec", None if context is None else context.name)
    context.thread_count = 1
    speaker.claim(_stated(container))
    speaker.expect(context.name, context.sample_rate, context.channels)
    packets = container.demux(stream)
    for frame in _frames(packets, context, speaker):
        speaker.hear(frame)
    speaker.drain()


def _stated(container: InputContainer) -> float | None:
    """Seconds the container says it lasts."""
    return container.duration / av.time_base if container.duration is not None and container.duration > 0 else None


def _frames(
    packets: Iterator[Packet[AudioStream]], context: AudioCodecContext, speaker: Speaker
) -> Iterator[AudioFrame]:
    """Frames of everything the demuxer gives; where it stumbles, that was the end."""
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except MemoryError:
            raise
        except av.error.FFmpegError:
            speaker.damaged()
            packet = None
        yield from _heard(context, packet, speaker)
        if packet is None:
            return


def _heard(
    context: AudioCodecContext, packet: Packet[AudioStream] | Packet[Stream] | None, speaker: Speaker
) -> list[AudioFrame]:
    """Frames of one packet, or with ``None`` of what the decoder still holds; what cannot be decoded is left out."""
    if time.thread_time() - speaker.began_at > speaker.cpu_s:
        raise Refused("cpu")
    try:
        return context.decode(packet)
    except MemoryError:
        raise
    except av.error.FFmpegError:
        speaker.damaged()
        return []


def warm_up() -> None:
    """Load all there is, because nothing can be opened behind the wall; WAV goes the whole way once."""
    frames = b"\0\0" * 800
    header = b"RIFF" + (36 + len(frames)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += b"\1\0\1\0" + (8_000).to_bytes(4, "little") + (16_000).to_bytes(4, "little") + b"\2\0\x10\0data"
    av.logging.set_level(None)
    for name in {name for _, decoders in _KINDS.values() for name in decoders}:
        av.codec.Codec(name, "r")
    with av.open(io.BytesIO(header + len(frames).to_bytes(4, "little") + frames), "r", format="wav") as container:
        resampler = av.AudioResampler(format="flt", layout="stereo", rate=16_000)
        for frame in container.decode(audio=0):
            resampler.resample(frame)
    try:
        av.open(io.BytesIO(b"\1" * 64), "r", format="ogg").close()
    except av.error.FFmpegError:
        return
