"""The law of a subordinator's variance as a sum over points, and the kernel that it mixes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from ..special import Array, Contour, laplace_contour
from .bernstein import numpy_of
from .symbols import Symbol

FAR = 1e9  # the largest distance, in levels
_FARTHER = 1e4  # times it, to which variances count: a power of index 1/20 needs as much there
_COARSE = 0.1  # the step of the logarithm of the saddle point, at most
_FINE = 0.6  # the step between the points of a law, in widths of what is summed over them
_DEEP = 5000.0  # 1 / width^2 to which the far tail is resolved: enough for a log-kernel of -10^4
_RARE = 2e4  # a law too narrow to be seen beyond is cut off where its log-density has fallen by this
_NARROW = 1e-5  # the relative width of a law that is one point
_ROWS = 64  # of a table, mixed at a time


class Law(NamedTuple):
    """The law of the variance at one time as a sum over points, at level 1."""

    log_variance: Array  # (K,)
    log_mass: Array  # (K,)
    rate: Array  # (K,), d ln(variance) / 2 d ln(level) along a quantile


def law_of(symbol: Symbol, log_level: float, n: int) -> Law:
    """Points so close that a Gaussian's place in `n` dimensions, and the law itself, are resolved between them.

    They are saddle points of the inversion integral. The law is inverted without its drift, and after a tilt by
    `exp(edge A)`, so that its tail is a power at most. Beside a drift, jumps too small to be seen are one point.
    """
    unit = torch.tensor(4 * math.exp(-2 * log_level), dtype=torch.float64)
    time = 2 / float(symbol(unit))
    edge, least = symbol.edge, 1e-9 * symbol.edge  # below `least`, the tilt has no digits left
    if edge > 0 and _unbounded(symbol):
        edge, least = edge * (1 - 1e-6), 1e-6 * edge
    base = _at(symbol, -edge) if edge > 0 else 0.0

    def log_transform(mu: Array) -> Array:
        return np.asarray(-time * (numpy_of(symbol.jumps, mu - edge + 0j) - base))

    def log_variance(y: Array) -> Array:
        return np.asarray(np.log(2 * (y + time * symbol.drift)) - 2 * log_level)

    steepness = float(symbol.steepness(unit))
    width = 1.0  # of the tilted law around its mean, whose saddle point is `edge`, in ln(lam)
    if edge > 0:
        mean = laplace_contour(log_transform, np.array([edge]), 2)
        width = float(mean.spacing[0] * edge) ** -0.5
        if width < _NARROW:
            return Law(log_variance(mean.y - 1 / edge), np.zeros(1), np.array([steepness]))
    lam = float(unit) * np.exp(np.arange(-110.0, 110.0))
    lam = lam[lam > least]
    with np.errstate(all="ignore"):  # far beyond the law, where there is nothing to see
        coarse = laplace_contour(log_transform, lam, 2)
        log_v = log_variance(coarse.y)
        score = coarse.log_scale - edge * coarse.y - n / 2 * log_v + np.log(lam * coarse.spacing)
    usable = np.isfinite(score) & (log_v < 2 * math.log(_FARTHER * FAR)) & (log_v > -2 * math.log(FAR) - math.log(n))
    middle = int(np.searchsorted(lam, float(unit) + edge))  # in the bulk of the law, where its transform is exp(-2)
    gaps = np.flatnonzero(~usable)
    first = int(gaps[gaps < middle].max(initial=-1)) + 1
    last = int(gaps[gaps > middle].min(initial=len(lam)))
    best = first + int(np.argmax(score[first:last]))
    low = np.flatnonzero(score[best:last] < score[best] - 60)
    ends = np.log(lam[[first, best + low[0] if len(low) else last - 1]])
    log_lam = _around(ends, math.log(edge), width) if edge > 0 else np.arange(ends[0], ends[1] + _COARSE, _COARSE)
    lam = np.exp(log_lam)
    with np.errstate(all="ignore"):  # judged below
        path = laplace_contour(log_transform, lam)
    here = np.where(path.weights == 0, 0, log_transform(path.points))
    thin = (log_transform(lam + 0j).real > -1)[:, None]  # most of the transform is then 1, which is nothing here
    part = path.weights * np.where(thin, -np.expm1(-np.where(thin, here, 0)), 1)
    density = part.sum(1).real
    at = path.points - edge
    constant = base / -edge if edge > 0 else 0.0
    flow = (path.weights * (numpy_of(symbol.jumps, at) / at - constant)).sum(1).real
    blurred = np.flatnonzero(~(density >= 1e-8 * np.abs(part).sum(1)))
    if edge == 0 and len(blurred) and lam[blurred[-1]] < unit:  # the tail is rarer than a power, and `edge` not said
        kept = slice(int(blurred[-1]) + 1, None)
        log_lam, lam, density, flow = log_lam[kept], lam[kept], density[kept], flow[kept]
        path = Contour(*(column[kept] for column in path))
    if not (density > 0).all():
        raise FloatingPointError(f"the law of {symbol} at level {math.exp(log_level):.3g} could not be inverted")
    moved = symbol.drift + constant + flow / density  # dA / dt along a quantile
    rate = moved / (path.y + time * symbol.drift) * time * steepness
    log_v, away = log_variance(path.y), lam - edge
    log_height = away * path.y - time * numpy_of(symbol.jumps, away + 0j).real
    log_density = log_height + np.log(density * path.spacing)
    score = log_density - n / 2 * log_v
    seen = (score > score.max() - 60) | (np.arange(len(lam)) < np.argmax(score))
    if width < _RARE**-0.5:
        seen &= log_density > log_density.max() - _RARE
    kept = slice(*np.flatnonzero(seen)[[0, -1]] + [0, 1])
    share = path.y / (path.y + time * symbol.drift)
    pace = path.spacing / path.y  # -d ln(y) / d ln(lam)
    sharp = _sharpness(lam * path.y, pace, edge * path.y) + (n / 2 + 1) * share**2
    columns = np.stack((log_v, log_density, rate))[:, kept]
    (log_v, log_mass, rate), log_step = _spread(log_lam[kept], pace[kept] * np.sqrt(sharp[kept]) / _FINE, columns)
    log_mass = log_mass + log_step
    last = kept.stop - 1
    below = float((path.weights[last] / (path.points[last] - edge)).sum().real)
    if symbol.drift > 0 and away[last] > 0 and below > 0:  # half of the last point stands for what is below it
        log_mass[-1] -= math.log(2)
        log_v = np.append(log_v, math.log(2 * time * symbol.drift) - 2 * log_level)
        log_mass, rate = np.append(log_mass, log_height[last] + math.log(below)), np.append(rate, steepness)
    return Law(log_v, log_mass, rate)


def _sharpness(p: Array, pace: Array, decay: Array) -> Array:
    """`1 / width^2`, in `ln(y)`, of the law with the Gaussian head that meets it: `p = lam y`, `decay = edge y`.

    The law alone has `p / pace`; where its tail `exp(-edge y)` meets the Gaussian's head, each bends by `edge y`.
    """
    law, tail = p / pace, 2 * decay
    return np.asarray(law + tail / (1 + tail / (law + _DEEP)))


def _spread(log_lam: Array, dense: Array, columns: Array) -> tuple[Array, Array]:
    """The columns, and the logarithm of the step of `log_lam`, at points with `dense` of them to a unit of it."""
    along = CubicSpline(log_lam, np.hypot(dense, 1 / _COARSE)).antiderivative()(log_lam)
    splines = CubicSpline(along, np.vstack((log_lam, columns)), axis=1)
    points = np.linspace(0, along[-1], math.ceil(along[-1]) + 1)
    return splines(points)[1:], np.log(splines(points, 1)[0] * points[1])


def _around(ends: Array, centre: float, width: float) -> Array:
    """Points from one end to the other, a tenth of `width` apart at the centre and of 1 far from it."""
    reach = np.arcsinh((ends - centre) / width)
    away = width * np.sinh(np.linspace(reach[0], reach[1], 4001))
    place = (np.arcsinh(away / width) + away) / _COARSE
    return np.asarray(centre + np.interp(np.arange(place[0], place[-1]), place, away))


def _unbounded(symbol: Symbol) -> bool:
    """Whether `symbol` falls without bound towards its edge, told from points beside it: at it, rounding decides."""
    first, second, third = (_at(symbol, -symbol.edge * (1 - 10.0**-j)) for j in (2, 4, 6))
    return not abs(third - second) < 0.7 * abs(second - first)


def _at(symbol: Symbol, lam: float) -> float:
    """`symbol.jumps` at a real number, which may be negative."""
    return float(symbol.jumps(torch.tensor(lam + 0j, dtype=torch.complex128)).real)


def mixed(law: Law, n: int, d2: Array) -> tuple[Array, Array]:
    """The log-kernel and the pull in `n` dimensions at squared distances `d2`."""
    log_weight = law.log_mass - n / 2 * law.log_variance
    half = np.exp(-law.log_variance) / 2
    profile, pull = np.empty_like(d2), np.empty_like(d2)
    for rows in np.array_split(np.arange(len(d2)), math.ceil(len(d2) / _ROWS)):
        ends = log_weight - d2[rows[[0, -1]], None] * half
        near = np.flatnonzero((ends > ends.max(1, keepdims=True) - 60).any(0))
        some = slice(near[0], near[-1] + 1)  # the farther the place, the larger the variance: no other matters
        exponent = log_weight[some] - d2[rows, None] * half[some]
        top = exponent.max(1, keepdims=True)
        weight = np.exp(exponent - top)
        total = weight.sum(1)
        profile[rows] = top[:, 0] + np.log(total)
        pull[rows] = weight @ law.rate[some] / total
    return profile - n / 2 * math.log(2 * math.pi), pull


def core_of(law: Law, n: int) -> float:
    """The squared distance over which the kernel first falls, `n / E[1 / V]` at its centre."""
    log_weight = law.log_mass - n / 2 * law.log_variance
    weight = np.exp(log_weight - log_weight.max())
    return max(n * float(weight.sum() / (weight @ np.exp(-law.log_variance))), FAR**-2)
