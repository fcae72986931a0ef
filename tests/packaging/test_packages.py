"""The sdist and the wheel: built as a stranger builds them, opened, installed into a fresh environment, run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = sorted(path.stem for path in (ROOT / "native").glob("*.pyx"))
LEFT_BEHIND = shutil.ignore_patterns(
    ".*", "build", "dist", "data", "*.egg-info", "__pycache__", "*.so", "tests", "benchmarks", "results"
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMSRV_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=clean | (env or {}), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it (so the sdist is complete)."""
    top = tmp_path_factory.mktemp("packages")
    shutil.copytree(ROOT, top / "source", ignore=LEFT_BEHIND)
    # The bodies compile without optimisation here: what is tested is the packing, and that takes half the time.
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        "../dist",
        ".",
        cwd=top / "source",
        env={"CFLAGS": "-O0"},
    )
    return top / "dist"


@pytest.fixture(scope="module")
def sdist(built: Path) -> set[str]:
    """Names in the sdist, without the folder at its top."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        return {name.partition("/")[2] for name in opened.getnames()}


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    (archive,) = built.glob("*.whl")
    return set(zipfile.ZipFile(archive).namelist())


def package_files() -> set[str]:
    """What the package consists of in the checkout, without what the build leaves there."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "streamsrv").rglob("*")
        if path.is_file() and path.suffix not in {".so", ".pyc", ".c"}
    }


def test_the_sdist_holds_all_sources_and_nothing_made_from_them(sdist: set[str]) -> None:
    assert package_files() <= sdist
    assert {f"native/{name}.pyx" for name in NATIVE} <= sdist
    assert {"pyproject.toml", "setup.py", "LICENSE", "README.md", "constraints/py311.txt"} <= sdist
    assert not [name for name in sdist if name.endswith((".so", ".pyc")) or (name.endswith(".c") and "native" in name)]
    assert not [name for name in sdist if name.startswith(("tests/", "benchmarks/", "build/", "data/", ".venv/"))]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: set[str]) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiled = {f"streamsrv/_native/{name}{suffix}" for name in NATIVE}
    plain = {name for name in wheel if ".dist-info/" not in name}
    assert plain == package_files() | compiled
    assert {"streamsrv/py.typed", *(f"streamsrv/_native/{name}.pyi" for name in NATIVE)} <= wheel
    assert not [name for name in wheel if name.endswith((".c", ".pyx"))]
    assert [name for name in wheel if name.endswith(".dist-info/licenses/LICENSE")]


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment that holds our wheel; its dependencies are read from the one tests run in."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=built)
    (wheel_path,) = built.glob("*.whl")
    python = home / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel_path,
        cwd=built,
    )
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "dependencies.pth").write_text("\n".join(sorted(paths)) + "\n", "utf-8")
    return home / "bin"


def test_the_wheel_installs_and_its_command_answers(fresh: Path, tmp_path: Path) -> None:
    said = run(fresh / "streamsrv", "--help", cwd=tmp_path)
    assert "serve" in said


@pytest.mark.parametrize("name", NATIVE)
def test_compiled_modules_load_from_the_wheel(fresh: Path, tmp_path: Path, name: str) -> None:
    said = run(fresh / "python", "-c", f"import streamsrv._native.{name} as it; print(it.__file__)", cwd=tmp_path)
    assert Path(said.strip()).is_relative_to(fresh.parent)
    assert said.strip().endswith(".so")
