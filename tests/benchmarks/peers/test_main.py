"""What the command does with figures: table, plot, guards, and one file for rivals that raced one at a time."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.figures import Measured
from benchmarks.peers import __main__ as command
from benchmarks.peers.judging import Window
from benchmarks.peers.racing import LIMITS_S, Race
from benchmarks.peers.rivals import streamsrv
from benchmarks.peers.search import Search


def seen(sessions: int, p95_s: float, *, errors: int = 0, taken_back: int = 0, others_cores: float = 0.0) -> Window:
    return Window(
        sessions=sessions,
        words=100,
        p50_s=p95_s / 2,
        p95_s=p95_s,
        growth=0.0,
        lost=0,
        errors=errors,
        said=100,
        taken_back=taken_back,
        late_ms=1.0,
        broken=[],
        others_cores=others_cores,
    )


def raced(ours: list[Window], theirs: list[Window]) -> Race:
    sides = Search(LIMITS_S), Search(LIMITS_S)
    for side, windows in zip(sides, (ours, theirs), strict=True):
        for window in windows:
            side.saw(window)
    return Race(ours=sides[0], theirs=sides[1], gauge_ms=[3.0, 3.1])


RACED = raced([seen(1, 0.5), seen(8, 1.4), seen(16, 2.9)], [seen(1, 2.0, errors=4), seen(2, 20.0)])


def test_both_are_compared_at_the_first_limit_the_rival_holds() -> None:
    assert RACED.limit_s == 3.0
    assert RACED.ratio == 16.0
    assert RACED.figures()["held"] == {"1.5": 0, "3": 1, "4": 1, "6": 1, "10": 1}
    assert RACED.figures()["streamsrv_held"] == {"1.5": 8, "3": 16, "4": 16, "6": 16, "10": 16}


def test_a_ratio_without_a_window_that_failed_is_a_lower_bound() -> None:
    assert RACED.at_least
    assert ">= 16 at 3 s" in command.shown({"naive": RACED})
    found = raced([seen(1, 0.5), seen(16, 2.9), seen(17, 3.1)], [seen(1, 2.0)])
    assert not found.at_least
    assert "  16 at 3 s" in command.shown({"naive": found})


def test_a_rival_that_holds_nobody_has_no_ratio() -> None:
    nobody = raced([seen(1, 0.5)], [seen(1, float("inf"))])
    assert nobody.ratio is None
    assert json.loads(json.dumps(nobody.figures(), allow_nan=False))["windows"][0]["p95_s"] is None
    assert "-" in command.shown({"naive": nobody})


def test_the_table_tells_the_rivals_wrong_words() -> None:
    told = command.shown({"naive": RACED})
    assert "4 of 100" in told
    assert "16 at 3 s" in told


def test_guards_are_about_us() -> None:
    assert command.broken("naive", RACED, exact=True) == []
    wrong = raced([seen(1, 0.5, errors=2)], [])
    assert command.broken("naive", wrong, exact=True) == ["against naive, 1 sessions: 2 words of 100 are wrong"]
    assert command.broken("naive", wrong, exact=False) == []
    (taken,) = command.broken("naive", raced([seen(1, 0.5, taken_back=1)], []), exact=False)
    assert "taken back" in taken


def test_rivals_that_raced_one_at_a_time_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    first = Measured(command="one", date="2026-11-25", machine={}, figures={"model": "tone", "peers": {"naive": 1}})
    report.write(first, "peers", tmp_path)
    second = Measured(command="two", date="2026-11-25", machine={}, figures={"model": "tone", "peers": {"other": 2}})
    command.merged(second, "peers")
    assert second.figures["peers"] == {"naive": 1, "other": 2}
    another = Measured(command="two", date="2026-11-25", machine={}, figures={"model": "x", "peers": {"other": 2}})
    command.merged(another, "peers")
    assert another.figures["peers"] == {"other": 2}


def test_the_plot_is_drawn_from_what_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'bench' is not installed")
    figures = json.loads(json.dumps({"naive": RACED.figures()}))
    assert command.drawn(figures, tmp_path / "peers.png").stat().st_size > 5_000


def test_command_lines_name_no_place_of_this_machine(tmp_path: Path) -> None:
    ours = streamsrv(tmp_path / "model", tmp_path / "data")
    told = ours.told({tmp_path / "model": "$MODEL", tmp_path / "data": "$DATA"})
    assert str(tmp_path) not in told
    assert told.startswith("$PYTHON -m streamsrv serve")
    assert "--model '$MODEL'" in told or "--model $MODEL" in told


def test_people_are_told_which_rivals_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.arguments_of(["--peers", "naive,whisper"])
    assert "'whisper' is none of naive, whisperlive, whisperlivekit" in capsys.readouterr().err
    asked = command.arguments_of(["--peers", "naive", "--model", "somewhere"])
    assert isinstance(asked, argparse.Namespace)
    assert (asked.peers, asked.speech) == (["naive"], "digits")
    assert command.arguments_of([]).speech == "tones"


def test_a_race_in_company_is_not_to_be_quoted() -> None:
    assert "NOISY" not in command.shown({"naive": RACED})
    assert "NOISY" in command.shown({"naive": raced([seen(1, 0.5, others_cores=0.5)], [seen(1, 2.0)])})
