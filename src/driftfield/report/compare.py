"""Several equations on the same data: models trained alike, or exact fields; samples side by side, with scores."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.base import Info
from ..data.recognise import find
from ..denoise.empirical import Empirical
from ..generation import generate
from ..metric.evaluate import evaluate
from ..pde import spelled
from ..process.base import Process
from ..process.poisson import PFGM
from ..train.fit import fit
from .style import INK, RUNS, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC = "sliced"  # has no settings that one equation could like better than another
_NFE, _SHOWN = 63, 2000
_COLUMNS, _LONG = 6, 18  # panels to a line; letters of a title to a line
_IMAGES = (5, 4)  # rows and columns of pictures in one panel


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples `(n, *shape)` of one equation on one data set, their score and its standard error."""

    data: str
    equation: str
    samples: Tensor
    score: float
    error: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was drawn, by data set; `held` are data kept from training, and `floors` what training data score."""

    drawn: tuple[Drawn, ...]
    held: dict[str, Tensor]
    infos: dict[str, Info]
    floors: dict[str, float]

    def records(self) -> list[dict[str, Any]]:
        """One row for each: `data`, `equation`, the score by its name, its error, and the floor."""
        return [
            {"data": d.data, "equation": d.equation, METRIC: d.score, "error": d.error, "floor": self.floors[d.data]}
            for d in self.drawn
        ]


def compare(
    equations: Sequence[str],
    data: Sequence[str],
    folder: Path,
    *,
    exact: bool = False,
    minutes: float = 1.0,
    n: int = 1000,
    seed: int = 0,
    watch: Callable[[Drawn], None] = lambda drawn: None,
) -> Comparison:
    """Train each equation's process on each data set for `minutes`, or take the exact field of its training data.

    Networks and recipes are those that the data propose, the same for all but that Poisson's equation is trained by
    `PoissonField`; runs are kept in `folder`, and the same call goes on from there. `n` samples of each are scored
    against held-out data by the sliced Wasserstein distance.
    Raises: ValueError for an equation that does not generate, with the reason, before anything is trained; TypeError
            for one whose exact field is not known.
    """
    if not equations or not data:
        raise ValueError("compare at least one equation on at least one data set")
    made = [(text, spelled(text).process()) for text in equations]
    if n < 4:
        raise ValueError(f"a score takes 4 samples or more, got --number {n}")
    sources = {name: find(name).load() for name in data}
    if exact:
        for text, process in made:
            for name, source in sources.items():
                _check_exact(text, process, name, source.train()[0][:2])
    drawn, held, infos, floors = [], {}, {}, {}
    for name, source in sources.items():
        infos[name], held[name], train = source.info, source.held()[0], source.train()[0]
        kept = held[name][: 2 * n]
        floors[name] = evaluate(train[:n], kept, metrics=METRIC, subsets=0).values[METRIC]
        for text, process in made:
            if exact:
                denoiser = Empirical(process, train)  # type: ignore[arg-type]
                shape = (n, *train.shape[1:])
                x = generate(process, denoiser, shape, solver="heun", nfe=_NFE, grid="geometric", seed=seed)
            else:
                where = folder / re.sub(r"[^\w.-]+", "-", f"{Path(name).stem}-{text}").strip("-")
                run = fit(name, minutes=minutes, folder=where, seed=seed, progress=False, **_how(process))
                x = run.recipe.sample(run.denoiser, n, seed=seed)
            scores = evaluate(x.cpu(), kept, metrics=METRIC, seed=seed)
            drawn.append(Drawn(name, text, x.cpu(), scores.values[METRIC], scores.errors[METRIC]))
            watch(drawn[-1])
    return Comparison(tuple(drawn), held, infos, floors)


def _check_exact(text: str, process: Process, name: str, few: Tensor) -> None:
    """Raise a TypeError where the exact field of such data is not known, before anything is drawn."""
    try:
        Empirical(process, few)(few, torch.tensor(process.span[1], dtype=torch.float64))  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"{text} has no exact field on {name}: {error}; leave out --exact, or this equation") from None


def _how(process: Process) -> dict[str, Any]:
    """What to train: PFGM by its own objective, as published."""
    return {"settings": ["objective=PoissonField"]} if isinstance(process, PFGM) else {"process": process}


def side_by_side(of: Comparison) -> Figure:
    """The data and the samples of each equation, six panels to a line, scores above them; a block for each data set."""
    names = list(of.held)
    count = 1 + len(of.drawn) // len(names)
    columns = min(_COLUMNS, count)
    lines = math.ceil(count / columns)
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(max(3.6, 1.55 * columns), 1.95 * len(names) * lines + 0.3), layout="constrained")
        axes = figure.subplots(len(names) * lines, columns, squeeze=False)
        for k, name in enumerate(names):
            panels = axes[k * lines : (k + 1) * lines].flat
            first = next(panels)
            _panel(first, of.held[name], of.held[name], of.infos[name], INK)
            first.set_title(f"{Path(name).stem}\n({of.floors[name]:.3f})", fontsize=8)
            for i, d in enumerate(d for d in of.drawn if d.data == name):
                ax = next(panels)
                _panel(ax, d.samples, of.held[name], of.infos[name], RUNS[i % len(RUNS)])
                equation, opened, values = d.equation.partition("(")
                text = f"{equation}\n{opened}{values}" if len(d.equation) > _LONG else d.equation
                ax.set_title(f"{text}\n{d.score:.3f} ± {d.error:.3f}", fontsize=8)
            for ax in panels:
                ax.set_axis_off()
        figure.suptitle(f"{METRIC} Wasserstein distance to held-out data (in brackets: of training data)", fontsize=8)
    return figure


def _panel(ax: Axes, x: Tensor, held: Tensor, info: Info, colour: str) -> None:
    """Points, or the first pictures, or of anything else the first two numbers."""
    ax.set_xticks([])
    ax.set_yticks([])
    if info.kind == "image":
        rows, columns = _IMAGES
        seen = np.asarray(info.to_user(x[: rows * columns]))
        gaps = ((0, rows * columns - len(seen)), (1, 1), (1, 1), *[(0, 0)] * (seen.ndim - 3))
        seen = np.pad(seen, gaps, constant_values=255)
        sheet = seen.reshape(rows, columns, *seen.shape[1:]).swapaxes(1, 2)
        sheet = sheet.reshape(rows * seen.shape[1], columns * seen.shape[2], *seen.shape[3:])
        ax.imshow(sheet, cmap="gray" if sheet.ndim == 2 else None)
        ax.spines[:].set_visible(False)
        return
    points, frame = (v.reshape(len(v), -1)[:_SHOWN, :2] for v in (x, held))
    ax.spines[:].set_visible(True)
    ax.scatter(points[:, 0], points[:, 1], s=0.8, color=colour, alpha=0.5, linewidths=0, rasterized=True)
    centre = frame.mean(0)
    reach = 1.25 * float((frame - centre).abs().max())
    ax.set_xlim(float(centre[0]) - reach, float(centre[0]) + reach)
    ax.set_ylim(float(centre[-1]) - reach, float(centre[-1]) + reach)
    ax.set_aspect("equal")
