"""``streamsrv config``: look at settings."""

from __future__ import annotations

import argparse

from streamsrv.cli.complaints import OK
from streamsrv.cli.serve import add_settings, settings_of

_EXAMPLES = """\
examples:
  streamsrv config example > streamsrv.toml       every setting, explained, at its default
  streamsrv config show --config streamsrv.toml   what would be in force, and who said so
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its two kinds."""
    verb = verbs.add_parser(
        "config",
        help="show settings, or write an example file",
        description="Look at settings. Secrets are counted, never shown.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = verb.add_subparsers(dest="kind", metavar="KIND", required=True, title="kinds")
    shown = kinds.add_parser(
        "show",
        help="the settings in force and their sources",
        description="Print the settings 'serve' would use with the same flags, each with its source, as TOML.",
        epilog="example:\n  streamsrv config show --port 3010\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings(shown)
    shown.set_defaults(run=show)
    example_kind = kinds.add_parser(
        "example",
        help="a settings file with everything explained",
        description="Print a settings file with every setting at its default, explained.",
        epilog="example:\n  streamsrv config example > streamsrv.toml\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    example_kind.set_defaults(run=example)


def show(chosen: argparse.Namespace) -> int:
    """Print what is in force."""
    from streamsrv import settings

    print(settings.show(settings_of(chosen)), end="")
    return OK


def example(_: argparse.Namespace) -> int:
    """Print the example file."""
    from streamsrv import settings

    print(settings.example(), end="")
    return OK
