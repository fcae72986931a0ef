"""Models by name: what lies on the disk, and how one gets there from a hub of our own."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsrv.engines._whisper import catalogue, loading
from streamsrv.engines._whisper.settings import WhisperSettings
from streamsrv.errors import SetupError
from streamsrv.runtime.engines import make_engine

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = os.urandom(300_000)
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "vocabulary.json": b"[]",
    "model.bin": WEIGHTS,
    "README.md": b"not wanted",
}


def etag(name: str) -> str:
    data = FILES[name]
    if name == "model.bin":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """What the client asks of the hub, for one repository; may break off, or send nonsense."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.break_after: int | None = None
        self.damaged = False
        self.ranges: list[str] = []
        self.asked: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/api/models/Systran/faster-whisper-tiny"):
            self._json()
        else:
            self._file(body=True)

    def _json(self) -> None:
        if "/tree/" in self.path:
            lfs = {"oid": etag("model.bin"), "size": len(WEIGHTS), "pointerSize": 1}
            answer: object = [
                {"type": "file", "path": name, "size": len(data), "oid": etag(name)[:40]}
                | ({"lfs": lfs} if name == "model.bin" else {})
                for name, data in FILES.items()
            ]
        else:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            answer = {"id": "Systran/faster-whisper-tiny", "sha": COMMIT, "siblings": siblings, "private": False}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, *, body: bool) -> None:
        name = self.path.rpartition("/")[2]
        if name not in FILES or "faster-whisper-tiny/" not in self.path:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        data, status = FILES[name], 200
        headers = {"ETag": f'"{etag(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked and body:
            self.server.ranges.append(asked)
            first = int(asked.partition("=")[2].partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            data, status = data[first:], 206
        if self.server.damaged and name == "model.bin":
            data = bytes(len(data))
        self._send(status, data, headers, body=body, name=name)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool = True, name: str = "") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        if name == "model.bin" and self.server.break_after is not None:
            self.wfile.write(data[: self.server.break_after])
            self.server.break_after = None
            self.close_connection = True
            return
        self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, name: str, *, without: str = "") -> Path:
    repository = catalogue.REPOSITORIES.get(name, name)
    folder = cache / ("models--" + repository.replace("/", "--")) / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    for file, data in FILES.items():
        if file != without:
            (folder / file).write_bytes(data)
    return folder


def test_what_is_on_the_disk(cache: Path) -> None:
    assert catalogue.installed() == []
    assert catalogue.best() is None
    small, tiny = put(cache, "small"), put(cache, "tiny.en")
    put(cache, "medium", without="model.bin")
    entries = catalogue.installed()
    assert [(entry.name, entry.folder) for entry in entries] == [("tiny.en", tiny), ("small", small)]
    assert entries[0].size_bytes == sum(map(len, FILES.values()))
    best = catalogue.best()
    assert best is not None
    assert best.name == "small"
    assert catalogue.find("tiny.en") == tiny
    assert catalogue.title(tiny) == "tiny.en"
    assert loading.locate(None) == loading.locate("small") == small


def test_the_same_weights_are_listed_once(cache: Path) -> None:
    put(cache, "turbo")
    assert [entry.name for entry in catalogue.installed()] == ["turbo"]
    best = catalogue.best()
    assert best is not None
    assert loading.locate("turbo") == best.folder


def test_a_model_for_english_is_better_than_none(cache: Path) -> None:
    put(cache, "base.en")
    best = catalogue.best()
    assert best is not None
    assert best.name == "base.en"


@pytest.mark.parametrize("name", catalogue.NAMES)
def test_any_model_is_better_than_none(cache: Path, name: str) -> None:
    folder = put(cache, name)
    assert loading.locate(None) == folder


