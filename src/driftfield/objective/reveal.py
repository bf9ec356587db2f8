"""Training that tells the network part of each sample, so that one network answers every conditional question."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear import flat
from ..rng import Rng, uniform


@dataclass(frozen=True)
class Reveal:
    """Which variables of a sample are known while it is denoised, drawn anew for every row of a batch.

    A share `nothing` of the rows has nothing known, which trains the unconditional model. In the others the number of
    known variables is uniform from 1 to one less than all, and which they are is uniform: every subset has a chance.
    `widths` are the numbers of neighbouring entries that make one variable and are known together (the coordinates of
    a category), over the flattened sample; None is filled in from the data.

    The estimate at the other entries is then `E[x_0 | x_t there, what is known]`, and the noise that the known entries
    would have had plays no part: the marginal on some coordinates of a Gaussian, and of Student's t at any D, is the
    same law on those alone, so the flow of the others is exact for the conditional law.
    Raises: ValueError for a share outside [0, 1].
    """

    nothing: float = 0.5
    widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.nothing <= 1:
            raise ValueError(f"nothing is the share of rows of which nothing is known, from 0 to 1; got {self.nothing}")

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """Masks like `x`, `(B, *shape)`: 1 where known, 0 where not, -1 where the data are missing (NaN).

        Raises: ValueError before `widths` are filled in, or where they do not make the shape.
        """
        if self.widths is None:
            raise ValueError("reveal needs the widths of the variables; resolve the recipe with its data first")
        if sum(self.widths) != x[0].numel():
            raise ValueError(f"the widths sum to {sum(self.widths)}, but samples have {x[0].numel()} entries")
        n, variables = len(x), len(self.widths)
        u = uniform(torch.empty(n, variables + 2, device=x.device), rng)
        count = 1 + (u[:, -2] * (variables - 1)).floor() if variables > 1 else torch.zeros_like(u[:, 0])
        count = torch.where(u[:, -1] < self.nothing, 0, count)
        order = u[:, :variables].argsort(1).argsort(1)
        known = (order < count[:, None]).to(x.dtype)
        each = torch.tensor(self.widths, device=x.device)
        mask = known.repeat_interleave(each, 1, output_size=sum(self.widths)).reshape(x.shape)
        return torch.where(x.isnan(), -1, mask)


def told(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Samples with 0 in place of what is missing, what is known of them (0 elsewhere), and their masks.

    Without a mask nothing is known but what is missing.
    """
    missing = x.isnan()
    x = torch.where(missing, 0, x)
    mask = torch.where(missing, -1, torch.zeros_like(x) if mask is None else mask)
    return x, torch.where(mask > 0, x, 0), mask


def unknown_mean(squares: Tensor, mask: Tensor) -> Tensor:
    """The mean `(B,)` of `squares` over the entries to be found, 0 for a row that has none."""
    wanted = (mask == 0).to(squares.dtype)
    return flat(squares * wanted).sum(1) / flat(wanted).sum(1).clamp(min=1)
