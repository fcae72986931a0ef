"""``streamsrv models``: which models lie on this disk, and how one gets there."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from streamsrv.cli.complaints import OK
from streamsrv.cli.progress import Bar

_EXAMPLES = """\
examples:
  streamsrv models list
  streamsrv models download small.en
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its kinds."""
    verb = verbs.add_parser(
        "models",
        help="list models, or download one",
        description="Look at the models on this disk. Nothing is ever downloaded unless 'models download' is run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = verb.add_subparsers(dest="kind", metavar="KIND", required=True, title="kinds")
    listing = kinds.add_parser("list", help="models on this disk, with size and place")
    listing.set_defaults(run=show)
    getting = kinds.add_parser("download", help="fetch a Whisper model; goes on where it broke off")
    getting.add_argument("name", help="such as tiny.en, base, small.en or turbo")
    getting.set_defaults(run=download)


def show(_: argparse.Namespace) -> int:
    """Print the models."""
    from streamsrv.engines._whisper import catalogue

    rows = [("ENGINE", "MODEL", "SIZE", "WHERE")]
    if find_spec("pocketsphinx") is not None:
        rows.append(("sphinx", "en-us", "-", "in its package"))
    rows += [
        ("whisper", entry.name, f"{entry.size_bytes / 1e6:.0f} MB", str(entry.folder))
        for entry in catalogue.installed()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[3]]).rstrip())
    if len(rows) < 3:
        print(f"no Whisper model in {catalogue.cache()}; 'streamsrv models download small.en' fetches one")
    return OK


def download(chosen: argparse.Namespace) -> int:
    """Fetch one model."""
    from streamsrv.engines._whisper import catalogue

    bar = Bar(sys.stderr)
    folder = catalogue.download(chosen.name, lambda done, total: bar.show(chosen.name, done, total or None))
    bar.clear()
    print(folder)
    return OK