@pytest.mark.parametrize("without", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"])
def test_a_download_that_broke_off_is_no_model_yet(cache: Path, without: str) -> None:
    put(cache, "small", without=without)
    assert catalogue.best() is None
    whole = put(cache, "tiny")
    assert loading.locate(None) == whole
    with pytest.raises(SetupError, match="not on this disk"):
        loading.locate("small")


def test_models_of_others_are_listed_behind_ours(cache: Path) -> None:
    theirs = put(cache, "owner/whisper-of-mine")
    (theirs / "config.json").write_text('{"suppress_ids": []}')
    put(cache, "owner/translator")  # whole, but its config is no Whisper's
    (cache / "models--gpt2").mkdir()
    assert [(entry.name, entry.folder) for entry in catalogue.installed()] == [("owner/whisper-of-mine", theirs)]
    assert catalogue.title(theirs) == "owner/whisper-of-mine"
    assert loading.locate(None) == loading.locate("owner/whisper-of-mine") == theirs
    tiny = put(cache, "tiny")
    assert [entry.name for entry in catalogue.installed()] == ["tiny", "owner/whisper-of-mine"]
    assert loading.locate(None) == tiny


@pytest.mark.parametrize("configured", ["named", "set"])
def test_auto_takes_whisper_when_a_model_is_named(cache: Path, tmp_path: Path, configured: str) -> None:
    folder = str(tmp_path)
    model, whisper = (folder, None) if configured == "named" else (None, WhisperSettings(model=folder))
    engine, _ = make_engine("auto", model=model, device="auto", workers=None, whisper=whisper)
    assert (engine.about.name, engine.about.model) == ("whisper", folder)


def test_the_cache_is_where_others_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert catalogue.cache() == tmp_path / "hub"
    monkeypatch.delenv("HF_HOME")
    assert catalogue.cache() == Path.home() / ".cache/huggingface/hub"


def test_a_name_that_is_not_here_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(SetupError, match="not on this disk") as refused:
        loading.locate("small.en")
    assert refused.value.hint == "run: streamsrv models download small.en"
    with pytest.raises(SetupError, match="not on this disk") as missing:
        loading.locate("some/missing")
    assert missing.value.hint == "run: streamsrv models download some/missing, or name an existing folder"
    with pytest.raises(SetupError, match="no Whisper model of that name") as unknown:
        loading.locate("smal")
    assert "small.en" in unknown.value.hint
    with pytest.raises(SetupError, match="no Whisper model is on this disk"):
        loading.locate(None)


def test_a_download_is_whole_and_counted(hub: Hub) -> None:
    told: list[tuple[int, int]] = []
    folder = catalogue.download("tiny", lambda done, total: told.append((done, total)))
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert not (folder / "README.md").exists()
    total = sum(len(data) for name, data in FILES.items() if name != "README.md")
    assert told[-1] == (total, total)
    assert [entry.folder for entry in catalogue.installed()] == [folder]
    before = list(hub.asked)
    assert catalogue.download("tiny") == folder
    assert not [path for path in hub.asked[len(before) :] if path.endswith("model.bin")], "what is here is not fetched"


def test_a_broken_connection_is_followed_by_another(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.break_after = 100_000
    folder = catalogue.download("tiny")
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert hub.ranges == ["bytes=100000-"], "it went on where it had broken off"


def test_damaged_files_are_found_and_removed(hub: Hub) -> None:
    hub.damaged = True
    with pytest.raises(SetupError, match=r"'model\.bin' arrived damaged"):
        catalogue.download("tiny")
    assert catalogue.installed() == []
    hub.damaged = False
    assert (catalogue.download("tiny") / "model.bin").read_bytes() == WEIGHTS


def test_a_repository_without_a_model_for_ctranslate2(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FILES, "tokenizer.json")
    with pytest.raises(SetupError, match=r"tokenizer\.json missing"):
        catalogue.download("tiny")


def test_a_model_the_hub_does_not_have(hub: Hub) -> None:
    with pytest.raises(SetupError, match="has no model 'Systran/faster-whisper-small'"):
        catalogue.download("small")
    with pytest.raises(SetupError, match="there is no Whisper model 'smal'"):
        catalogue.download("smal")


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("streamsrv.engines._whisper.fetching.TRIES", 1)
    with pytest.raises(SetupError, match=r"cannot be fetched from http://127\.0\.0\.1:9") as refused:
        catalogue.download("tiny")
    assert "HF_ENDPOINT" in refused.value.hint
