"""Curves of a report: numbers in, a matplotlib figure out. Colours are those of `style`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .style import FAINT, INK, Look, blank, look_of_solver, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """Values at the positions `x`, each with one standard error (0 where none is known)."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()


@dataclass(frozen=True)
class History:
    """What the log of a run says: `seen` training samples and the loss there; held-out losses by level, where judged.

    `judged` are `(seen, levels, held, train)` for each judgement, in the order of training.
    """

    seen: tuple[float, ...]
    loss: tuple[float, ...]
    judged: tuple[tuple[float, tuple[float, ...], tuple[float, ...], tuple[float, ...]], ...] = ()


def quality(
    metrics: Mapping[str, Mapping[str, Curve]],
    solvers: Sequence[str],
    floors: Mapping[str, tuple[float, float]] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    units: Mapping[str, str] | None = None,
) -> Figure:
    """Quality against evaluations per sample: a panel per metric, a line per solver, bars of one standard error.

    `metrics[name][solver]` is a curve; `solvers` are all known ones, which fixes their colours; `floors[name]` is what
    training data themselves score, with its error; `limits[name]` are the ends of the axis, shared between runs.
    """
    figure, axes = blank(0.4 + 2.1 * len(metrics), len(metrics), share=True)
    with styled():
        for ax, (name, curves) in zip(axes, metrics.items(), strict=True):
            for solver, curve in curves.items():
                look = look_of_solver(solver, solvers)
                ax.errorbar(
                    curve.x,
                    curve.y,
                    yerr=curve.error or None,
                    color=look.colour,
                    linestyle=look.dash,
                    marker=look.marker,
                    capsize=2.5,
                    label=solver,
                )
            if floors and name in floors:
                value, error = floors[name]
                ax.axhline(value, color=INK, linewidth=0.9, linestyle=":", label="training data")
                ax.axhspan(value - error, value + error, color=INK, alpha=0.12, linewidth=0)
            unit = (units or {}).get(name)
            ax.set_title(f"{name} ({unit})" if unit else name, loc="left")
            log_where_wide(ax, [y for c in curves.values() for y in c.y], (limits or {}).get(name))
            ax.grid(True)
        nfes = sorted({x for curves in metrics.values() for c in curves.values() for x in c.x})
        apart = [x for x, above in zip(nfes, [*nfes[1:], math.inf], strict=True) if above / x > 1.2]
        axes[-1].set_xscale("log")
        axes[-1].set_xticks(apart, [f"{x:g}" for x in apart])
        axes[-1].set_xticks([], minor=True)
        axes[-1].set_xlabel("evaluations of the network per sample (NFE)")
        axes[0].legend(loc="upper right")
    return figure


