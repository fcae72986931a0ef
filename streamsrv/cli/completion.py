"""``streamsrv completion``: the shell finishes verbs and flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from streamsrv.cli.complaints import OK

SHELLS = ("bash", "zsh", "tcsh")
_EXAMPLES = """\
examples:
  streamsrv completion bash > ~/.local/share/bash-completion/completions/streamsrv
  streamsrv completion zsh > ~/.zfunc/_streamsrv
"""


def add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], parser: Callable[[], argparse.ArgumentParser]
) -> None:
    """Add the verb; ``parser`` makes the whole command line."""
    verb = verbs.add_parser(
        "completion",
        help="print a completion script for your shell",
        description="Print a script that lets the shell complete verbs and flags.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("shell", choices=SHELLS)
    verb.set_defaults(run=lambda chosen: show(parser(), chosen.shell))


def show(parser: argparse.ArgumentParser, shell: str) -> int:
    """Print the script."""
    import shtab

    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell))
    return OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments, those of the verbs included."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
