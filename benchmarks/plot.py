"""PNG plots of measured figures: :func:`lines` over a common x, :func:`bars` in groups.

The one place that knows the plotting library (the extra ``bench``), imported when a plot is drawn.  Files are small
(under ``MOST_BYTES``), so that they may stand beside the JSON in ``benchmarks/results/``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.report import RESULTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_IN = (7.0, 3.6)
DPI = 110
MOST_POINTS = 2_000
"""Points drawn of one line; of a longer one each column keeps its lowest and its highest, so no peak vanishes."""
MOST_BYTES = 100_000
"""No plot of ours comes near it; one that does is refused instead of kept."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a plot; ``x`` and ``y`` are equally long."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def lines(
    path: Path,
    told: Sequence[Line],
    *,
    title: str,
    x: str,
    y: str,
    limits: Mapping[str, float] | None = None,
    from_zero: bool = True,
    marked: bool = False,
) -> Path:
    """Lines over one x axis, written to ``path``.

    ``x`` and ``y`` name the axes, with their units.  ``limits`` are drawn as dashed horizontals with their names;
    ``marked`` shows each point (a few measurements rather than a curve); ``from_zero`` begins the y axis at 0.
    """
    for line in told:
        if len(line.x) != len(line.y):
            raise ValueError(f"line {line.name!r} has {len(line.x)} x and {len(line.y)} y")
    figure, axes = _canvas(title, x, y)
    for line in told:
        xs, ys = _thinned(line.x, line.y)
        axes.plot(xs, ys, label=line.name, linewidth=1.2, marker="o" if marked else "", markersize=4)
    return _written(figure, axes, path, limits or {}, from_zero=from_zero, legend=bool(told))


def bars(
    path: Path,
    groups: Sequence[str],
    told: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    y: str,
    limits: Mapping[str, float] | None = None,
    logarithmic: bool = False,
) -> Path:
    """Bars in groups along the x axis, written to ``path``: ``told[name][n]`` is the bar of ``name`` in group ``n``.

    Each bar carries its figure; None leaves its place empty.  ``logarithmic`` is for figures of several magnitudes.
    """
    figure, axes = _canvas(title, "", y)
    width = 0.8 / max(1, len(told))
    for turn, (name, values) in enumerate(told.items()):
        if len(values) != len(groups):
            raise ValueError(f"bars {name!r} has {len(values)} values for {len(groups)} groups")
        at = [(place + (turn - (len(told) - 1) / 2) * width, value) for place, value in enumerate(values)]
        there = [(place, value) for place, value in at if value is not None]
        drawn = axes.bar([place for place, _ in there], [value for _, value in there], width * 0.92, label=name)
        axes.bar_label(drawn, fmt=_short, fontsize=7)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_xlim(-0.5, len(groups) - 0.5)  # a bar that is missing at the end keeps its place too
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(bottom=_power_below([value for values in told.values() for value in values]))
    return _written(figure, axes, path, limits or {}, from_zero=not logarithmic, legend=len(told) > 1)


def place(name: str, date: str, folder: Path = RESULTS) -> Path:
    """Where the plot of a report lies: beside its JSON."""
    return folder / f"{name}-{date}.png"


def _canvas(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """A figure of its own, of no global state and no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _written(
    figure: Figure, axes: Axes, path: Path, limits: Mapping[str, float], *, from_zero: bool, legend: bool
) -> Path:
    for name, value in limits.items():
        axes.axhline(value, linestyle="--", linewidth=0.9, color="0.4")
        axes.annotate(name, (1.0, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    if from_zero:
        axes.set_ylim(bottom=0)
    if legend:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)  # never over a figure
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date, no version of the library: the same figures give the same file.
    figure.savefig(path, format="png", metadata={"Software": None})
    if path.stat().st_size > MOST_BYTES:
        size = path.stat().st_size
        path.unlink()
        raise ValueError(f"the plot {path.name} has {size} bytes, more than {MOST_BYTES}")
    return path


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """At most ``MOST_POINTS``: of each column its lowest and its highest, in their order."""
    if len(x) <= MOST_POINTS:
        return x, y
    columns = MOST_POINTS // 2
    kept: list[int] = []
    for column in range(columns):
        inside = range(column * len(x) // columns, (column + 1) * len(x) // columns)
        kept += sorted({min(inside, key=y.__getitem__), max(inside, key=y.__getitem__)})
    return [x[n] for n in kept], [y[n] for n in kept]


def _power_below(values: Sequence[float | None]) -> float:
    """The power of ten under the smallest: a logarithmic bar is as long as its foot is deep, so the foot is round."""
    least = min((value for value in values if value), default=1.0)
    return float(10.0 ** (math.ceil(math.log10(least)) - 1))


def _short(value: float) -> str:
    """Three digits that count: 0.42, 17.5, 2123."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
