"""``streamsrv serve``: the server."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from streamsrv.errors import SetupError

if TYPE_CHECKING:
    from streamsrv.settings import Effective

_DESCRIPTION = (
    "Start the server. It says on its first line where it listens, which engine hears, and where words are kept."
)
_EXAMPLES = """\
examples:
  streamsrv serve
  streamsrv serve --port 3010 --engine sphinx --data-dir /srv/transcripts
  streamsrv serve --config streamsrv.toml --set session.idle_timeout_s=120

Settings come from the file, then from STREAMSRV_* in the environment, then from these flags; the later wins.
'streamsrv config example' lists all of them, 'streamsrv config show' those in force.
Ctrl-C or SIGTERM lets speakers finish; a second one hurries.
"""
SETTINGS_OF_FLAGS = {
    "host": "server.host",
    "port": "server.port",
    "engine": "engine.name",
    "model": "engine.model",
    "device": "engine.device",
    "compute_type": "whisper.compute_type",
    "workers": "engine.workers",
    "data_dir": "store.data_dir",
    "log_format": "server.log_format",
    "log_level": "server.log_level",
}
"""Flag (as argparse names it) to dotted setting."""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "serve",
        help="run the server",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings(verb)
    verb.set_defaults(run=run)


def add_settings(verb: argparse.ArgumentParser, *, serves: bool = True) -> None:
    """Add the flags that are settings.  What they take is checked by the settings themselves, with their ranges.

    Args:
        serves: with those that only a server needs.
    """
    flag = verb.add_argument
    if serves:
        flag("--host", metavar="ADDRESS", help="listen here (127.0.0.1); other than loopback needs API keys")
        flag("--port", metavar="N", help="listen on this TCP port (3004); 0 takes a free one")
        flag("--data-dir", metavar="DIR", help="keep transcripts here (data)")
    flag("--engine", metavar="NAME", help="what turns speech into words (auto)")
    flag("--model", metavar="NAME", help="the engine's model, a name or a folder")
    flag("--device", metavar="NAME", help="where the engine computes: auto, cpu, cuda, cuda:1")
    flag("--compute-type", metavar="NAME", help="Whisper's precision: default, int8, float16, float32 and others")
    flag("--workers", metavar="N", help="worker processes (Sphinx), or batches computed at once (Whisper), at most")
    flag("--config", metavar="FILE", help="settings file, TOML")
    flag("--log-format", metavar="FORM", help="auto, json or text")
    flag("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    flag("--set", metavar="KEY=VALUE", action="append", default=[], help="any other setting, such as server.drain_s=10")


def run(chosen: argparse.Namespace) -> int:
    """Serve until a signal."""
    effective = settings_of(chosen)
    # Late: the engines and their libraries take a moment to import, and no other verb needs them.
    from streamsrv.server.main import run as serve

    return serve(effective.settings)


def settings_of(chosen: argparse.Namespace) -> Effective:
    """The settings in force under these flags.

    Raises:
        SetupError: a setting is unknown or wrong.
    """
    from streamsrv import settings

    flags: dict[str, object] = {key: getattr(chosen, flag, None) for flag, key in SETTINGS_OF_FLAGS.items()}
    for assignment in chosen.set:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise SetupError("--set wants KEY=VALUE", hint="for example --set server.drain_s=10")
        if key in settings.FIELDS and settings.FIELDS[key].secret:
            raise SetupError(
                f"{key} is a secret, and command lines are visible to everybody on this machine",
                hint=f"use {settings.FIELDS[key].variable} in the environment, or the settings file",
            )
        flags[key] = value
    return settings.load(chosen.config, flags=flags)
