"""``streamsrv transcribe``: files in, transcripts out, without a server."""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streamsrv.cli.complaints import FAILED, OK, complain
from streamsrv.cli.progress import Bar
from streamsrv.cli.serve import add_settings, settings_of
from streamsrv.commands import Options
from streamsrv.errors import SetupError, StreamsrvError

if TYPE_CHECKING:
    from streamsrv.runtime.alone import Alone
    from streamsrv.settings import Settings
    from streamsrv.stores.transcript import Document

FORMATS = ("txt", "srt", "vtt", "json")
_EXAMPLES = """\
examples:
  streamsrv transcribe interview.mp3
  streamsrv transcribe *.m4a --format srt --out subtitles/
  streamsrv transcribe call.wav --multichannel --format json

Works without a running server. One file goes to standard output unless --out is given; with --out each transcript
is written beside the others as NAME.FORMAT; nothing is overwritten. A file that cannot be heard, or not to its end, is
named and the others go on (exit code 1).
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "transcribe",
        help="transcribe files, without a server",
        description="Turn audio and video files into text or subtitles, with the engine the server would use.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("files", nargs="+", type=Path, metavar="FILE", help="any common audio or video format")
    verb.add_argument("--format", choices=FORMATS, default="txt", help="form of the transcript (txt)")
    verb.add_argument("--out", type=Path, metavar="DIR", help="folder for the transcripts; made when missing")
    verb.add_argument("--language", metavar="TAG", help="what is spoken, such as en-US")
    verb.add_argument("--multichannel", action="store_true", help="one line per channel, such as two people on a call")
    add_settings(verb, serves=False)
    verb.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Transcribe all files."""
    settings = settings_of(chosen).settings
    if chosen.out is None and len(chosen.files) > 1:
        raise SetupError("several transcripts do not fit on one standard output", hint="name a folder with --out")
    targets = [_target(path, chosen.format, chosen.out) for path in chosen.files] if chosen.out else []
    for target in targets:
        if targets.count(target) > 1 or target.exists():
            raise SetupError(f"{target} would be overwritten", hint="choose another --out, or files of other names")
    return asyncio.run(_transcribe(settings, chosen))


async def _transcribe(settings: Settings, chosen: argparse.Namespace) -> int:
    import streamsrv
    from streamsrv import telemetry
    from streamsrv.runtime.alone import alone
    from streamsrv.runtime.engines import Engines, make_engine

    wanted = settings.engine
    engine, _ = make_engine(
        wanted.name, model=wanted.model, device=wanted.device, workers=wanted.workers, whisper=settings.whisper
    )
    numbers = telemetry.Metrics(streamsrv.__version__)
    engines = Engines([engine], numbers)
    await engines.start()
    try:
        async with alone(engines, numbers, settings.session, settings.decode) as hearing:
            return await _each(hearing, chosen)
    finally:
        await engines.close()


async def _each(hearing: Alone, chosen: argparse.Namespace) -> int:
    options = Options(language=chosen.language, multichannel=chosen.multichannel)
    status = OK
    bar = Bar(sys.stderr)
    for path in chosen.files:
        try:
            found, warnings = await hearing.hear(path, options, partial(bar.show, path.name))
        except StreamsrvError as error:
            bar.clear()
            print(f"{path}:", file=sys.stderr)
            complain(error)
            status = FAILED
        else:
            bar.clear()
            _write(found, path, chosen.format, chosen.out)
            for warning in warnings:
                print(f"{path}: {warning}", file=sys.stderr)
            status = FAILED if warnings else status
    return status


def _target(path: Path, form: str, out: Path) -> Path:
    return out / f"{path.stem}.{form}"


def _write(found: Document, path: Path, form: str, out: Path | None) -> None:
    from streamsrv.stores import transcript

    text = {
        "txt": transcript.to_txt,
        "srt": transcript.to_srt,
        "vtt": transcript.to_vtt,
        "json": transcript.to_json,
    }[form](found)
    if out is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    target = _target(path, form, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
    except OSError as error:
        raise SetupError(f"{target} cannot be written: {error.strerror}", hint="choose another --out") from error
    print(target)
