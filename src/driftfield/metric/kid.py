"""The kernel distance between two samples (KID), without bias, and its standard error without resampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from .check import rows, same_width

_TILE = 2**18  # entries of a kernel matrix held at a time: 2 MB in float64, so that they stay in the cache


class _Within(NamedTuple):
    """Of a kernel matrix of one sample: sums of each row without the diagonal, and the kernel's second-order part."""

    rows: Tensor
    pure: float


class _Between(NamedTuple):
    """Of a kernel matrix between two samples: sums of rows and columns, and the kernel's second-order part."""

    rows: Tensor
    columns: Tensor
    pure: float


def kid(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The squared maximum mean discrepancy of two samples under the kernel `(x.y / F + 1)^3`, and its standard error.

    Shapes: `a` is `(m, F)`, `b` is `(n, F)`, `m, n >= 4`, of any floating type; all is done in float64, in tiles.
    Exact:  the value is unbiased, so it is below 0 for about half of all pairs of samples of one law. Every pair of
            rows counts: no subsets, nothing drawn.
    Error:  the standard deviation of the value over fresh samples of these sizes. Its square is estimated from the
            orthogonal (Hoeffding) parts of the statistic; each part's estimate is unbiased, and the two that may come
            out below 0, the variances of the witness function, count as 0 there. So it holds at equal laws too, where
            those vanish and the usual normal theory fails: there it is on average 1.1 times the spread (measured).
    Raises: ValueError for fewer than 4 rows, other shapes, different widths or values that are not finite.
    Source: Gretton et al. 2012, Eq. 3; Binkowski et al. 2018; the variance after Hoeffding 1948, with second-order
            parts by U-centring, Szekely and Rizzo 2014.
            [gretton2012mmd] [binkowski2018kid] [hoeffding1948ustatistic] [szekely2014ucentring]
    """
    a, b = rows(a, least=4), rows(b, least=4)
    same_width(a, b)
    value, first, second = _parts(a, b)
    return value, math.sqrt(sum(max(v, 0.0) for v in first) + second)


def _parts(a: Tensor, b: Tensor) -> tuple[float, tuple[float, float], float]:
    """The value, and unbiased estimates of the parts of its variance: first order from `a` and from `b`; second."""
    m, n = len(a), len(b)
    aa, bb, ab = _within(a), _within(b), _between(a, b)
    value = aa.rows.sum() / (m * (m - 1)) + bb.rows.sum() / (n * (n - 1)) - 2 * ab.rows.sum() / (m * n)
    # The witness E k(z, a) - E k(z, b) at each row; dividing by m - 2 undoes that a row is left out of its own mean.
    at_a = aa.rows / (m - 2) - ab.rows / n
    at_b = bb.rows / (n - 2) - ab.columns / m
    first = (
        4 / m * (float(at_a.var()) - aa.pure / (m - 2) - ab.pure / n),
        4 / n * (float(at_b.var()) - bb.pure / (n - 2) - ab.pure / m),
    )
    second = 2 * aa.pure / (m * (m - 1)) + 2 * bb.pure / (n * (n - 1)) + 4 * ab.pure / (m * n)
    return float(value), first, second


def _tiles(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of the kernel matrix, with the rows they are."""
    step = max(1, _TILE // len(y))
    for start in range(0, len(x), step):
        at = slice(start, min(start + step, len(x)))
        k = (x[at] @ y.T).div_(x.shape[1]).add_(1)
        yield at, k.square().mul_(k)


def _within(x: Tensor) -> _Within:
    n = len(x)
    sums = x.new_empty(n)
    for at, k in _tiles(x, x):
        k.diagonal(at.start).zero_()
        sums[at] = k.sum(1)
    part, whole = sums / (n - 2), sums.sum() / ((n - 1) * (n - 2))
    square = x.new_zeros(())
    for at, k in _tiles(x, x):  # a second pass: the difference of large sums would cancel
        k -= part[at, None] + part - whole
        k.diagonal(at.start).zero_()
        square += k.square().sum()
    return _Within(sums, float(square) / (n * (n - 3)))


def _between(x: Tensor, y: Tensor) -> _Between:
    m, n = len(x), len(y)
    sums, columns = x.new_empty(m), x.new_zeros(n)
    for at, k in _tiles(x, y):
        sums[at] = k.sum(1)
        columns += k.sum(0)
    whole, square = sums.sum() / (m * n), x.new_zeros(())
    for at, k in _tiles(x, y):
        square += (k - (sums[at, None] / n + columns / m - whole)).square().sum()
    return _Between(sums, columns, float(square) / ((m - 1) * (n - 1)))
