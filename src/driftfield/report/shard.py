"""Samples drawn by several processes: those that one would draw, for a row depends on the seed and its number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ranks
from ..generation import claim


def shared(
    draw: Callable[..., Any], shape: Sequence[int], *, batch: int = 256, to: Path | None = None
) -> tuple[Tensor | None, int]:
    """What `draw(part=, batch=, to=)` makes, its rows shared out to the joined processes; and the evaluations of each.

    `draw` is `generate` or `Recipe.sample` with all else that it takes; `shape` is that of all it draws, `(n, *data)`.
    Every process calls this. The samples come together on rank 0, the others get None; with `to`, a `.npy` file that
    all can reach, every one writes its rows there and gets a view of it. Batches are split as by one process where each
    has at least one, so that on a CPU the bits are the same; where they are fewer, rows agree as other splits do.
    """
    n = shape[0]
    mine = ranks.rows(n, batch)
    out: Tensor | Path | None = to
    if to is not None and ranks.count() > 1:
        ranks.first(claim, to, tuple(shape))
        out = torch.from_numpy(np.load(to, mmap_mode="r+"))[mine.start : mine.stop]
    x = draw(part=mine, batch=batch, to=out)
    spent = max(ranks.gathered(x.nfe))  # which also waits until all have written theirs
    if to is None:
        return ranks.collected(x, n, batch), spent
    return torch.from_numpy(np.load(to, mmap_mode="r+")), spent
