"""Plots are small PNG files that show what they were given."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from benchmarks import plot


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def ramp(tmp_path: Path, name: str, top: float) -> bytes:
    told = [plot.Line(name="server", x=[0, 1, 2], y=[0, top / 2, top])]
    return plot.lines(tmp_path / name, told, title="t", x="s", y="MB", limits={"bound": 3.0}).read_bytes()


def test_lines_are_drawn_and_the_same_figures_give_the_same_file(tmp_path: Path) -> None:
    first, again, other = (ramp(tmp_path, name, top) for name, top in (("a", 1.0), ("a", 1.0), ("a", 2.0)))
    assert first == again != other
    assert size_of(tmp_path / "a") == (770, 396)
    assert len(first) < plot.MOST_BYTES


def test_a_long_line_keeps_its_peak() -> None:
    y = [0.0] * 100_000
    y[77_777] = 9.0
    xs, ys = plot._thinned(range(100_000), y)
    assert len(xs) == len(ys) <= plot.MOST_POINTS
    assert (77_777, 9.0) in zip(xs, ys, strict=True)
    assert list(xs) == sorted(xs)


def test_bars_are_drawn_with_gaps_and_magnitudes(tmp_path: Path) -> None:
    told: dict[str, list[float | None]] = {"floor 1": [32.0, None], "floor 5": [10.0, 2_123.0]}
    path = plot.bars(tmp_path / "deep" / "b.png", ["ours", "theirs"], told, title="t", y="sessions", logarithmic=True)
    assert size_of(path) == (770, 396)


def test_figures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'odd' has 1 x and 2 y"):
        plot.lines(tmp_path / "c", [plot.Line(name="odd", x=[0], y=[0, 1])], title="t", x="s", y="MB")
    with pytest.raises(ValueError, match="'odd' has 1 values for 2 groups"):
        plot.bars(tmp_path / "c", ["a", "b"], {"odd": [1.0]}, title="t", y="s")
    assert not list(tmp_path.iterdir())


def test_a_plot_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100"):
        ramp(tmp_path, "d", 1.0)
    assert not list(tmp_path.iterdir())


def test_a_plot_lies_beside_its_figures(tmp_path: Path) -> None:
    assert plot.place("load", "2026-01-02", tmp_path) == tmp_path / "load-2026-01-02.png"


@pytest.mark.parametrize(("value", "told"), [(0.4213, "0.421"), (17.52, "17.5"), (2_123.4, "2123")])
def test_figures_on_bars_are_short(value: float, told: str) -> None:
    assert plot._short(value) == told


@pytest.mark.parametrize(("values", "foot"), [([17.5, 2_123.0], 10.0), ([10.0], 1.0), ([0.3, None], 0.1), ([], 0.1)])
def test_a_logarithmic_bar_stands_on_a_power_of_ten(values: list[float | None], foot: float) -> None:
    assert plot._power_below(values) == pytest.approx(foot)
