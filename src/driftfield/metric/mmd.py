"""The maximum mean discrepancy of two samples, without bias, and its standard error without resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..rng import permutation
from .check import rows, same_width

_TILE = 2**18  # entries of a kernel matrix held at a time: 2 MB in float64, so that they stay in the cache
_FOR_MEDIAN = 2000  # rows whose distances give the median


class Kernel(NamedTuple):
    """A kernel as `profile(left(x) . right(y))`: its matrix is one matrix product, then entry by entry.

    `left` and `right` turn `(n, F)` into `(n, G)`; `profile` may change its argument in place.
    """

    left: Callable[[Tensor], Tensor]
    right: Callable[[Tensor], Tensor]
    profile: Callable[[Tensor], Tensor]


def radial(bandwidths: Sequence[float]) -> Kernel:
    """The mean over the `bandwidths` h of `exp(-|x - y|^2 / (2 h^2))`. Raises: ValueError unless all are above 0."""
    if not bandwidths or not all(0 < h < math.inf for h in bandwidths):
        raise ValueError(f"bandwidths are finite numbers above 0, at least one; got {list(bandwidths)}")

    def left(x: Tensor) -> Tensor:  # the product with `right` is x.y - |x|^2 / 2 - |y|^2 / 2 = -|x - y|^2 / 2
        return torch.cat((x, -x.square().sum(1, keepdim=True) / 2, x.new_ones(len(x), 1)), 1)

    def right(y: Tensor) -> Tensor:
        return torch.cat((y, y.new_ones(len(y), 1), -y.square().sum(1, keepdim=True) / 2), 1)

    def profile(p: Tensor) -> Tensor:
        if len(bandwidths) == 1:
            return p.div_(bandwidths[0] ** 2).exp_()
        return torch.stack([(p / h**2).exp_() for h in bandwidths]).mean(0)

    return Kernel(left, right, profile)


def mmd(a: Tensor, b: Tensor, bandwidths: Sequence[float]) -> tuple[float, float]:
    """The squared maximum mean discrepancy of two samples under a Gaussian kernel, and its standard error.

    The kernel is the mean over the `bandwidths` h, in units of a feature, of `exp(-|x - y|^2 / (2 h^2))`. To compare
    several samples with one reference, fix them by the reference alone: `median_distance(reference)`.

    Shapes: `a` is `(m, F)`, `b` is `(n, F)`, `m, n >= 4`, of any floating type; all is done in float64, in tiles.
    Exact:  unbiased, so below 0 for about half of all pairs of samples of one law; between 0 and 2 on average.
    Error:  as of `discrepancy`.
    Raises: ValueError for bandwidths that are not above 0, and what `discrepancy` raises.
    Source: Gretton et al. 2012, Eq. 3. [gretton2012mmd]
    """
    a, b = rows(a, least=4), rows(b, least=4)
    same_width(a, b)
    centre = b.mean(0)  # distances do not change, and their rounding is least about the centre
    return discrepancy(a - centre, b - centre, radial(bandwidths))


def median_distance(x: Tensor, rng: torch.Generator) -> float:
    """The median distance between two different rows of `x`, `(n, F)`: the customary bandwidth.

    Of up to 2,000 rows, chosen by `rng`. Raises: ValueError for fewer than 2 rows, or where most rows are one point.
    """
    x = rows(x, least=2)
    if len(x) > _FOR_MEDIAN:
        x = x[permutation(len(x), rng)[:_FOR_MEDIAN].to(x.device)]
    found = float(torch.pdist(x).median())
    if found == 0:
        raise ValueError("most rows of the reference are one and the same point, so it has no scale of its own")
    return found


def discrepancy(a: Tensor, b: Tensor, kernel: Kernel, own: Within | None = None) -> tuple[float, float]:
    """The squared maximum mean discrepancy of two samples under `kernel`, and its standard error.

    `own` is `within(b, kernel)`, where it is known: nearly all of the work where `b` is much the longer.

    Shapes: `a` is `(m, F)`, `b` is `(n, F)`, `m, n >= 4`, in float64; kernel matrices are passed through in tiles.
    Exact:  the value is unbiased, so it is below 0 for about half of all pairs of samples of one law. Every pair of
            rows counts: no subsets, nothing drawn.
    Error:  the standard deviation of the value over fresh samples of these sizes. Its square is estimated from the
            orthogonal (Hoeffding) parts of the statistic; each part's estimate is unbiased, and the two that may come
            out below 0, the variances of the witness function, count as 0 there. So it holds at equal laws too, where
            those vanish and the usual normal theory fails: there it is on average 1.1 times the spread (measured).
    Source: Gretton et al. 2012, Eq. 3; the variance after Hoeffding 1948, with second-order parts by U-centring,
            Szekely and Rizzo 2014. [gretton2012mmd] [hoeffding1948ustatistic] [szekely2014ucentring]
    """
    value, first, second = parts(a, b, kernel, own)
    return value, math.sqrt(sum(max(v, 0.0) for v in first) + second)


def unbiased(a: Tensor, b: Tensor, kernel: Kernel) -> float:
    """The value of `discrepancy` alone, for a quarter of its work."""
    m, n = len(a), len(b)
    aa, bb, ab = _sum(a, a, kernel, True), _sum(b, b, kernel, True), _sum(a, b, kernel, False)
    return aa / (m * (m - 1)) + bb / (n * (n - 1)) - 2 * ab / (m * n)


class Within(NamedTuple):
    """Of a kernel matrix of one sample: sums of each row without the diagonal, and the kernel's second-order part."""

    rows: Tensor
    pure: float


