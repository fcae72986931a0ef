"""Whisper from disk into memory; whatever prevents it is a ``SetupError`` with the remedy.  Never a download."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from streamsrv.engines._whisper import catalogue
from streamsrv.engines._whisper.model import Core, Encoded, Floats, Tongue
from streamsrv.engines._whisper.settings import WhisperSettings
from streamsrv.engines._whisper.tongue import Vocabulary
from streamsrv.errors import SetupError

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

MOST_WORKERS: Final = 8
"""Batches computed at once on a CPU.  Two workers with a thread each beat one worker with two threads by far (16
windows of 5 s with tiny.en on two busy cores: 250 ms against 600), because threads of one batch wait for each other."""

GPU_WORKERS: Final = 2
"""Batches computed at once on each GPU: while it computes one, the audio of the other is made ready and its words are
placed.  With turbo on an H200 that was 1.5 of the 4 ms of a window of 5 s."""

STANDS_BACK: Final = 5
"""Priority (nice) of the threads that compute.  They fill the cores; the event loop, which needs a core for moments,
must not stand in line behind them."""


class Model:
    """See ``model.Loaded``."""

    def __init__(self, whisper: WhisperModel, folder: Path, sharing: int) -> None:
        self.whisper = whisper
        self.sharing = sharing
        """Workers on each device that share its time; each of a CPU's has cores of its own."""
        self._tongues: dict[tuple[str, str], Tongue] = {}
        self.folder = folder
        self.core: Core = whisper.model
        self.filters: Floats = np.ascontiguousarray(whisper.feature_extractor.mel_filters, np.float32)
        self.languages = frozenset(whisper.supported_languages)
        self.first_language = "en" if "en" in self.languages else min(self.languages)

    @property
    def name(self) -> str:
        """Folder name, as people read it."""
        return catalogue.title(self.folder)

    def tongue(self, language: str, task: str) -> Tongue:
        """The vocabulary for a language and a task; at most 200 of them are made."""
        known = self._tongues.get((language, task))
        if known is None:
            known = self._tongues[language, task] = _tongue(self.whisper, language, task)
        return known

    def store(self, features: Floats) -> Encoded:
        import ctranslate2

        return Encoded(ctranslate2.StorageView.from_array(features))

    def floats(self, encoded: Encoded) -> Floats:
        return np.asarray(encoded, np.float32)


def _tongue(whisper: WhisperModel, language: str, task: str) -> Tongue:
    from faster_whisper.tokenizer import Tokenizer

    return Vocabulary(Tokenizer(whisper.hf_tokenizer, whisper.model.is_multilingual, task=task, language=language))


def load(settings: WhisperSettings) -> Model:
    """Find, check and load the model.  Blocks for seconds.

    Raises:
        SetupError: it cannot be loaded here; the hint holds the remedy.
    """
    if find_spec("faster_whisper") is None:
        raise SetupError("the engine 'whisper' needs the package faster-whisper", hint=catalogue.INSTALL)
    folder = locate(settings.model)
    catalogue.check(folder)
    device, indexes = _device(settings)
    compute = _compute_type(settings.compute_type, device)
    workers, threads = _threads(settings, device, len(indexes))
    from faster_whisper import WhisperModel

    try:
        whisper = WhisperModel(
            str(folder),
            device=device,
            device_index=list(indexes),
            compute_type=compute,
            cpu_threads=threads,
            num_workers=workers,
            local_files_only=True,
        )
    except MemoryError as failure:
        raise _too_large(folder) from failure
    # Whatever the libraries below raise about a file they cannot read: they use no type of their own.
    except Exception as failure:
        raise _unreadable(folder, failure) from failure
    _check_features(whisper, folder)
    return Model(whisper, folder, workers if device != "cpu" else 1)


def standing_back(job: Callable[[], Model]) -> Future[Model]:
    """Do ``job`` in a thread of low priority, which the threads that it starts inherit."""
    done: Future[Model] = Future()

    def work() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + STANDS_BACK)
            done.set_result(job())
        except BaseException as failure:  # whatever it is, it is told where the model is waited for
            done.set_exception(failure)

    threading.Thread(target=work, name="whisper-loading", daemon=True).start()
    return done


