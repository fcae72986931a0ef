"""The benchmarks of live sessions on Whisper, in small: what they say is known, they run, and their guards can fail."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")

from benchmarks import accuracy, capacity, inside, latency, load, plot, report, soak, spoken, trials, whispered, windows
from benchmarks.figures import spread
from benchmarks.judging import Judged
from benchmarks.listening import Arrival, Heard
from benchmarks.script import Script, Spoken
from benchmarks.tape import RATE_HZ
from tests.models import tone


def run(sessions: int, *commits: float, refused: int = 0, seconds: float = 12.0, **heard: int) -> trials.Trial:
    """A run as it might have been, its words spread over ``seconds``."""
    ends = [1000 * seconds * (place + 1) / len(commits) for place in range(len(commits))]
    return trials.Trial(
        sessions=sessions,
        refused=refused,
        heard=Judged(commit=list(commits), ends=ends, **heard),  # type: ignore[arg-type]
        stall=spread([1.0]),
        cores=1.0,
        others=0.1,
        stolen_ms=0,
        rss_mb=100.0,
        degraded=0,
    )


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_tones_end_where_they_are_said_to(share: float) -> None:
    script = spoken.tones(3, 10.0, share=share)
    samples = np.abs(np.frombuffer(script.samples, "<i2").astype(int))
    for word in script.truth:
        end = word.stop_ms * RATE_HZ // 1000
        assert samples[end - 1_600 : end - 160].max() > 5_000, "it sounds until then"
        assert samples[end + 16 : end + 1_200].max(initial=0) < 200, "and not after"
    sounding = len(script.truth) * tone.SLOT_S * 1000 / script.duration_ms
    assert sounding == pytest.approx(share, abs=0.15)


def test_everybody_says_something_else_and_always_the_same() -> None:
    assert spoken.tones(1, 5.0) == spoken.tones(1, 5.0) != spoken.tones(2, 5.0)
    script = spoken.digits(1, 8.0)
    assert script == spoken.digits(1, 8.0)
    stops = [word.stop_ms for word in script.truth]
    assert stops == sorted(stops)
    assert stops[-1] <= script.duration_ms


def test_a_text_is_not_taken_for_its_recording(tmp_path: Path) -> None:
    sound, text = tmp_path / "a.wav", tmp_path / "a.txt"
    soundfile.write(sound, np.zeros(RATE_HZ, np.int16), RATE_HZ)
    text.write_text("nothing")
    (one,) = windows.spoken([sound, text])
    assert one.live.name == "a"


# --- many sessions ----------------------------------------------------------------------------------------------------


def test_held_means_let_in_and_in_time() -> None:
    assert capacity.holds(run(2, *[900.0] * 99, 9_000.0))
    assert not capacity.holds(run(2, *[900.0] * 90, *[1_501.0] * 10))
    assert not capacity.holds(run(2, 900.0, refused=1))


def test_who_falls_behind_holds_nobody() -> None:
    behind = [100.0 + 20 * place for place in range(60)]
    assert capacity.holds(run(2, *behind)), "too short to tell"
    assert not capacity.holds(run(2, *behind, seconds=50.0))
    assert capacity.holds(run(2, *reversed(behind), seconds=50.0))


@pytest.mark.parametrize(("bears", "guess"), [(13, 4), (3, 20), (0, 8), (8, 8)])
async def test_the_most_is_found_within_a_tenth(bears: int, guess: int) -> None:
    async def tried(sessions: int, seconds: float) -> trials.Trial:
        return run(sessions, 100.0 if sessions <= bears else 2_000.0)

    found = await capacity._most(tried, capacity.Plan(), guess)
    assert bears - max(1, bears // 10) <= found <= bears


def test_wrong_words_of_tones_break_the_run() -> None:
    found = [capacity.Found(floor=5, tried=[run(2, 100.0, truth=9, truth_errors=1)], held=run(2, 100.0))]
    assert len(capacity.broken(capacity.Plan(), found)) == 1
    assert capacity.broken(capacity.Plan(model="digits"), found) == []
    assert "5 s" in capacity.shown(found)
    assert msgspec.json.encode(capacity.figures(found[0]))


@pytest.mark.slow
def test_sessions_are_held(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(capacity, "REST_S", 0.0)
    asked = ["--engine", "whisper", "--sessions", "2", "--floors", "5", "--seconds", "3", "--confirm-s", "3", "--dry"]
    assert load.main([*asked, "--model", "small-tone"]) == 0
    assert "guards held" in capsys.readouterr().out


# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_slope_is_of_the_later_part() -> None:
    at_s = [5.0 * n for n in range(120)]
    grown = [100.0 + min(at, 120.0) / 10 + at / 60 * 0.5 for at in at_s]
    soaked = soak.Soaked(empty_mb=90.0, at_s=at_s, resident_mb=grown, highest_mb=120.0, run=run(8))
    assert soaked.slope_kb == pytest.approx(1024 * 0.5 / 8)
    assert soaked.doubt_kb == pytest.approx(0.0, abs=1e-6)
    assert soaked.mb_per_session == pytest.approx(30 / 8)


def test_readings_that_swing_make_the_slope_doubtful() -> None:
    at_s = [5.0 * n for n in range(120)]
    chance = np.random.default_rng(1)
    slopes, doubts = [], []
    for _ in range(200):
        readings = list(130.0 + chance.normal(0.0, 1.0, len(at_s)))
        soaked = soak.Soaked(empty_mb=90.0, at_s=at_s, resident_mb=readings, highest_mb=140.0, run=run(24))
        slopes.append(soaked.slope_kb)
        doubts.append(soaked.doubt_kb)
    assert np.mean(doubts) == pytest.approx(np.std(slopes), rel=0.2)


@pytest.mark.slow
def test_a_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(soak, "WARM_S", 2.0)
    monkeypatch.setattr(soak, "EVERY_S", 0.5)
    assert load.main(["--engine", "whisper", "--soak", "0.1", "--sessions", "2", "--dry"]) == 0
    told = capsys.readouterr().out
    assert "guards held" in told
    assert ", 0 wrong" in told


# --- those inside ----------------------------------------------------------------------------------------------------


def test_frames_of_a_rush_are_due_twice_as_fast() -> None:
    everything = inside.parts(2.0, 1.0, 3.0)
    script = spoken.turns(1, [(part.seconds * part.pace, part.share) for part in everything])
    dues = inside._dues(script, everything)
    frame_s = trials.FRAME_MS / 1000
    assert dues[round(2.0 / frame_s) - 1] == pytest.approx(2.0)
    assert dues[round(4.0 / frame_s) - 1] == pytest.approx(3.0), "two seconds of audio in one"
    assert dues[round(12.0 / frame_s) - 1] == pytest.approx(8.0)
    assert len(dues) == -(-len(script.samples) // (2 * 16 * trials.FRAME_MS))


def said(at_s: float, kind: str, **more: object) -> Arrival:
    return Arrival(at_ms=1000 * at_s, message={"type": kind, **more})


def session(*arrivals: Arrival, truth: tuple[str, ...] = ()) -> inside.Inside:
    words = tuple(Spoken(text=word, stop_ms=100) for word in truth)
    script = Script(name="x", rate_hz=16_000, samples=b"", plain_ms=0, truth=words)
    closed = said(99.0, "closed", finals=sum(one.message["type"] == "final" for one in arrivals), audio_ms=0)
    heard = Heard(script=script, arrivals=[*arrivals, closed], flush_ms=0.0, late_ms=[])
    return inside.Inside(heard=heard, began_s=1.0)


def test_parts_are_told_apart_and_losses_are_told() -> None:
    after = inside.parts(10.0, 5.0, 20.0)
    begin = inside.RAMP_S - 1.0
    final = {"segment": 0, "text": "one", "latency_ms": 500, "endpoint_ms": 300}
    late = {"segment": 1, "text": "two", "latency_ms": 900, "endpoint_ms": 200}
    partial = {"segment": 1, "text": "", "stable_chars": 0}
    talk = [
        said(begin + 1, "final", **final),
        said(begin + 26, "partial", **partial),
        said(begin + 30, "final", **late),
    ]
    one = session(*talk, truth=("one", "two"))
    seen = inside.stretches([one], after)
    assert [stretch.final_ms.count for stretch in seen] == [1, 0, 0, 1]
    assert [stretch.served_ms.max for stretch in seen] == [200, 0, 0, 700]
    assert seen[-1].partials_per_s == pytest.approx(1 / 20)
    assert inside.broken([one], seen) == []
    assert len(inside.broken([session(*talk, truth=("one", "three"))], seen)) == 1
    assert len(inside.broken([session(talk[2], truth=("two",))], seen)) == 1, "a final is missing"
    thin = [msgspec.structs.replace(seen[0], partials_per_s=3.0), *seen[1:]]
    assert len(inside.broken([one], thin)) == 1, "fewer partials, and not a word about it"
    told = session(said(begin, "degraded", active=True), *talk, truth=("one", "two"))
    assert inside.broken([told], thin) == []


def test_a_kept_report_holds_what_its_plot_shows(tmp_path: Path) -> None:
    kept = msgspec.json.decode(sorted(report.RESULTS.glob("inside-whisper-*.json"))[-1].read_bytes())["figures"]
    seen = msgspec.convert(kept["parts"], list[inside.Stretch])
    drawn = inside.drawn(tmp_path / "inside.png", seen, kept["sessions"])
    assert drawn.read_bytes().startswith(b"\x89PNG")


# --- latency, accuracy ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_flushes_of_small_tones(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(whispered, "FLUSHES", 2)
    assert latency.main(["--engine", "whisper", "--only", "tones, small, flushed", "--dry"]) == 0
    told = capsys.readouterr().out
    assert "guards held" in told
    assert "tones, small, flushed" in told


def test_wrong_words_offline_break_the_row() -> None:
    row = whispered.Row(name="tones", model="tone", floor=5, scripts=())
    done = whispered.Done(row=row, run=run(1, truth=4), wer=0.0, offline_wer=0.25)
    assert len(whispered.broken([done])) == 1
    assert whispered.broken([msgspec.structs.replace(done, offline_wer=0.0)]) == []


@pytest.mark.slow
@pytest.mark.speech
def test_four_ways_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in spoken.known_digits()[:2]:
        source = spoken.DIGITS / "samples" / one.file
        (tmp_path / one.file).write_bytes(source.read_bytes())
        (tmp_path / one.file).with_suffix(".txt").write_text(" ".join(one.words))
    drawn: list[Path] = []
    monkeypatch.setattr(plot, "bars", lambda path, *rest, **more: drawn.append(path))
    assert accuracy.main(["--engine", "whisper", "--audio", str(tmp_path), "--dry"]) == 0
    told = capsys.readouterr().out
    for way in ("offline, fitted", "live, fitted", "offline, full", "live, full"):
        assert f"{way} " in told
    assert told.count("0.0000") == 4, "human digits, and every word right"
    assert not drawn, "a dry run keeps nothing"


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        windows.main(["--audio", str(tmp_path)])
