"""How far apart items lie, and of how many dimensions they are: what a finite sample says of its own scales."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rng import normal, permutation, seeded

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
NEIGHBOURS = 10
_WORK = 1e10  # multiply-adds that the distances may cost: about a second of one core
_TILE = 2**21  # numbers held at a time: 16 MB in float64
_CROWD = 1024  # items among which crowding is measured
_ORDER, _MIX = 0x53504143, 0x47415553  # the streams that choose which items are looked at, and mix them


@dataclass(frozen=True)
class Spacing:
    """Euclidean distances between items, in the model's units, from `items` of them to `among` others.

    `nearest` and `pairwise` are values at `QUANTILES` of the distance to the nearest other item and to any other one;
    `pairwise` ends with the largest. `reach` is the largest distance of two items, or of an item from the origin,
    where the noise is centred. `intrinsic` is the dimension by `intrinsic_dimension` from the 10 nearest, None where
    too few differ; `near` the share of items with another one within a tenth of the median nearest distance.
    `crowding` compares nearest distances with those of a Gaussian of the same covariance, see `crowding`.
    """

    items: int
    among: int
    nearest: tuple[float, ...]
    pairwise: tuple[float, ...]
    reach: float
    intrinsic: float | None
    near: float
    crowding: float


def spacing(x: Tensor, seed: int = 0) -> Spacing:
    """Measure a set `(M, N)`, `M >= 2`, of any floating type, on a subset chosen by `seed`; all in float64.

    As many items as 10 billion multiply-adds allow are measured: from up to 1,000 items to up to all of them.
    Raises: ValueError for fewer than 2 items.
    """
    if len(x) < 2:
        raise ValueError(f"distances need at least 2 items, got {len(x)}")
    width = x.shape[1]
    items = int(min(len(x), 1000, max(256, _WORK / (len(x) * width))))
    among = int(min(len(x), max(items, _WORK / (items * width))))
    chosen = x[permutation(len(x), seeded(seed, _ORDER))[:among]]
    near, pairs, far = _distances(chosen[:items], chosen, min(NEIGHBOURS, among - 1), own=True)
    first = near[:, 0]
    median = float(first.median())
    return Spacing(
        items,
        among,
        quantiles(first),
        (*quantiles(pairs)[:-1], far),
        max(far, float(chosen.norm(dim=1, dtype=torch.float64).max())),
        intrinsic_dimension(near),
        float((first <= median / 10).double().mean()),
        crowding(x[permutation(len(x), seeded(seed, _ORDER))[:_CROWD]], seed),
    )


def strays(x: Tensor, among: Tensor, seed: int = 0) -> Tensor:
    """The distance from each of up to 1,000 of `x` `(n, N)` to the nearest of `among` `(m, N)`, `(k,)`, in float64.

    Both are thinned by `seed` to what `spacing` would look at.
    """
    width = x.shape[1]
    items = int(min(len(x), 1000, max(128, _WORK / 2 / (len(among) * width))))
    kept = int(min(len(among), max(1, _WORK / 2 / (items * width))))
    a, b = (s[permutation(len(s), seeded(seed, _ORDER))[:n]] for s, n in ((x, items), (among, kept)))
    return _distances(a, b, 1, own=False)[0][:, 0]


def intrinsic_dimension(near: Tensor) -> float | None:
    """The dimension of a law from the distances `(n, k)` to the `k >= 2` nearest neighbours of `n` items, sorted.

    Near an item, the law is taken to be uniform on a flat piece of `d` dimensions: then `log(T_k / T_j)` is the sum of
    independent exponential variables, and the likelihood of all items is largest at this `d` (unbiased by the `- 1`),
    whose relative error is about `1 / sqrt(n (k - 1))`. Noise across the piece counts as dimensions once it is wider
    than these distances. Items with a copy are left out. None where no two distances differ.
    Source: Levina and Bickel 2004, Eq. 8, averaged over items by its inverse; with `k = 2` the estimate of Facco et
            al. 2017. [levina2004dimension] [facco2017twonn]
    """
    near = near[near[:, 0] > 0]
    n, k = near.shape
    total = float((near[:, -1:] / near[:, :-1]).log().sum()) if n and k > 1 else 0.0
    return (n * (k - 1) - 1) / total if total > 0 and n * (k - 1) > 1 else None


def crowding(x: Tensor, seed: int = 0) -> float:
    """How much nearer items `(M, N)` lie to their neighbours than items of a Gaussian of the same covariance do.

    The ratio of the two median nearest distances among `M` items each: 1 for Gaussian data, 1/100 for clusters a
    hundred times narrower than the distances between them, copies left aside. It is the scale of the finest structure
    that the sample shows, as a share of what the covariance alone would show. 1 where no two items differ.
    The Gaussian items are random mixtures of the centred data, drawn with `seed`.
    """
    x = x.double()
    centred = x - x.mean(0)
    mix = normal(x.new_empty(len(x), len(x)), seeded(seed, _MIX)) / math.sqrt(len(x))
    typical = [near[near > 0].sort().values for near in (_distances(y, y, 1, own=True)[0] for y in (x, mix @ centred))]
    if not all(map(len, typical)):
        return 1.0
    data, gauss = (float(near[len(near) // 2]) for near in typical)
    return data / gauss


def widest(x: Tensor) -> float:
    """The root-mean-square size of items `(M, N)` along the direction in which they are largest, seen from 0.

    The root of the largest eigenvalue of the mean of `x x^T`, of which the mean of the data is a part.
    """
    x = x.double()
    gram = x.T @ x if x.shape[1] < len(x) else x @ x.T
    return math.sqrt(float(torch.linalg.eigvalsh(gram)[-1]) / len(x))


def effective_dimension(x: Tensor) -> float | None:
    """The participation ratio `(tr C)^2 / tr C^2` of the covariance `C` of items `(M, N)` in random order.

    `N` for an isotropic law, 1 for a line: how many directions share the variance. Numerator and denominator come
    from the covariances of two halves of the sample, `tr C_1 tr C_2` over `tr C_1 C_2`, so neither is biased, whatever
    the law. None for fewer than 4 items, or halves that vary in no common direction.
    """
    if len(x) < 4:
        return None
    a, b = (half - half.mean(0) for half in (x[::2].double(), x[1::2].double()))
    shared = float((a @ b.T).square().sum())
    return float(a.square().sum()) * float(b.square().sum()) / shared if shared > 0 else None


def quantiles(x: Tensor) -> tuple[float, ...]:
    """The values of `x` at `QUANTILES`, by linear interpolation between the two nearest in order."""
    ordered = x.flatten().sort().values
    found = []
    for q in QUANTILES:
        place = q * (len(ordered) - 1)
        low, high = ordered[math.floor(place)].item(), ordered[math.ceil(place)].item()
        found.append(low + (place - math.floor(place)) * (high - low))
    return tuple(found)


def _distances(points: Tensor, among: Tensor, k: int, own: bool) -> tuple[Tensor, Tensor, float]:
    """The `k` nearest distances `(n, k)`, distances to a few hundred items, and the largest; all in float64.

    Where `own`, point `i` is item `i` of `among` and is not its own neighbour. Neighbours are found by a matrix
    product of centred values, a few items of `among` at a time; their distances are then taken directly, so a copy is
    at 0 exactly.
    """
    centre = points.mean(0, dtype=torch.float64)
    points = points.double() - centre
    square, rows = points.square().sum(1, keepdim=True), torch.arange(len(points))
    step, thin = max(k, _TILE // max(points.shape)), max(1, len(among) // 512)
    best, at = points.new_empty(len(points), 0), rows.new_empty(len(points), 0)
    pairs, far = [], 0.0
    for begin in range(0, len(among), step):
        tile = among[begin : begin + step].double() - centre
        d2 = torch.addmm(square + tile.square().sum(1), points, tile.T, alpha=-2)
        far = max(far, float(d2.max()))
        if own:
            inside = rows[begin : begin + step]
            d2[inside, inside - begin] = math.inf
        value, index = d2.topk(min(k, d2.shape[1]), largest=False)
        best, at = torch.cat((best, value), 1), torch.cat((at, begin + index), 1)
        best, order = best.topk(min(k, best.shape[1]), largest=False)
        at = at.gather(1, order)
        some = d2[:, ::thin]
        pairs.append(some[some.isfinite()].clamp_min(0).sqrt())  # rounding may leave a copy just below 0
    near = torch.cat(
        [_direct(p, among[i], centre) for p, i in zip(torch.split(points, 256), torch.split(at, 256), strict=True)]
    )
    return near, torch.cat(pairs), math.sqrt(max(0.0, far))


def _direct(points: Tensor, others: Tensor, centre: Tensor) -> Tensor:
    """The distances `(n, k)` of centred points `(n, N)` to their own others `(n, k, N)`, sorted."""
    apart: Tensor = (points[:, None] - (others.double() - centre)).norm(dim=2)
    return apart.sort(1).values
