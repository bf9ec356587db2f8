"""The loss on data that training never drew, by noise level, beside the same on data that it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data.base import Source
from ..objective.base import Batch
from ..recipe import Recipe
from ..rng import seeded

BANDS = 8
_MOST = 512

Sets = tuple[tuple[Tensor, Tensor | None], ...]


@dataclass(frozen=True)
class Losses:
    """Mean losses at the middle of each of eight equal shares of the training times, and their mean over the shares."""

    levels: list[float]
    held: list[float]
    train: list[float]
    held_mean: float
    train_mean: float

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def judged(source: Source, seed: int, reference: int = 0) -> Sets:
    """Up to 512 samples of the held-out split and 512 draws of training data, chosen by `seed`.

    For an objective with a `reference`, as many draws more, and at least 512.
    """
    sets = source.some_held(_MOST, seeded(seed, 12)), source.draw(_MOST, seeded(seed, 13))
    return (*sets, source.draw(max(reference, _MOST), seeded(seed, 14))) if reference else sets


@torch.no_grad()
def losses_by_level(recipe: Recipe, denoiser: torch.nn.Module, sets: Sets, device: torch.device) -> Losses:
    """Losses of `denoiser` on the held-out and the training samples `sets`, always with the same noise.

    Without augmentation and with every label kept, so that the two columns differ by the data alone. The reference of
    all samples of a column is that column, with the further draws in `sets` up to their number.
    """
    process, objective = recipe.objective.process, recipe.objective
    draws = objective.times(process, torch.empty(4096, 1, dtype=torch.float64), seeded(recipe.training.seed, 10))
    middle = (torch.arange(BANDS, dtype=torch.float64) + 0.5) / BANDS
    times = torch.quantile(draws, middle)
    columns = []
    held_out, drawn, *more = [Batch(x.to(device), None if c is None else c.to(device)) for x, c in sets]
    for column in (held_out, drawn):
        whole = _among(column, more[0]) if more else column
        columns.append([_mean(recipe, denoiser, whole, t, band) for band, t in enumerate(times.tolist())])
    held, train = columns
    return Losses(process.level(times).tolist(), held, train, sum(held) / BANDS, sum(train) / BANDS)


def _among(column: Batch, more: Batch) -> Batch:
    """The column with a reference: itself, and then so many of the further draws that they are as many as these."""
    n = len(more.x)
    cond = None if column.cond is None else torch.cat((column.cond, more.cond))[:n]
    return Batch(column.x, column.cond, torch.cat((column.x, more.x))[:n], cond)


def _mean(recipe: Recipe, denoiser: Any, whole: Batch, t: float, band: int) -> float:
    rng = seeded(recipe.training.seed, 11, band, device=whole.x.device)
    total, size = 0.0, recipe.training.batch
    for i in range(0, len(whole.x), size):
        x = whole.x[i : i + size]
        part = replace(whole, x=x, cond=None if whole.cond is None else whole.cond[i : i + size])
        losses = recipe.objective.at(denoiser, part, torch.full((len(x),), t).to(x), rng)
        total += losses.double().sum().item()
    return total / len(whole.x)
