"""The sliced Wasserstein distance: optimal transport along random lines, where sorting solves it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rng import Rng, device_of, normal
from .check import rows, same_width

_TILE = 2**22  # projected values held at a time: 32 MB in float64


def sliced_wasserstein(a: Tensor, b: Tensor, rng: Rng, projections: int = 256) -> tuple[float, float]:
    """The sliced 2-Wasserstein distance of two samples, and the standard error that random directions leave.

    `(E_u W2(u.a, u.b)^2)^(1/2)` with `u` uniform on the unit sphere, in units of the data: a shift by `m` in `F`
    dimensions is at distance `|m| / sqrt(F)`.

    Shapes: `a` is `(n, F)`, `b` is `(m, F)`, of any floating type and any two sizes; all is done in float64.
    Exact:  along each line, by quantile functions; in one dimension altogether. Two samples of one law are not at 0
            but at a floor that falls with their size: compare values of equal sizes.
    Error:  of the mean over directions only (its standard deviation, by the delta method through the root), not over
            samples. 0 where `F = 1`.
    Raises: ValueError for fewer than 2 projections, other shapes, different widths or values that are not finite.
    Source: Rabin et al. 2011; Bonneel et al. 2015, Sec. 3. [rabin2011sliced] [bonneel2015sliced]
    """
    if projections < 2:
        raise ValueError(f"a standard error needs at least 2 projections, got {projections}")
    a, b = rows(a), rows(b)
    same_width(a, b)
    lines = normal(torch.empty(projections, a.shape[1], dtype=torch.float64, device=device_of(rng)), rng).to(a.device)
    lines = lines / lines.norm(dim=1, keepdim=True)
    at_a, at_b, weight = _pairs(len(a), len(b))
    at_a, at_b, weight = at_a.to(a.device), at_b.to(a.device), weight.to(a.device)
    step = max(1, _TILE // len(weight))
    squares = torch.cat([_squares(u @ a.T, u @ b.T, at_a, at_b, weight) for u in torch.split(lines, step)])
    value = math.sqrt(float(squares.mean()))
    if value == 0:  # every square is 0
        return 0.0, 0.0
    return value, float(squares.std()) / math.sqrt(projections) / (2 * value)


def _squares(a: Tensor, b: Tensor, at_a: Tensor, at_b: Tensor, weight: Tensor) -> Tensor:
    """The squared distance along each line, `(L,)`, of values `(L, n)` and `(L, m)`."""
    a, b = (x.sort(1).values[:, at] for x, at in ((a, at_a), (b, at_b)))
    return (a - b).square() @ weight


def _pairs(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which of `n` and of `m` sorted values face each other, and the share of probability: at most `n + m - 1` pieces.

    Quantile functions step at multiples of `1/n` and `1/m`; in units of `1/(nm)` the steps are whole numbers.
    """
    ends = torch.unique(torch.cat((torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n)))
    weight = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    return (ends - 1) // m, (ends - 1) // n, weight