def limits_of(curves: Sequence[Curve], floors: Sequence[float] = ()) -> tuple[float, float]:
    """The ends of an axis that holds all `curves` with their errors, and the floors, with a little room.

    Where all values are above 0 so are the ends, for an axis that may become logarithmic; a bar may then pass the edge.
    """
    points = [p for c in curves for p in zip(c.y, c.error or (0.0,) * len(c.y), strict=True)]
    points += [(floor, 0.0) for floor in floors]
    high = max(y + e for y, e in points)
    if min(y for y, _ in points) > 0:
        return min(y - e if y > e else y / 2 for y, e in points) / 1.15, high * 1.15
    low = min(y - e for y, e in points)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def log_where_wide(ax: Any, values: Sequence[float], ends: tuple[float, float] | None) -> None:
    """Make the vertical axis logarithmic where positive `values`, or the `ends` it shall have, span a factor of 5."""
    low, high = ends if ends is not None else (min(values), max(values))
    if low > 0 and high / low > 5:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        ax.set_yscale("log")
        subs = (1, 2, 5) if high / low < 200 else (1,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    if ends is not None:
        ax.set_ylim(*ends)


def _thousands(ax: Any) -> None:
    from matplotlib.ticker import EngFormatter

    ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def training_curve(runs: Mapping[str, History], looks: Sequence[Look]) -> Figure:
    """The training loss against samples seen, a line per run; markers are its mean over noise levels, held out."""
    figure, (ax,) = blank(2.9)
    with styled():
        for look, (name, history) in zip(looks, runs.items(), strict=True):
            ax.plot(history.seen, history.loss, color=look.colour, linestyle=look.dash, alpha=0.75, label=name)
            held = [(seen, sum(h) / len(h)) for seen, _, h, _ in history.judged]
            if held:
                ax.plot(*zip(*held, strict=True), look.marker, color=look.colour, label=f"{name}, held-out")
        log_where_wide(ax, [y for h in runs.values() for y in h.loss], None)
        _thousands(ax)
        ax.set_xlabel("training samples seen")
        ax.set_ylabel("loss (weighted squared error)")
        ax.set_xlim(left=0)
        ax.grid(True)
        ax.legend()
    return figure


def loss_by_level(runs: Mapping[str, History], looks: Sequence[Look]) -> Figure:
    """The last judged loss against the noise level: filled markers held out, hollow ones on training data."""
    figure, (ax,) = blank(2.9)
    with styled():
        for look, (name, history) in zip(looks, runs.items(), strict=True):
            _, levels, held, train = history.judged[-1]
            ax.plot(levels, held, marker=look.marker, color=look.colour, linestyle=look.dash, label=f"{name}, held-out")
            ax.plot(
                levels,
                train,
                marker=look.marker,
                markerfacecolor="none",
                color=look.colour,
                linestyle=":",
                label=f"{name}, training",
            )
        ax.set_xscale("log")
        ax.set_xlabel("noise level (scale of the noise, model units)")
        ax.set_ylabel("loss (weighted squared error)")
        ax.grid(True)
        ax.legend()
    return figure


def loss_over_training(history: History) -> Figure:
    """The held-out loss at each noise level against samples seen, coloured from the least noise to the most."""
    figure, (ax,) = blank(2.9)
    with styled():
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import BoundaryNorm, ListedColormap

        seen, levels = [j[0] for j in history.judged], history.judged[-1][1]
        shades = [colormaps["viridis"](0.15 + 0.7 * i / max(1, len(levels) - 1)) for i in range(len(levels))]
        for i, shade in enumerate(shades):
            ax.plot(seen, [j[2][i] for j in history.judged], marker=".", color=shade)
        norm = BoundaryNorm(np.arange(len(levels) + 1) - 0.5, len(levels))
        bar = figure.colorbar(ScalarMappable(norm, ListedColormap(shades)), ax=ax, ticks=range(len(levels)))
        bar.ax.set_yticklabels([f"{v:.2g}" for v in levels])
        bar.set_label("noise level (model units)")
        bar.outline.set_visible(False)
        _thousands(ax)
        ax.set_xlabel("training samples seen")
        ax.set_ylabel("held-out loss")
        ax.set_xlim(left=0)
        ax.grid(True)
    return figure


def proximity(runs: Mapping[str, Array], held: Array, looks: Sequence[Look], space: str) -> Figure:
    """The share of items at most so far from their nearest training item: samples `(n,)` of each run, and data
    `held` out `(m,)`. Samples that copy lie far left of the held-out line; samples off the data far right."""
    figure, (ax,) = blank(2.9)
    with styled():
        ax.ecdf(held, color=INK, linestyle=":", label="held-out data")
        for look, (name, distances) in zip(looks, runs.items(), strict=True):
            ax.ecdf(distances, color=look.colour, linestyle=look.dash, label=f"samples of {name}")
        ax.set_xlabel(f"distance to the nearest training item ({space})")
        ax.set_ylabel("share of items")
        ax.set_xlim(left=0)
        ax.grid(True)
        ax.legend(loc="best")
    return figure


def marginals(samples: Mapping[str, Array], data: Mapping[str, Array], look: Look) -> Figure:
    """A panel per coordinate or column: quantiles of samples against those of data, or shares of categories.

    Values that are numbers are compared by quantiles (on the line: equal laws); all others by their shares.
    """
    count = len(data)
    columns = min(3, count)
    lines = math.ceil(count / columns)
    figure, axes = blank(0.3 + 1.5 * lines, lines, columns)
    with styled():
        for ax in axes[count:]:
            ax.set_visible(False)
        for ax, (name, there) in zip(axes, data.items(), strict=False):
            ours = np.asarray(samples[name])
            if np.asarray(there).dtype.kind in "fiu":
                _quantiles(ax, ours, np.asarray(there), look)
            else:
                _shares(ax, ours, np.asarray(there), look)
            ax.set_title(_short(name), fontsize=8)
            ax.tick_params(labelsize=6.5)
        figure.supxlabel("data", fontsize=9)
        figure.supylabel("samples", fontsize=9)
    return figure


def _quantiles(ax: Any, ours: Array, there: Array, look: Look) -> None:
    at = np.linspace(0.005, 0.995, 100)
    ours, there = (np.quantile(v[np.isfinite(v)].astype(np.float64), at) for v in (ours, there))
    ends = [min(ours[0], there[0]), max(ours[-1], there[-1])]
    ax.plot(ends, ends, color=FAINT, linewidth=1)
    ax.plot(there, ours, ".", markersize=2.5, color=look.colour)
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=4)


def _shares(ax: Any, ours: Array, there: Array, look: Look) -> None:
    kinds, counts = np.unique(there.astype(str), return_counts=True)
    order = np.argsort(-counts)[:8]
    kinds, shares = kinds[order], counts[order] / len(there)
    mine = [float((ours.astype(str) == kind).mean()) for kind in kinds]
    ends = [0, 1.1 * max(*shares, *mine)]
    ax.plot(ends, ends, color=FAINT, linewidth=1)
    ax.plot(shares, mine, "o", markersize=3.5, color=look.colour)
    for x, y, kind in list(zip(shares, mine, kinds, strict=True))[:4]:
        ax.annotate(_short(kind, 9), (x, y), fontsize=5.5, xytext=(2, 2), textcoords="offset points")
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=4)


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
