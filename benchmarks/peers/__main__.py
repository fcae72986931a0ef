"""The race: ``python -m benchmarks.peers [--peers naive,whisperlive,whisperlivekit --model FOLDER]``.

How many live sessions a server holds with the same model on the same cores, within 1.5, 3, 4, 6 and 10 s from a word's
end to its commit (95th percentile).  Each rival runs for real in an environment of its own, made at the first call; it
and this server take turns, window by window.  The headline is taken at the first limit that the rival holds with one
session.  docs/benchmarks.md says how the rivals are read, and what is done in their favour.

Guards, which alone decide the exit code: every word on streamsrv is right and none is taken back (tones), nobody is
refused while it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import plot, report
from benchmarks.figures import Measured, begin, finish, table
from benchmarks.peers.environments import NotInstalled, default_folder
from benchmarks.peers.racing import LIMITS_S, Plan, Race, race
from benchmarks.peers.rivals import RIVALS, Runner, streamsrv
from benchmarks.peers.running import NotStarted
from benchmarks.peers.speech import Kind

CUT_S = 12.0
"""The plot's top; what is slower is drawn there."""
GOAL = 10.0


@contextmanager
def model_folder(folder: Path | None) -> Iterator[Path]:
    """The one the user names, or a tone Whisper at tiny.en's true size, made for the occasion."""
    if folder is not None:
        yield folder.resolve()
        return
    from tests.models import tone

    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        yield tone.make(Path(place) / "model", size=tone.TINY, quantization="int8", timed=True)


def run(asked: argparse.Namespace, measured: Measured) -> dict[str, Race]:
    """All races, one after the other; figures and guards go into the report."""
    plan = Plan(
        kind=asked.speech,
        seconds=asked.seconds,
        most=asked.windows,
        ours_first=asked.ours_first,
        within_s=asked.within,
    )
    races: dict[str, Race] = {}
    told: dict[str, object] = {}
    with model_folder(asked.model) as model, tempfile.TemporaryDirectory(prefix="bench-") as data:
        for name in asked.peers:
            rival = RIVALS[name](model, asked.environments, voices=plan.kind == "digits")
            ours = streamsrv(model, Path(data) / name)
            print(f"{name} {rival.version}", file=sys.stderr)
            races[name] = asyncio.run(race(rival, ours, plan))
            measured.broken += broken(name, races[name], exact=plan.kind == "tones")
            hidden = {model: "$MODEL", asked.environments: "$ENVIRONMENTS", Path(data): "$DATA"}
            told[name] = {"asked": measured.command} | _about(rival, ours, hidden) | races[name].figures()
    named = "tone, tiny.en's size" if asked.model is None else asked.model.name
    measured.figures = {"model": named, "speech": plan.kind, "limits_s": LIMITS_S, "goal": GOAL, "peers": told}
    return races


def _about(rival: Runner, ours: Runner, hidden: Mapping[Path, str]) -> dict[str, object]:
    commands = {runner.name: runner.told(hidden) for runner in (rival, ours)}
    return {"version": rival.version, "commands": commands}


def broken(name: str, raced: Race, *, exact: bool) -> list[str]:
    """What must not happen to this server's speakers; what happens to the rival's is told in its windows."""
    found: list[str] = []
    for window in raced.ours.windows:
        where = f"against {name}, {window.sessions} sessions"
        if window.taken_back:
            found.append(f"{where}: {window.taken_back} committed words were taken back")
        if exact and window.errors and window.holds(LIMITS_S[-1]):
            found.append(f"{where}: {window.errors} words of {window.said} are wrong")
    return found


# --- telling -----------------------------------------------------------------------------------------------------


