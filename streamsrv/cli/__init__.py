"""The command line: ``streamsrv VERB``.  Each verb is a file with ``add`` (its arguments) and ``run`` (its work)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import streamsrv
from streamsrv.cli import backup, completion, config, models, outbox, serve, stream, transcribe
from streamsrv.cli.complaints import FAILED, SETUP, complain
from streamsrv.errors import SetupError

_EXAMPLES = """\
try it:
  streamsrv serve                       start the server on 127.0.0.1:3004
  streamsrv stream recording.wav        watch the words of a recording appear
  streamsrv stream mic                  the same with your own voice
  streamsrv transcribe interview.mp3    text of a file, without a server

exit codes: 0 done, 1 failed while running, 2 wrong use, 3 could not start
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="streamsrv",
        description="Live speech in, stored words out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"streamsrv {streamsrv.__version__}")
    verbs = root.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")
    for part in (serve, stream, transcribe, models, config, backup, outbox):
        part.add(verbs)
    completion.add(verbs, parser)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code.

    Args:
        argv: the arguments after the program's name; the process's own when omitted.

    Raises:
        SystemExit: by argparse: 0 after ``--help`` and ``--version``, 2 when the arguments are wrong.
    """
    chosen = parser().parse_args(argv)
    try:
        return int(chosen.run(chosen))
    except SetupError as error:
        complain(error)
        return SETUP
    except BrokenPipeError:
        # Whoever read our output has left; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return FAILED
