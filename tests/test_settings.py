"""Settings: the order of the sources, and that nothing wrong is ever taken."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv import settings
from streamsrv.errors import SetupError
from streamsrv.settings import FIELDS, Settings, load

ROOT = Path(__file__).parents[1]


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "streamsrv.toml"
    path.write_text(text, "utf-8")
    return path


def refused(**sources: object) -> SetupError:
    with pytest.raises(SetupError) as caught:
        load(**({"environ": {}} | sources))  # type: ignore[arg-type]
    return caught.value


def test_nothing_said_means_the_defaults() -> None:
    effective = load(environ={})
    assert effective.settings == Settings()
    assert effective.sources == {}
    assert (effective.settings.server.host, effective.settings.server.port) == ("127.0.0.1", 3004)


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    path = toml(tmp_path, "[server]\nport = 1\ndrain_s = 5\nmax_sessions = 7\n[engine]\nname = 'sphinx'\n")
    effective = load(
        path,
        environ={"STREAMSRV_SERVER_PORT": "2", "STREAMSRV_SERVER_DRAIN_S": "6.5", "OTHER": "x"},
        flags={"server.port": "3", "engine.model": None},
    )
    assert effective.settings.server.port == 3
    assert effective.settings.server.drain_s == 6.5
    assert effective.settings.server.max_sessions == 7
    assert effective.settings.engine.name == "sphinx"
    assert effective.sources == {
        "server.port": "command line",
        "server.drain_s": "STREAMSRV_SERVER_DRAIN_S",
        "server.max_sessions": str(path),
        "engine.name": str(path),
    }


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, "[session]\nidle_timeout_s = 5\n")
    assert load(environ={"STREAMSRV_CONFIG": str(path)}).settings.session.idle_timeout_s == 5.0


def test_lists_and_unset_values_in_texts() -> None:
    effective = load(
        environ={
            "STREAMSRV_SERVER_ALLOWED_ORIGINS": " https://a.example , http://b.example:8080,",
            "STREAMSRV_ENGINE_MODEL": "",
            "STREAMSRV_ENGINE_WORKERS": "3",
        }
    )
    assert effective.settings.server.allowed_origins == ("https://a.example", "http://b.example:8080")
    assert effective.settings.engine.model is None
    assert effective.settings.engine.workers == 3


def test_a_wrong_type_names_key_problem_source_and_remedy() -> None:
    failure = refused(environ={"STREAMSRV_SERVER_PORT": "many"})
    assert failure.message == 'server.port = "many" (from STREAMSRV_SERVER_PORT): Expected `int`, got `str`'
    assert failure.hint.startswith("it takes a whole number from 0 to 65535. TCP port to listen on")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.port", "65536"),
        ("server.port", "-1"),
        ("server.max_sessions", "0"),
        ("server.max_sessions", "1e99"),
        ("server.drain_s", "nan"),
        ("server.drain_s", "inf"),
        ("server.log_level", "loud"),
        ("server.log_format", ""),
        ("server.allowed_origins", "https://a.example/path"),
        ("server.allowed_origins", "javascript:x"),
        ("session.idle_timeout_s", "0.5"),
        ("session.max_streams", "65"),
        ("engine.name", "../x"),
        ("engine.workers", "0"),
        ("store.data_dir", ""),
    ],
)
def test_values_out_of_range_are_refused_from_every_source(key: str, value: str) -> None:
    variable = FIELDS[key].variable
    assert key in refused(flags={key: value}).message
    assert variable in refused(environ={variable: value}).message


@pytest.mark.parametrize("text", ['port = "3004"', "port = 3004.5", "port = true", "port = 70000", "port = [1]"])
def test_the_file_is_read_strictly(tmp_path: Path, text: str) -> None:
    assert "server.port" in refused(path=toml(tmp_path, f"[server]\n{text}\n")).message


@pytest.mark.parametrize("text", ["[sever]\nport = 1", "[server]\nprot = 1", "[servers]", "port = 1"])
def test_unknown_keys_of_the_file_are_refused(tmp_path: Path, text: str) -> None:
    failure = refused(path=toml(tmp_path, text))
    assert "is no setting" in failure.message
    assert "streamsrv config example" in failure.hint


def test_a_misspelt_variable_is_refused_with_the_nearest() -> None:
    failure = refused(environ={"STREAMSRV_SEVER_PORT": "1"})
    assert failure.message == "STREAMSRV_SEVER_PORT (from the environment) is no setting"
    assert failure.hint.startswith("did you mean STREAMSRV_SERVER_PORT?")


def test_an_unknown_flag_is_refused() -> None:
    assert "did you mean server.port?" in refused(flags={"server.prot": 1}).hint


def test_service_links_of_kubernetes_are_not_ours() -> None:
    links = {
        "STREAMSRV_SERVICE_HOST": "10.0.0.1",
        "STREAMSRV_SERVICE_PORT_HTTP": "80",
        "STREAMSRV_PORT": "tcp://10.0.0.1:80",
        "STREAMSRV_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ=links).settings == Settings()
    assert "enableServiceLinks" in refused(environ={"STREAMSRV_SERVER_PORT": "tcp://10.0.0.1:80"}).hint


@pytest.mark.parametrize("text", ["[server\n", "\ufffd\x00", "port = "])
def test_a_file_that_is_not_toml(tmp_path: Path, text: str) -> None:
    assert "is not TOML" in refused(path=toml(tmp_path, text)).message


def test_a_file_that_is_not_there_or_far_too_large(tmp_path: Path) -> None:
    assert "cannot be read" in refused(path=tmp_path / "nothing.toml").message
    assert "larger than" in refused(path=toml(tmp_path, "#" * (settings.MAX_FILE_BYTES + 1))).message


class TestTheDoor:
    KEY = "a-long-enough-key"

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]"])
    def test_loopback_needs_no_keys(self, host: str) -> None:
        assert load(environ={}, flags={"server.host": host}).settings.server.host == host

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", "localhost.evil.example"])
    def test_the_world_does(self, host: str) -> None:
        failure = refused(flags={"server.host": host})
        assert "there are no API keys" in failure.message
        assert "STREAMSRV_SERVER_API_KEYS" in failure.hint
        keys = {"STREAMSRV_SERVER_API_KEYS": self.KEY}
        assert load(environ=keys, flags={"server.host": host}).settings.server.api_keys == (self.KEY,)

    @pytest.mark.parametrize("keys", ["short", "has a space in it", "x" * 257, "näive-key-1234"])
    def test_bad_keys_are_refused_and_not_shown(self, keys: str) -> None:
        failure = refused(environ={"STREAMSRV_SERVER_API_KEYS": keys})
        assert keys not in failure.message + failure.hint

    def test_keys_are_never_shown(self) -> None:
        effective = load(environ={"STREAMSRV_SERVER_API_KEYS": f"{self.KEY},{self.KEY}2"})
        assert self.KEY not in settings.show(effective)
        assert "# api_keys: 2 given, not shown" in settings.show(effective)


def test_the_example_reads_back_as_exactly_the_defaults(tmp_path: Path) -> None:
    text = settings.example()
    effective = load(toml(tmp_path, text), environ={})
    assert effective.settings == Settings()
    given = {f"{room}.{name}" for room, table in tomllib.loads(text).items() for name in table}
    assert given == {key for key, field in FIELDS.items() if field.default is not None}
    assert all(field.variable in text and field.description in text for field in FIELDS.values())


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    effective = load(environ={}, flags={"server.port": 3010, "engine.workers": "2", "store.data_dir": 'a "b" \\ ü'})
    text = settings.show(effective)
    assert "port = 3010 " in text
    assert "# command line" in text
    assert load(toml(tmp_path, text), environ={}).settings == effective.settings


def test_every_field_is_documented_and_bounded() -> None:
    for key, field in FIELDS.items():
        assert field.description.endswith("."), key
        assert field.default is not msgspec.NODEFAULT, key
        assert field.takes() != "a number", f"{key} has no range"
        assert field.takes() != "a whole number", f"{key} has no range"


def test_every_default_is_in_its_own_range() -> None:
    for key, field in FIELDS.items():
        assert msgspec.convert(field.default, field.kind) == field.default, key


def test_names_of_variables_are_unambiguous() -> None:
    assert len({field.variable for field in FIELDS.values()}) == len(FIELDS)


@given(st.sampled_from(sorted(FIELDS)), st.text(max_size=40))
def test_no_text_is_taken_that_its_type_does_not_allow(key: str, text: str) -> None:
    field = FIELDS[key]
    with contextlib.suppress(SetupError):
        effective = load(environ={}, flags={"server.api_keys": "a-long-enough-key"} | {key: text})
        room, _, name = key.partition(".")
        value = getattr(getattr(effective.settings, room), name)
        assert msgspec.convert(value, field.kind) == value


def test_reading_settings_loads_no_heavy_library() -> None:
    """``streamsrv config show`` answers at once, and an engine that is not installed is no hindrance."""
    heavy = {"aiohttp", "numpy", "soundfile", "soxr", "webrtcvad", "pocketsphinx", "streamsrv._native.ring"}
    code = "import streamsrv.settings, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert heavy.isdisjoint(done.stdout.split())
