"""What prevents Whisper from starting is said at the start, with the remedy; what it says about itself when it runs."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from streamsrv.engines._whisper import loading
from streamsrv.engines.whisper import WhisperEngine, WhisperSettings
from streamsrv.errors import EngineBusy, SetupError
from tests.engines.whisper.asking import ends_at_start, said, window
from tests.engines.whisper.conftest import Begin
from tests.models import tone


async def refused(**settings: object) -> SetupError:
    """Why an engine with these settings does not start."""
    engine = WhisperEngine(WhisperSettings(**settings))  # type: ignore[arg-type]
    with pytest.raises(SetupError) as failure:
        await engine.start()
    assert not engine.healthy
    assert failure.value.hint
    await engine.close()
    return failure.value


async def test_a_wrong_folder(tmp_path: Path) -> None:
    error = await refused(model=str(tmp_path / "nowhere"), device="cpu")
    assert "there is no folder" in error.message
    assert "large-v3" in error.hint


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"])
async def test_a_folder_that_lacks_a_file(tones: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tones, tmp_path / "model"))
    (folder / name).unlink()
    assert f"{name} missing" in (await refused(model=str(folder), device="cpu")).message


@pytest.mark.parametrize("keep", [0, 10, 5_000, -1])
async def test_a_damaged_model(tones: Path, tmp_path: Path, keep: int) -> None:
    folder = Path(shutil.copytree(tones, tmp_path / "model"))
    whole = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(whole[:keep])
    error = await refused(model=str(folder), device="cpu")
    assert "cannot be loaded" in error.message
    assert "damaged" in error.hint


@pytest.mark.parametrize(("name", "text"), [("tokenizer.json", "{"), ("config.json", "["), ("vocabulary.json", "{}")])
async def test_damaged_pages_of_a_model(tones: Path, tmp_path: Path, name: str, text: str) -> None:
    folder = Path(shutil.copytree(tones, tmp_path / "model"))
    (folder / name).write_text(text)
    assert "cannot be loaded" in (await refused(model=str(folder), device="cpu")).message


@pytest.mark.parametrize("damaged", ["model.bin", "tokenizer.json", None])
def test_a_server_whose_model_is_broken_ends_with_3(tones: Path, tmp_path: Path, damaged: str | None) -> None:
    folder = Path(shutil.copytree(tones, tmp_path / "model"))
    if damaged is None:
        (folder / "vocabulary.json").unlink()
    else:
        (folder / damaged).write_bytes((folder / damaged).read_bytes()[:10])
    done = ends_at_start(folder, tmp_path, device="cpu")
    assert done.returncode == 3, done.stderr
    error, remedy = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert str(folder) in error
    assert remedy.startswith("remedy: ")
    assert "Traceback" not in done.stdout
    assert "server.ready" not in done.stdout


async def test_features_of_another_kind(tones: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tones, tmp_path / "model"))
    (folder / "preprocessor_config.json").write_text('{"feature_size": 128}')
    assert "wants other features" in (await refused(model=str(folder), device="cpu")).message


async def test_no_gpu(tones: Path) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        error = await refused(model=str(tones), device="cuda:63")
        assert "not among" in error.message
    else:
        error = await refused(model=str(tones), device="cuda")
        assert "no CUDA GPU" in error.message
        assert "--device cpu" in error.hint


async def test_a_precision_that_does_not_work_here(tones: Path) -> None:
    error = await refused(model=str(tones), device="cpu", compute_type="float7")
    assert "float7" in error.message
    assert "int8" in error.hint


def test_what_libraries_say_becomes_what_to_do(tones: Path) -> None:
    missing = loading.explained(RuntimeError("Library libcublas.so.12 is not found or cannot be loaded"), tones)
    assert "nvidia-cublas-cu12" in missing.hint
    large = loading.explained(RuntimeError("CUDA failed with error out of memory"), tones)
    assert "smaller model" in large.hint
    assert "not enough memory" in large.message
    assert "damaged" in loading.explained(ValueError("unexpected"), tones).hint


async def test_nothing_is_fetched_unless_told(
    monkeypatch: pytest.MonkeyPatch, tones: Path, begin: Begin, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the engine talked to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert said(await begin(tones), tone.sound(["one"])) == ["one"]
    assert "not on this disk" in (await refused(model="tiny.en", device="cpu")).message


async def test_threads_that_compute_stand_back_behind_the_event_loop(begin: Begin, tones: Path) -> None:
    await begin(tones, num_workers=2)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    behind = [os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")]
    assert behind.count(ours + loading.STANDS_BACK) >= 2


def test_finals_hear_their_whole_segment_where_that_is_worth_it() -> None:
    assert not WhisperEngine(WhisperSettings()).abilities.whole_finals
    assert WhisperEngine(WhisperSettings(final_window="full")).abilities.whole_finals
    assert WhisperEngine(WhisperSettings(final_window="full")).abilities.final_floor_s == 30
    assert WhisperEngine(WhisperSettings(partial_words="estimated")).abilities.whole_finals


async def test_it_says_what_it_is(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, window_floor_s=5)
    about = engine.about
    assert (about.name, about.model, about.device) == ("whisper", "tone", "cpu, int8_float32")
    assert "5 s" in about.note
    assert engine.healthy
    assert not engine.abilities.live
    assert engine.abilities.prefix
    assert engine.abilities.batch == 8


async def test_after_closing_it_is_not_there(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    asked = window(engine, tone.sound(["one"]))
    asked.attention.close()
    asked.attention.close()
    await engine.close()
    assert not engine.healthy
    with pytest.raises(EngineBusy):
        engine.hear([asked])


def test_before_it_starts_it_can_be_asked_about() -> None:
    engine = WhisperEngine(WhisperSettings(model="small"))
    assert engine.about.model == "small"
    assert engine.abilities.languages is None
    assert not engine.healthy