def shown(races: dict[str, Race]) -> str:
    """The table for people: sessions held within each limit, rival beside streamsrv in the same run."""
    head = ("sessions held at p95 <=", *(f"{limit:g} s" for limit in LIMITS_S), "wrong words alone", "ratio")
    rows = []
    for name, raced in races.items():
        alone = [window for window in raced.theirs.windows if window.sessions == 1]
        wrong = f"{sum(w.errors for w in alone)} of {sum(w.said for w in alone)}"
        ratio = (
            "-" if raced.ratio is None else f"{'>= ' if raced.at_least else ''}{raced.ratio:g} at {raced.limit_s:g} s"
        )
        rows.append((name, *(str(raced.theirs.held(limit)) for limit in LIMITS_S), wrong, ratio))
        rows.append(("  streamsrv beside it", *(str(raced.ours.held(limit)) for limit in LIMITS_S), "", ""))
    noisy = [
        f"{name}: NOISY, do not quote: others used the cores in {raced.noisy} windows"
        for name, raced in races.items()
        if raced.noisy
    ]
    return "\n".join([table(head, rows), *noisy])


def drawn(peers: Mapping[str, Any], path: Path) -> Path:
    """p95 over sessions, a line for each server, from kept figures.

    Windows in which somebody was refused or cut are left out: fewer were served there than their number says.
    """
    sides = {"streamsrv": [window for figures in peers.values() for window in figures["streamsrv_windows"]]}
    sides |= {name: figures["windows"] for name, figures in peers.items()}
    told = []
    for name, windows in sides.items():
        worst: dict[int, float] = {}
        for window in windows:
            if window["broken"]:
                continue
            p95_s = CUT_S if window["p95_s"] is None else min(CUT_S, window["p95_s"])
            worst[window["sessions"]] = max(worst.get(window["sessions"], 0.0), p95_s)
        numbers = sorted(worst)
        told.append(plot.Line(name=name, x=numbers, y=[worst[number] for number in numbers]))
    limits = {f"{limit:g} s": limit for limit in LIMITS_S}
    title = "Word's end to its commit, 95th percentile; same model, same cores"
    return plot.lines(path, told, title=title, x="live sessions", y="seconds", limits=limits, marked=True)


def merged(measured: Measured, name: str) -> None:
    """Take over rivals of the same day and model that raced before, so that one may race at a time."""
    path = report.RESULTS / f"{name}-{measured.date}.json"
    if not path.exists():
        return
    before = json.loads(path.read_text())["figures"]
    now: dict[str, Any] = measured.figures
    if before["model"] == now["model"]:
        now["peers"] = before["peers"] | now["peers"]


def arguments_of(given: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=_names, default=list(RIVALS), help=f"of {','.join(RIVALS)}; all when left out")
    parser.add_argument("--model", type=Path, help="folder of a CTranslate2 Whisper; a tone model when left out")
    parser.add_argument(
        "--speech", choices=("tones", "digits"), help="tones for the tone model, human digits for yours"
    )
    parser.add_argument("--environments", type=Path, default=default_folder(), help="where the rivals are installed")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of each window")
    parser.add_argument("--windows", type=int, default=usual.most, help="of each side's search at most")
    parser.add_argument(
        "--ours-first", type=int, default=usual.ours_first, help="sessions streamsrv is tried with first"
    )
    parser.add_argument("--within", type=float, default=usual.within_s, help="seconds a rival's race may last")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(given)
    kind: Kind = asked.speech or ("tones" if asked.model is None else "digits")
    asked.speech = kind
    return asked


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in RIVALS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(RIVALS)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    asked = arguments_of(given)
    measured = begin("peers", given)
    try:
        races = run(asked, measured)
    except (NotInstalled, NotStarted) as failure:
        print(failure, file=sys.stderr)
        return 1
    if not asked.dry:
        merged(measured, "peers")
        figures: dict[str, Any] = measured.figures
        path = drawn(figures["peers"], plot.place("peers", measured.date))
        print(f"drawn in {os.path.relpath(path)}")
    return finish(measured, "peers", shown(races), keep=not asked.dry)


if __name__ == "__main__":
    sys.exit(main())
