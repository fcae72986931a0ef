"""``streamsrv backup`` and ``streamsrv restore``: all interviews as one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamsrv.cli.complaints import OK
from streamsrv.cli.progress import Bar

_BACKUP = """\
example:
  streamsrv backup interviews-2026-11-23.tar.gz --data-dir /srv/transcripts

The server may run meanwhile: the database in the archive is one consistent snapshot.
"""
_RESTORE = """\
example:
  streamsrv restore interviews-2026-11-23.tar.gz --data-dir /srv/restored

The folder must not hold a database yet; nothing is ever overwritten.
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both verbs."""
    taking = verbs.add_parser(
        "backup",
        help="write all interviews into one archive",
        description="Write database, recordings and waiting uploads into one archive.",
        epilog=_BACKUP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    taking.add_argument("archive", type=Path, help="file to write, .tar.gz; must not exist")
    taking.add_argument("--data-dir", type=Path, default=Path("data"), help="the server's folder (data)")
    taking.set_defaults(run=backup)
    putting = verbs.add_parser(
        "restore",
        help="put an archive back into an empty folder",
        description="Unpack an archive of 'streamsrv backup' into a folder a server can start on.",
        epilog=_RESTORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    putting.add_argument("archive", type=Path, help="file that 'streamsrv backup' wrote")
    putting.add_argument("--data-dir", type=Path, default=Path("data"), help="folder to fill (data)")
    putting.set_defaults(run=restore)


def backup(chosen: argparse.Namespace) -> int:
    """Write the archive."""
    from streamsrv.stores.sqlite import backup as archives

    bar = Bar(sys.stderr)
    size = archives.backup(chosen.data_dir, chosen.archive, lambda done, total: bar.show("database", done, total))
    bar.clear()
    print(f"{chosen.archive}: {size / 1e6:.1f} MB")
    return OK


def restore(chosen: argparse.Namespace) -> int:
    """Unpack the archive."""
    from streamsrv.stores.sqlite import backup as archives

    count = archives.restore(chosen.archive, chosen.data_dir)
    print(f"{count} files restored; start with: streamsrv serve --data-dir {chosen.data_dir}")
    return OK
