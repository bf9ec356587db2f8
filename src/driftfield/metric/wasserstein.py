"""Wasserstein distances: optimal transport along random lines, where sorting solves it, and exactly."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from ..rng import Rng, device_of, normal
from .check import rows, same_width

_TILE = 2**22  # projected values held at a time: 32 MB in float64
_MOST = 2**27  # costs held for exact transport: 1 GB in float64
_PAIRS = 4096  # moves measured at a time; a plan has at most n + m - 1
_PIVOTS = 10_000_000  # of the network simplex: a bound against running for ever, far above what is needed


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


def wasserstein(a: Tensor, b: Tensor) -> float:
    """The 2-Wasserstein distance of two samples, in units of a feature: the root of the least mean squared move.

    Shapes: `a` is `(n, F)`, `b` is `(m, F)`, of any floating type and any two sizes; all is done in float64.
    Exact:  the optimum, by sorting where `F = 1` and else by the network simplex of POT. Two samples of one law are not
            at 0 but at a floor that falls with their size as slowly as `n^(-1/F)`: compare values of equal sizes.
    Raises: ImportError without POT where `F > 1`; ValueError for more than 2^27 pairs, a simplex that did not end,
            other shapes, different widths or values that are not finite.
    Source: Villani 2009, Ch. 6; Bonneel et al. 2011 for the simplex. [villani2009transport] [bonneel2011displacement]
    """
    a, b = rows(a), rows(b)
    same_width(a, b)
    if a.shape[1] == 1:
        at_a, at_b, weight = (x.to(a.device) for x in _pairs(len(a), len(b)))
        return math.sqrt(float(_squares(a.T, b.T, at_a, at_b, weight)))
    if len(a) * len(b) > _MOST:
        raise ValueError(
            f"exact transport holds the costs of all {len(a)} x {len(b)} pairs, and {_MOST:,} is the most; "
            "give fewer samples, or take the sliced distance"
        )
    try:
        import ot
    except ImportError:
        raise ImportError("exact transport comes with POT: pip install 'driftfield[transport]'") from None
    centre = b.mean(0)
    x, y = a - centre, b - centre
    cost = torch.addmm(y.square().sum(1), x, y.T, alpha=-2).add_(x.square().sum(1, keepdim=True)).cpu().numpy()
    uniform = [torch.full((len(part),), 1 / len(part), dtype=torch.float64).numpy() for part in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the simplex did not end, or did not find a plan, is only warned of
        try:
            plan = ot.emd(*uniform, cost, numItermax=_PIVOTS)
        except UserWarning as error:
            raise ValueError(f"exact transport of {len(a)} to {len(b)} rows was not solved ({error})") from None
    i, j = (torch.from_numpy(index).to(a.device) for index in plan.nonzero())
    moved = torch.from_numpy(plan[plan.nonzero()]).to(a.device)
    pieces = zip(torch.split(i, _PAIRS), torch.split(j, _PAIRS), strict=True)
    squares = torch.cat([(a[p] - b[q]).square().sum(1) for p, q in pieces])  # directly: equal points are at 0 exactly
    return math.sqrt(float(squares @ moved))


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
