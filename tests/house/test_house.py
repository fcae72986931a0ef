"""Rules of the house that no linter holds: sizes, names, and what a file may say about its makers' machines."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 400
LONGEST_FUNCTION = 40
LOOKED_AT: dict[str, str] = {}
"""Files and ``file:function`` somebody looked at again and kept whole, each with the reason."""
PYTHON = sorted((ROOT / "streamsrv").rglob("*.py"))
BODIES = sorted((ROOT / "native").glob("*.pyx"))
SERVICES = {"aiokafka", "confluent_kafka", "playwright", "pymongo", "redis"}
"""What ``make test`` does not install."""
WRITTEN = {".py", ".pyi", ".pyx", ".pxd", ".toml", ".md", ".txt", ".c", ".sh", ".yaml", ".yml", ".json", ".jsonl", ""}
"""Endings of files people write; an empty one is a script or a Dockerfile."""
BUILT = {".git", ".venv", "build", "dist", "data", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
# A path of somebody's machine, or a package index: none belongs into the repository.
FOREIGN = re.compile(
    r"/(?:home|root|Users)/\w|/work/\w|--(?:extra-)?index-url|--find-links|(?:pypi|index)\.[\w.]+/simple"
)

TIMES_OF_DAY = {
    *(("time", name) for name in ("time", "time_ns", "localtime", "gmtime")),
    *((kind, name) for kind in ("datetime", "datetime.datetime") for name in ("now", "utcnow", "today")),
    *((kind, "today") for kind in ("date", "datetime.date")),
}
WALL_CLOCKS = {
    "cli/stream.py": ["_new_interview now"],  # a name for an interview
    "runtime/alone.py": ["_job time_ns"],  # when a file came
    "runtime/outbox.py": ["__init__ time_ns"],  # how far sinks are behind; where the numbers of leases begin
    "runtime/spool.py": ["__init__ time_ns"],  # when finals were spooled
    "runtime/streams.py": ["utc_ms time_ns"],  # when streams began and ended; anchors; what is old enough to go
    "sinks/webhook/__init__.py": ["__init__ time"],  # signatures
    "stores/mongo/nodes.py": ["beat time_ns", "give_up time_ns"],  # for people to read
    "stores/mongo/store.py": ["_now_ms time_ns"],  # when something was stored; leases of long ago
    "stores/sqlite/lock.py": ["acquire now"],  # for people to read
    "stores/sqlite/store.py": ["_now_ms time_ns"],  # when something was stored
    "telemetry.py": ["__init__ time"],  # lines of the log
}
"""Whoever may read the time of day, and what for.  It jumps (row 65): what waits, expires or has an order goes by the
monotonic clock, by positions or by numbers of the store."""


@cache
def text_of(path: Path) -> str:
    """A file as it is; many tests look at it, one reads it."""
    return path.read_text("utf-8", errors="replace")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def written() -> list[Path]:
    """Every file of the repository that a person wrote."""
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and path.suffix in WRITTEN
        and not BUILT.intersection(path.relative_to(ROOT).parts)
        and not any(part.endswith(".egg-info") or part.startswith(".venv") for part in path.parts)
    )


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def wall_clocks(path: Path) -> Counter[str]:
    """Who reads the time of day, and by what: ``function time_ns``, the innermost function's name."""
    found: Counter[str] = Counter()

    def look(node: ast.AST, where: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where = node.name
        if isinstance(node, ast.Attribute) and (ast.unparse(node.value), node.attr) in TIMES_OF_DAY:
            found[f"{where} {node.attr}"] += 1
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found.update(f"import {alias.name}" for alias in node.names if alias.name in ("time", "time_ns"))
        for child in ast.iter_child_nodes(node):
            look(child, where)

    look(tree_of(path), "module")
    return found


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, to the depth of the room: ``streamsrv.events``."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found.update(".".join(name.split(".")[:2]) for name in names if name.split(".")[0] == "streamsrv")
    return found


@pytest.mark.parametrize("path", PYTHON + BODIES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_readable(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    assert len(text_of(path).splitlines()) <= LONGEST_FILE or name in LOOKED_AT


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_stay_readable(path: Path) -> None:
    for node in functions(path):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        place = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
        # `__init__` of a registry is a list, not a train of thought.
        assert length <= LONGEST_FUNCTION or node.name == "__init__" or place in LOOKED_AT, f"{place}: {length} lines"


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree) or not tree.body, "a module begins with a sentence on what it is"


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_control_flow_does_not_hang_on_assert(path: Path) -> None:
    """``python -O`` drops asserts; the program must behave the same without.  ``assert X is not None`` only tells the
    type checker what the next line would find out anyway."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):
            assert re.fullmatch(r"[\w.]+ is not None", ast.unparse(node.test)), f"{path.name}:{node.lineno}"


def test_few_read_the_time_of_day() -> None:
    """And nothing waits or expires by it: see ``WALL_CLOCKS``, and tests/adversity/test_clock.py."""
    found = {
        path.relative_to(ROOT / "streamsrv").as_posix(): sorted(readings.elements())
        for path in PYTHON
        if (readings := wall_clocks(path))
    }
    assert found == WALL_CLOCKS


def test_the_session_imports_only_commands_events_facts_errors() -> None:
    allowed = {f"streamsrv.{room}" for room in ("session", "commands", "events", "facts", "errors")}
    for path in sorted((ROOT / "streamsrv" / "session").glob("*.py")):
        assert imports(path) <= allowed, f"{path.name}: {imports(path) - allowed}"


@pytest.mark.parametrize("room", ["telemetry", "errors"])
def test_telemetry_and_errors_import_nothing_of_ours(room: str) -> None:
    assert imports(ROOT / "streamsrv" / f"{room}.py") == set()


def test_the_suite_is_collected_without_what_only_services_need() -> None:
    """A test that needs more skips itself with ``pytest.importorskip``; what it stands on imports late."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if "services" in path.relative_to(ROOT / "tests").parts or "pytest.importorskip(" in text_of(path):
            continue
        for node in tree_of(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            needs = {name.split(".")[0] for name in names} & SERVICES
            assert not needs, f"{path.relative_to(ROOT)}: {needs}"


def test_no_file_speaks_of_its_makers_machines() -> None:
    guilty = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in written()
        if path != Path(__file__) and (found := FOREIGN.search(text_of(path)))
    ]
    assert guilty == []


def test_nothing_is_left_undone() -> None:
    word = "TO" + "DO"
    guilty = [path for path in written() if re.search(rf"\b({word}|FIX" + r"ME|XX" + r"X)\b", text_of(path))]
    assert guilty == []


def test_verbs_of_the_makefile_are_explained() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", text, re.M)
    assert phony is not None
    for verb in phony[1].split():
        assert re.search(rf"^{verb}:.*## \w", text, re.M), f"make {verb} is not explained"
