"""How the held-out loss of a run depends on the width of the average of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_bytes
from ..train.held import judged, losses_by_level
from ..train.load import fill
from ..train.snapshots import Rebuilt, planned, rebuild
from .device import device_named
from .score import opened
from .style import INK, RUNS, blank, png, styled, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMS = {".png": png, ".svg": svg}


@dataclass(frozen=True)
class Judged:
    """An average of relative width `sigma_rel`, its errors as in `Rebuilt`, and its losses, as training logs them."""

    sigma_rel: float
    profile_error: float
    weights_error: float
    held: float
    train: float


def sweep(
    run: str | Path,
    widths: Sequence[float],
    *,
    step: int | None = None,
    data: str | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
) -> tuple[list[Judged], Rebuilt]:
    """Rebuild the average of each of the `widths` and judge it on the run's own held-out samples, with its own noise.

    The judgements, narrowest first, and the average whose held-out loss is the least. Every width is checked before
    the first is judged. `data` is where the data are, if they have moved.
    Raises: ValueError for widths that the snapshots do not reach, and as `rebuild` and `opened`.
    """
    if not widths:
        raise ValueError("a sweep needs one width or more, such as 0.03,0.05,0.1,0.15")
    wanted = sorted(set(widths))
    step = max(planned(run, wanted[0], step, trust).weights)  # the newest, which may change if the run still goes on
    for sigma_rel in wanted[1:]:
        planned(run, sigma_rel, step, trust)
    rows: list[Judged] = []
    best: Rebuilt | None = None
    for sigma_rel in wanted:
        made = rebuild(run, sigma_rel, step, trust)
        if best is None:
            source, where = opened(made.recipe, run, data), device_named(device)
            sets = judged(source, made.recipe.training.seed, made.recipe.objective.reference)
        denoiser = made.recipe.denoiser()
        fill(denoiser, made.tensors, Path(run))
        losses = losses_by_level(made.recipe, denoiser.eval().to(where), sets, where)
        best = made if best is None or losses.held_mean < min(row.held for row in rows) else best
        rows.append(Judged(sigma_rel, made.profile_error, made.weights_error, losses.held_mean, losses.train_mean))
    assert best is not None
    return rows, best


def check_plot(path: Path) -> None:
    """Raises: ValueError for a file that is no picture, ImportError where no figure can be drawn."""
    styled()
    if path.suffix.lower() not in _FORMS:
        raise ValueError(f"a figure is a .png or .svg file, got {path}")


def write_figure(rows: Sequence[Judged], path: Path) -> None:
    """Draw the judgements of a sweep to a `.png` or `.svg` file. Raises: as `check_plot`."""
    check_plot(path)
    made = _FORMS[path.suffix.lower()](figure(rows))
    write_bytes(path, made)


def figure(rows: Sequence[Judged]) -> Figure:
    """Held-out loss against `sigma_rel`, the best width marked."""
    drawn, (ax,) = blank(2.6)
    widths = [row.sigma_rel for row in rows]
    best = min(rows, key=lambda row: row.held)
    with styled():
        ax.plot(widths, [row.held for row in rows], "o-", color=RUNS[0])
        ax.plot([best.sigma_rel], [best.held], "o", ms=10, mfc="none", mec=INK, label=f"best: {best.sigma_rel:g}")
        ax.set_xlabel(r"width of the average, $\sigma_\mathrm{rel}$")
        ax.set_ylabel("held-out loss")
        ax.grid(True)
        ax.legend()
    return drawn
