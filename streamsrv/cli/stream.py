"""``streamsrv stream``: speak to a server and read along."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamsrv.cli.complaints import USAGE, complain
from streamsrv.errors import SetupError

URL = "ws://localhost:3004"
"""Where a server listens that nothing was said to."""
_DESCRIPTION = """\
Send a recording or your voice to a server and read the words while they are spoken: stable words plain, words that may
still change dim. Without a terminal only final words are printed, one phrase a line. A lost connection comes back by
itself and nothing is lost; Ctrl-C ends the stream and shows the rest, a second one leaves at once.
"""
_EXAMPLES = """\
examples:
  streamsrv stream recording.wav                       as fast as the server hears
  streamsrv stream call.flac --realtime --interview call-17 --speaker anna
  streamsrv stream mic --language en-US
  arecord -q -f S16_LE -r 16000 | streamsrv stream - --rate 16000
  streamsrv stream recording.mp3 --json | jq -r 'select(.type == "final").text'
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "stream",
        help="send a recording or the microphone, read the words",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = verb.add_argument
    flag("source", metavar="FILE|mic|-", help="a WAV, FLAC, OGG or MP3 file; the microphone; or raw pcm_s16le on stdin")
    flag(
        "--url",
        action="append",
        metavar="URL",
        help=f"of the server ({URL}); given again: another one that shares its store, asked when this one is away",
    )
    flag("--interview", metavar="ID", help="interview the words belong to (a new one, named by the time)")
    flag("--speaker", metavar="NAME", help="label kept with the words")
    flag("--language", metavar="TAG", help="language spoken, such as en-US (the engine's)")
    flag("--engine", metavar="NAME", help="engine to use (the server's)")
    flag("--realtime", action="store_true", help="send a file at the pace it was spoken")
    flag("--multichannel", action="store_true", help="one transcript per channel, instead of all mixed")
    flag("--rate", type=int, metavar="HZ", help="sample rate of '-' (16000) or the microphone (its own)")
    flag("--channels", type=int, default=1, choices=range(1, 9), metavar="N", help="channels of '-' (1)")
    flag("--json", action="store_true", help="print every event as a line of JSON")
    flag("--api-key-file", type=Path, metavar="FILE", help="file that holds the API key of the server")
    flag("--give-up", type=float, default=300.0, metavar="S", help="seconds to try to get a connection back (300)")
    verb.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Stream the source to its end, or to Ctrl-C."""
    # Late: aiohttp and soundfile take half a second to import, and '--help' needs neither.
    from streamsrv.cli.sources import open_source
    from streamsrv.cli.talk import Talk, talk
    from streamsrv.client import Misused, Options

    source = open_source(chosen.source, rate_hz=chosen.rate, channels=chosen.channels, realtime=chosen.realtime)
    options = Options(
        sample_rate=source.rate_hz,
        channels=source.channels,
        multichannel=chosen.multichannel,
        language=chosen.language,
        engine=chosen.engine,
        speaker=chosen.speaker,
    )
    plan = Talk(
        source=source,
        options=options,
        urls=tuple(chosen.url or (URL,)),
        interview=chosen.interview or _new_interview(),
        api_key=api_key(chosen.api_key_file),
        realtime=chosen.realtime,
        json=chosen.json,
        give_up_s=chosen.give_up,
    )
    try:
        return talk(plan)
    except Misused as error:
        complain(error)
        return USAGE


def _new_interview() -> str:
    import datetime

    return datetime.datetime.now(datetime.UTC).strftime("interview-%Y%m%d-%H%M%S")


def api_key(path: Path | None) -> str | None:
    """The key a file holds.

    Raises:
        SetupError: it cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeError):
        raise SetupError(f"the API key cannot be read from {path}", hint="check --api-key-file") from None
    if not key:
        raise SetupError(f"{path} holds no API key", hint="put the key on its first line")
    return key