class _Between(NamedTuple):
    """Of a kernel matrix between two samples: sums of rows and columns, and the kernel's second-order part."""

    rows: Tensor
    columns: Tensor
    pure: float


def parts(a: Tensor, b: Tensor, kernel: Kernel, own: Within | None = None) -> tuple[float, tuple[float, float], float]:
    """The value, and unbiased estimates of the parts of its variance: first order from `a` and from `b`; second."""
    m, n = len(a), len(b)
    aa, bb, ab = within(a, kernel), own or within(b, kernel), _between(a, b, kernel)
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


def _tiles(x: Tensor, y: Tensor, kernel: Kernel, same: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
    """Square blocks of the kernel matrix, with the rows and the columns they are.

    Where both samples are the `same` only blocks on the diagonal and right of it, and with zeros for the diagonal.
    """
    left, right = kernel.left(x), kernel.right(y)
    step = max(1, math.isqrt(_TILE))
    for i in range(0, len(x), step):
        for j in range(i if same else 0, len(y), step):
            k = kernel.profile(left[i : i + step] @ right[j : j + step].T)
            if same and i == j:
                k.diagonal().zero_()
            yield slice(i, i + len(k)), slice(j, j + k.shape[1]), k


def _sum(x: Tensor, y: Tensor, kernel: Kernel, same: bool) -> float:
    """The sum of the kernel matrix, without its diagonal where both samples are the `same`."""
    total = x.new_zeros(())
    for at, to, k in _tiles(x, y, kernel, same):
        total += k.sum() * (2 if same and at != to else 1)
    return float(total)


def within(x: Tensor, kernel: Kernel) -> Within:
    """The sums of the kernel matrix of `x`, `(n, F)` in float64, n >= 4."""
    n = len(x)
    sums = x.new_zeros(n)
    for at, to, k in _tiles(x, x, kernel, True):
        sums[at] += k.sum(1)
        if at != to:
            sums[to] += k.sum(0)
    part, whole = sums / (n - 2), sums.sum() / ((n - 1) * (n - 2))
    square = x.new_zeros(())
    for at, to, k in _tiles(x, x, kernel, True):  # a second pass: the difference of large sums would cancel
        k -= part[at, None] + part[to] - whole
        if at == to:
            k.diagonal().zero_()
        square += k.square().sum() * (1 if at == to else 2)
    return Within(sums, float(square) / (n * (n - 3)))


def _between(x: Tensor, y: Tensor, kernel: Kernel) -> _Between:
    m, n = len(x), len(y)
    sums, columns = x.new_zeros(m), x.new_zeros(n)
    for at, to, k in _tiles(x, y, kernel):
        sums[at] += k.sum(1)
        columns[to] += k.sum(0)
    whole, square = sums.sum() / (m * n), x.new_zeros(())
    for at, to, k in _tiles(x, y, kernel):
        square += (k - (sums[at, None] / n + columns[to] / m - whole)).square().sum()
    return _Between(sums, columns, float(square) / ((m - 1) * (n - 1)))
