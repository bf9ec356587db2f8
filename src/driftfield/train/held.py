"""The loss on data that training never drew, by noise level, beside the same on data that it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.base import Source
from ..recipe import Recipe
from ..rng import seeded

BANDS = 8
_MOST = 512

Sets = tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


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


def judged(source: Source, seed: int) -> Sets:
    """Up to 512 samples of the held-out split and 512 draws of training data, chosen by `seed`."""
    return source.some_held(_MOST, seeded(seed, 12)), source.draw(_MOST, seeded(seed, 13))


@torch.no_grad()
def losses_by_level(recipe: Recipe, denoiser: torch.nn.Module, sets: Sets, device: torch.device) -> Losses:
    """Losses of `denoiser` on the held-out and the training samples `sets`, always with the same noise.

    Without augmentation and with every label kept, so that the two columns differ by the data alone.
    """
    process, objective = recipe.objective.process, recipe.objective
    draws = objective.times(process, torch.empty(4096, 1, dtype=torch.float64), seeded(recipe.training.seed, 10))
    middle = (torch.arange(BANDS, dtype=torch.float64) + 0.5) / BANDS
    times = torch.quantile(draws, middle)
    columns = []
    for x, label in sets:
        x, label = x.to(device), None if label is None else label.to(device)
        columns.append([_mean(recipe, denoiser, x, t, label, band) for band, t in enumerate(times.tolist())])
    held, train = columns
    return Losses(process.level(times).tolist(), held, train, sum(held) / BANDS, sum(train) / BANDS)


def _mean(recipe: Recipe, denoiser: Any, x: Tensor, t: float, label: Tensor | None, band: int) -> float:
    rng = seeded(recipe.training.seed, 11, band, device=x.device)
    total = 0.0
    for i in range(0, len(x), recipe.training.batch):
        part = x[i : i + recipe.training.batch]
        cond = None if label is None else label[i : i + recipe.training.batch]
        losses = recipe.objective.at(denoiser, part, torch.full((len(part),), t).to(part), cond, rng)
        total += losses.double().sum().item()
    return total / len(x)
