"""The command line as typed: verbs, help, settings, errors and exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import streamsrv
from streamsrv import settings
from streamsrv.cli import main, parser
from streamsrv.cli.serve import SETTINGS_OF_FLAGS, settings_of

ROOT = Path(__file__).parents[2]
VERBS = (("serve",), ("stream",), ("outbox",), ("config",), ("config", "show"), ("config", "example"))


def helped(*verb: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "streamsrv", *verb, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


def test_help_lists_the_verbs() -> None:
    text = helped()
    listed = re.search(r"verbs:\n  VERB\n((?:    .*\n)+)", text)
    assert listed
    verbs = re.findall(r"^    (\w+)\b", listed[1], re.MULTILINE)
    assert verbs == ["serve", "stream", "transcribe", "models", "config", "backup", "restore", "outbox", "completion"]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_each_verb_has_an_example_that_parses(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*verb, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    examples = re.findall(r"^  (?:.*\| )?(streamsrv .*)$", text.partition("example")[2], re.MULTILINE)
    assert examples
    for example in examples:
        words = re.split(r"  +| [|>] ", example)[0].split()[1:]
        assert parser().parse_args(words).verb == verb[0]


def test_help_needs_no_heavy_library() -> None:
    probe = (
        "import sys, streamsrv.cli as c; c.parser();"
        "heavy = {'numpy', 'soundfile', 'aiohttp', 'soxr', 'pocketsphinx', 'sounddevice'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"streamsrv {streamsrv.__version__}\n"


@pytest.mark.parametrize("words", [[], ["fly"], ["stream"], ["stream", "-", "--rate", "x"], ["config"], ["serve", "x"]])
def test_wrong_use_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "usage: streamsrv" in capsys.readouterr().err


def test_each_flag_is_a_setting_there_is() -> None:
    assert set(SETTINGS_OF_FLAGS.values()) <= set(settings.FIELDS)


def test_flags_win_and_the_rest_is_reached_by_set(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[server]\nport = 1\n[engine]\nname = "a"\n')
    words = ["serve", "--config", str(file), "--port", "3010", "--data-dir", "here", "--set", "server.drain_s=10"]
    in_force = settings_of(parser().parse_args(words)).settings
    assert (in_force.server.port, in_force.engine.name, in_force.server.drain_s) == (3010, "a", 10.0)
    assert str(in_force.store.data_dir) == "here"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "99999"], "server.port"),
        (["--set", "server.prot=1"], "server.prot"),
        (["--set", "server.port"], "KEY=VALUE"),
        (["--set", "server.api_keys=hunter2hunter2"], "server.api_keys is a secret"),
        (["--config", "/nowhere/s.toml"], "/nowhere/s.toml"),
        (["--host", "0.0.0.0"], "no API keys"),
    ],
)
@pytest.mark.parametrize("verb", [["serve"], ["config", "show"]], ids=" ".join)
def test_wrong_settings_are_3_with_a_remedy(
    verb: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, *words]) == 3
    error, remedy = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert remedy.startswith("remedy: ")
    assert "hunter2" not in error + remedy


def test_config_show_tells_values_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--port", "3010"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^port = 3010 +# command line$", shown, re.MULTILINE)
    assert tomllib.loads(shown)["server"]["port"] == 3010


def test_config_example_is_a_settings_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["server"]["port"] == 3004
