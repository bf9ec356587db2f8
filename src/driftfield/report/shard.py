"""Samples drawn by several processes: those that one would draw, for a row depends on the seed and its number alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ranks
from ..denoise.base import Denoiser
from ..generation import claim, plan
from ..recipe import Recipe


def sample(
    recipe: Recipe,
    denoiser: Denoiser,
    n: int,
    *,
    solver: str | None = None,
    nfe: int | None = None,
    grid: str | None = None,
    seed: int = 0,
    cond: Any = None,
    start: Tensor | None = None,
    level: float | None = None,
    batch: int = 256,
    device: torch.device | str = "cpu",
    to: Path | None = None,
    progress: bool = False,
) -> tuple[Tensor | None, int]:
    """`Recipe.sample`, its rows shared out to the processes that are joined; and the evaluations each row took.

    Every process calls it. The samples come together on rank 0, the others get None; with `to`, a `.npy` file that all
    can reach, every one writes its rows there and gets a view of it. Batches are split as by one process where each
    has at least one, so that on a CPU the bits are the same; where they are fewer, rows agree as other splits do.
    """
    s = recipe.sampling
    budget = s.nfe if nfe is None else nfe
    spent = plan(recipe.objective.process, solver=solver or s.solver, nfe=budget, grid=grid or s.grid, level=level).nfe
    mine = ranks.rows(n, batch)
    out: Tensor | Path | None = to
    if to is not None and ranks.count() > 1:
        assert recipe.info is not None
        ranks.first(claim, to, (n, *recipe.info.shape))
        out = torch.from_numpy(np.load(to, mmap_mode="r+"))[mine.start : mine.stop]
    x = recipe.sample(
        denoiser,
        n,
        solver=solver,
        nfe=nfe,
        grid=grid,
        seed=seed,
        cond=cond,
        start=start,
        level=level,
        part=mine,
        batch=batch,
        device=device,
        to=out,
        progress=progress,
    )
    if to is None:
        return ranks.collected(x, n, batch), spent
    ranks.gathered(None)  # until all have written theirs
    return torch.from_numpy(np.load(to, mmap_mode="r+")), spent
