"""Verbs that work on files: transcribe, backup, restore, completion, models."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import soundfile

from streamsrv.cli import main
from streamsrv.cli.progress import Bar
from streamsrv.commands import Options
from streamsrv.events import Final
from streamsrv.stores.base import StreamKey
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.engines.hearing import word_errors

SPEECH = Path(__file__).parents[1] / "data" / "speech"


# --- transcribe ---------------------------------------------------------------------------------------------------


@pytest.mark.speech
def test_a_file_is_transcribed_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, rate = soundfile.read(SPEECH / "austen-0870.flac")
    soundfile.write(tmp_path / "talk.ogg", samples, rate)
    assert main(["transcribe", str(tmp_path / "talk.ogg"), "--workers", "1"]) == 0
    heard = capsys.readouterr().out.split()
    assert word_errors((SPEECH / "austen-0870.txt").read_text().split(), heard) <= 0.5


@pytest.mark.speech
def test_several_files_go_into_a_folder_and_a_broken_one_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(SPEECH / "austen-0920.flac", tmp_path / "good.flac")
    (tmp_path / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE nothing")
    out = tmp_path / "out"
    wanted = [str(tmp_path / name) for name in ("broken.wav", "missing.mp3", "good.flac")]
    assert main(["transcribe", *wanted, "--format", "srt", "--out", str(out), "--workers", "1"]) == 1
    told = capsys.readouterr()
    assert [path.name for path in out.iterdir()] == ["good.srt"]
    assert "-->" in (out / "good.srt").read_text()
    assert "broken.wav:\nerror:" in told.err
    assert "missing.mp3 is not a file" in told.err


@pytest.mark.parametrize("name", ["same.flac", "talk.flac"])
def test_no_transcript_is_overwritten(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "talk.txt").write_text("mine")
    wanted = [str(tmp_path / name), str(tmp_path / "same.mp3")]
    assert main(["transcribe", *wanted, "--out", str(tmp_path)]) == 3
    assert "would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "talk.txt").read_text() == "mine"


@pytest.mark.speech
def test_a_recording_that_breaks_off_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (SPEECH / "austen-0920.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    assert main(["transcribe", str(tmp_path / "cut.flac"), "--workers", "1"]) == 1
    told = capsys.readouterr()
    assert told.out.strip()
    assert "cut.flac: " in told.err


def test_several_files_want_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "a.wav", "b.wav"]) == 3
    assert "--out" in capsys.readouterr().err


# --- backup and restore -------------------------------------------------------------------------------------------


async def fill(folder: Path, *, server: bool = True) -> SqliteStore:
    """A data directory with one final, still open."""
    store = SqliteStore(SqliteSettings(data_dir=str(folder)), server=server)
    await store.open()
    await store.begin_stream(
        interview="i-1", stream="s-1", token_hash=b"t" * 32, options=Options(), engine="none", now_ms=1
    )
    final = Final(
        channel=0, utterance=0, segment=0, start=0, stop=16_000, text="kept", cause="vad", endpoint=True, engine="none"
    )
    await store.keep_final(StreamKey(interview="i-1", stream="s-1", epoch=1), final)
    return store


async def read(folder: Path) -> list[str]:
    store = SqliteStore(SqliteSettings(data_dir=str(folder)), server=False)
    await store.open()
    texts = [kept.final.text for kept in await store.finals("i-1")]
    await store.close()
    return texts


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob("*.part"))


async def test_a_backup_beside_a_running_server_restores_every_final_and_file(tmp_path: Path) -> None:
    data, archive, again = tmp_path / "data", tmp_path / "all.tar.gz", tmp_path / "again"
    store = await fill(data)
    (data / "recordings" / "abc").mkdir(parents=True)
    (data / "recordings" / "abc" / "s-1.flac").write_bytes(b"fLaC")
    assert main(["backup", str(archive), "--data-dir", str(data)]) == 0
    await store.close()
    assert mode(archive) == 0o600
    assert main(["restore", str(archive), "--data-dir", str(again)]) == 0
    assert await read(again) == ["kept"]
    assert (again / "recordings" / "abc" / "s-1.flac").read_bytes() == b"fLaC"
    assert leftovers(tmp_path) == []
    folders = {path.relative_to(again).as_posix(): mode(path) for path in again.rglob("*") if path.is_dir()}
    assert folders == {"recordings": 0o700, "recordings/abc": 0o700}
    files = {path.name: mode(path) for path in again.rglob("*") if path.is_file() and path.name != "streamsrv.lock"}
    assert set(files.values()) == {0o600}, files
    assert mode(again) == 0o700


async def test_nothing_is_ever_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, archive = tmp_path / "data", tmp_path / "all.tar.gz"
    store = await fill(data)
    assert main(["backup", str(archive), "--data-dir", str(data)]) == 0
    assert main(["backup", str(archive), "--data-dir", str(data)]) == 3
    assert "exists already" in capsys.readouterr().err
    assert main(["restore", str(archive), "--data-dir", str(data)]) == 3
    await store.close()
    assert main(["restore", str(archive), "--data-dir", str(data)]) == 3
    assert "holds a database already" in capsys.readouterr().err
    assert await read(data) == ["kept"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "recordings/../../outside", "other.txt"])
async def test_a_foreign_archive_puts_nothing_in_place(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, archive, again = tmp_path / "data", tmp_path / "all.tar.gz", tmp_path / "again"
    await (await fill(data)).close()
    (tmp_path / "evil").write_text("evil")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(data / "streamsrv.db", arcname="streamsrv.db")
        tar.add(tmp_path / "evil", arcname=name)
    assert main(["restore", str(archive), "--data-dir", str(again)]) == 3
    assert not (again / "streamsrv.db").exists()
    assert not (tmp_path / "outside").exists()
    assert "remedy" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b\x08\0\0\0\0\0"])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tar.gz").write_bytes(content)
    assert main(["restore", str(tmp_path / "x.tar.gz"), "--data-dir", str(tmp_path / "d")]) == 3
    assert "could not be restored" in capsys.readouterr().err


def test_there_must_be_something_to_back_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", str(tmp_path / "x.tar.gz"), "--data-dir", str(tmp_path)]) == 3
    assert "--data-dir" in capsys.readouterr().err


# --- the rest -----------------------------------------------------------------------------------------------------


def test_bash_takes_its_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "transcribe" in script
    assert "_shtab_compgen_files" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)


def test_models_list_names_the_embedded_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert main(["models", "list"]) == 0
    told = capsys.readouterr().out
    assert "sphinx" in told
    assert str(tmp_path) in told


def test_models_list_names_what_download_fetched_from_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    for file in ("model.bin", "tokenizer.json", "vocabulary.txt"):
        (folder / file).touch()
    (folder / "config.json").write_text('{"suppress_ids": []}')
    assert main(["models", "list"]) == 0
    told = capsys.readouterr().out
    assert "owner/name" in told
    assert str(folder) in told


class Terminal:
    def __init__(self) -> None:
        self.shown = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.shown += text

    def flush(self) -> None:
        pass


def test_a_bar_shows_how_far_it_is_and_goes_away() -> None:
    terminal = Terminal()
    bar = Bar(terminal)  # type: ignore[arg-type]
    bar.show("talk.wav", 30, 60)
    assert "[###############...............]  50%" in terminal.shown
    bar.clear()
    assert terminal.shown.endswith("\r\x1b[2K")
