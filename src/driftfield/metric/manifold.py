"""Precision, recall, density, coverage: two samples compared as unions of balls about their own rows.

The ball about a row reaches to its k-th nearest neighbour in its own sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .check import rows, same_width

_TILE = 2**22  # squared distances, or values of neighbours, held at a time: 32 MB in float64


class Fidelity(NamedTuple):
    """How samples lie in the balls of the reference; each is a share or a mean, not a distance: larger is better."""

    precision: float
    density: float
    coverage: float


def fidelity(samples: Tensor, reference: Tensor, k: int = 5) -> Fidelity:
    """Precision, density and coverage of `samples` in the `k`-neighbour balls of the `reference`.

    Precision: the share of samples in some ball. Density: in how many balls a sample lies on average, over `k`; not
    bounded by 1. Coverage: the share of balls with a sample in them. For `n` samples and `m` reference points of one
    law without ties density is 1 on average and coverage is `expected_coverage(n, m, k)`, whatever the law; precision
    has no such value.

    Shapes: `samples` `(n, F)`, `reference` `(m, F)` with `m > k`, of any floating type; all is done in float64, in
            tiles: never `n x m x F`, nor `n x m`.
    Exact:  a point on a ball's surface is in it, and pairs near a surface are decided by the distance itself.
    Raises: ValueError for `k` below 1, `m <= k`, other shapes, different widths or values that are not finite.
    Source: precision: Kynkaanniemi et al. 2019; density and coverage: Naeem et al. 2020.
            [kynkaanniemi2019precision] [naeem2020density]
    """
    samples, reference = rows(samples), rows(reference)
    same_width(samples, reference)
    hits, covered = samples.new_zeros(len(samples)), 0.0
    for inside in _inside(samples, reference, radii(reference, k)):
        hits += inside.sum(0)
        covered += float(inside.any(1).sum())
    return Fidelity(float((hits > 0).double().mean()), float(hits.mean()) / k, covered / len(reference))


def recall(samples: Tensor, reference: Tensor, k: int = 5) -> float:
    """The share of the reference in some `k`-neighbour ball of the samples: precision with the parts exchanged.

    Shapes, Raises: as `fidelity`, with more than `k` samples.
    Source: Kynkaanniemi et al. 2019. [kynkaanniemi2019precision]
    """
    return fidelity(reference, samples, k).precision


def expected_coverage(n: int, m: int, k: int) -> float:
    """Coverage of `n` samples on average, where they are of the same law as the `m` reference points.

    A ball is empty where its own neighbours are the `k` nearest of all `m - 1 + n` other points, in random order.
    Source: Naeem et al. 2020, Lemma 2. [naeem2020density]
    """
    empty = 1.0
    for j in range(k):
        empty *= (m - 1 - j) / (m - 1 + n - j)
    return 1 - empty


def radii(x: Tensor, k: int) -> Tensor:
    """The distance from each row of `x`, `(n, F)`, to its `k`-th nearest other row: `(n,)`, in float64.

    Raises: ValueError for `k` below 1 or fewer than `k + 1` rows.
    """
    x = rows(x)
    if k < 1 or len(x) <= k:
        raise ValueError(
            f"{k} neighbours need more than {k} rows, and at least 1 of them; got {len(x)} rows: give more, or choose "
            "fewer neighbours"
        )
    centred = x - x.mean(0)
    half = centred.square().sum(1) / 2
    step = max(1, _TILE // max(len(x), k * x.shape[1]))
    out = []
    for start in range(0, len(x), step):
        tile = centred[start : start + step]
        near = torch.addmm(half, tile, centred.T, alpha=-1)  # |y|^2 / 2 - x.y
        near.diagonal(start).fill_(torch.inf)
        found = near.topk(k, largest=False).indices
        out.append((x[start : start + step, None] - x[found]).norm(dim=2).amax(1))
    return torch.cat(out)


def _inside(samples: Tensor, centres: Tensor, radius: Tensor) -> Iterator[Tensor]:
    """Which samples are in the balls, `(b, n)` for some of the centres at a time, in order."""
    shift = centres.mean(0)
    x, y = centres - shift, samples - shift
    x2, y2 = x.square().sum(1), y.square().sum(1)
    rounding = 2 * x.shape[1] * torch.finfo(torch.float64).eps  # of a squared distance by its product, relative
    step = max(1, _TILE // len(y))
    for start in range(0, len(x), step):
        at = slice(start, min(start + step, len(x)))
        size = x2[at, None] + y2
        gap = torch.addmm(size, x[at], y.T, alpha=-2).sub_(radius[at, None].square())
        inside = gap <= 0
        for i, j in _pairs(gap.abs() <= rounding * size, max(1, _TILE // x.shape[1])):
            inside[i, j] = (centres[start + i] - samples[j]).norm(dim=1) <= radius[start + i]
        yield inside


def _pairs(where: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The indices of what is true in a matrix, at most so many at a time."""
    for part in torch.split(where.nonzero(), most):
        yield part[:, 0], part[:, 1]