def locate(model: str | None) -> Path:
    """The folder of a model: a path, a name that is on this disk, or the best that is.

    Raises:
        SetupError: there is none.
    """
    if model is None:
        best = catalogue.best()
        if best is None:
            raise SetupError(
                "no Whisper model is on this disk",
                hint="run: streamsrv models download small (or name a folder with --model)",
            )
        return best.folder
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if catalogue.known(model):
        return catalogue.find(model)
    raise SetupError(
        f"there is no folder '{model}' and no Whisper model of that name",
        hint=f"name the folder of a CTranslate2 model, or one of: {', '.join(catalogue.NAMES)}",
    )


def _device(settings: WhisperSettings) -> tuple[str, tuple[int, ...]]:
    import ctranslate2

    kind, _, number = settings.device.partition(":")
    if kind == "cpu":
        return "cpu", (0,)
    gpus = ctranslate2.get_cuda_device_count()
    if kind == "auto" and not gpus:
        return "cpu", (0,)
    indexes = (int(number),) if number else settings.device_index or (0,)
    if not gpus:
        raise SetupError("no CUDA GPU is usable here", hint="use --device cpu, or see whether nvidia-smi lists one")
    if max(indexes) >= gpus:
        raise SetupError(f"GPU {max(indexes)} is not among the {gpus} here", hint=f"name 0 to {gpus - 1}")
    return "cuda", indexes


def _compute_type(wanted: str, device: str) -> str:
    import ctranslate2

    usable = sorted(ctranslate2.get_supported_compute_types(device))
    if wanted == "default":
        best = "int8" if device == "cpu" else "float16"
        return best if best in usable else "default"
    if wanted not in (*usable, "auto"):
        raise SetupError(
            f"compute_type '{wanted}' does not work on this {device}", hint=f"it takes: default, {', '.join(usable)}"
        )
    return wanted


def _threads(settings: WhisperSettings, device: str, gpus: int) -> tuple[int, int]:
    """Workers on each device, and threads of each on a CPU."""
    cores = len(os.sched_getaffinity(0))
    if device != "cpu":
        return max(1, (settings.num_workers or GPU_WORKERS * gpus) // gpus), 1
    workers = settings.num_workers or min(cores, MOST_WORKERS)
    return workers, settings.cpu_threads or max(1, cores // workers)


def _check_features(whisper: WhisperModel, folder: Path) -> None:
    extractor = whisper.feature_extractor
    layout = (extractor.sampling_rate, extractor.n_fft, extractor.hop_length, len(extractor.mel_filters))
    wanted = (16_000, 400, 160, whisper.model.n_mels)
    if layout != wanted:
        raise SetupError(
            f"'{folder}' wants other features than Whisper's: (rate, window, hop, bands) = {layout}, not {wanted}",
            hint="see its preprocessor_config.json; large-v3 and turbo need feature_size 128, all others 80",
        )


def out_of_memory(failure: Exception) -> bool:
    """Whether a library says that memory ran out; neither has a type of its own for it."""
    return isinstance(failure, MemoryError) or "out of memory" in str(failure).lower()


def explained(failure: Exception, folder: Path) -> SetupError:
    """What a failure while loading or warming up means."""
    said = str(failure)
    if out_of_memory(failure):
        return _too_large(folder)
    if "library" in said.lower() and ("not found" in said or "cannot be loaded" in said):
        return SetupError(
            f"CTranslate2 misses a CUDA library: {said}",
            hint="run: pip install nvidia-cublas-cu12 (for libcudnn: nvidia-cudnn-cu12), and put the folder on "
            "LD_LIBRARY_PATH; CUDA 13's libcublas does under the name libcublas.so.12, see docs/engines.md",
        )
    return _unreadable(folder, failure)


def _unreadable(folder: Path, failure: Exception) -> SetupError:
    if out_of_memory(failure):
        return _too_large(folder)
    return SetupError(
        f"the model in '{folder}' cannot be loaded: {failure}",
        hint="the files may be damaged or of another kind: download or convert the model again",
    )


def _too_large(folder: Path) -> SetupError:
    size = (folder / "model.bin").stat().st_size / 1e6
    return SetupError(
        f"not enough memory for '{folder}' ({size:.0f} MB on disk)",
        hint="choose a smaller model, --compute-type int8, fewer workers, or another device",
    )
