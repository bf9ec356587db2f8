"""Any smoothing equation with a Bernstein symbol as a process: Gaussian noise of a subordinator's variance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from ..linear import expand
from ..rng import Rng, normal
from ..special import Array, laplace_contour
from .base import check_climb
from .bernstein import check_bernstein, numpy_of
from .curves import Curves, Sheet, curve, sheet
from .gaussian import EDM
from .smoothing import LEVELS, Smoothing, beside
from .symbols import Power, Symbol

_FAR = 1e9  # the largest distance, in levels
_COARSE, _FINE = 0.1, 0.02  # steps of the logarithm of the saddle point: of the inversion, and where tails are cut off
_U = 0.05  # step of ln(1 + (d / core)^2) in a table
_STRIDE, _BEYOND = 0.2, 30.0  # step of ln(level) in one for every time, which reaches as far beyond the span


class Subordination(Smoothing):
    """The noise `sqrt(2 A_t) g`, with `E exp(-lam A_t) = exp(-t Omega(lam))` for the Bernstein function `symbol`."""

    symbol: Symbol

    def sigma(self, t: Tensor) -> Tensor:
        safe = t.where(t > 0, 1.0)
        return (2 * self.symbol.inverse(2 / safe).rsqrt()).to(t).where(t > 0, 0.0)

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        level = self.sigma(t)
        return torch.zeros_like(t), level / (2 * t * self.symbol.steepness(4 / level.double().square())).to(t)

    def time(self, level: Tensor) -> Tensor:
        return (2 / self.symbol(4 / level.double().square())).to(level)

    @property
    def freedom(self) -> float:
        return {1.0: math.inf, 0.5: 1.0}.get(self.symbol.index or 0.0) or super().freedom

    def scale(self, t: Tensor, rng: Rng) -> Tensor:
        return (2 * self.symbol.draw(t.double(), rng)).sqrt()

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        """From the least distance of the table, 1e-9 levels, where the kernel may be infinite at its centre."""
        if self.symbol.index == 1:
            return EDM().log_profile(d2, self.sigma(t), n)
        values = self._values(d2, t, n, 0)
        return (values - beside(self._centre(t, n), d2)).to(d2)

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        level = self.sigma(t)
        if self.symbol.index == 1:
            return EDM().log_peak(level, n)
        return (self._centre(t, n) - n * level.double().log()).to(t)

    def pull(self, d2: Tensor, t: Tensor, n: int) -> Tensor | None:
        return None if self.symbol.index else self._values(d2, t, n, 1).to(d2)

    def score(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return EDM().score(x, self.sigma(t), y) if self.symbol.index == 1 else super().score(x, t, y)

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` given `x_s = x`, for `t >= s`: add the noise of the time `t - s`."""
        check_climb(s, t)
        g = normal(x, rng)
        step = (t - s).double() * torch.ones(len(x), dtype=torch.float64, device=x.device)
        deviation = self.scale(step.where(step > 0, 1.0), rng).where(step > 0, 0.0)
        return x + expand(deviation, x) * g

    def _values(self, d2: Tensor, t: Tensor, n: int, which: int) -> Tensor:
        """The log-kernel at level 1 (0) or the pull (1) at squared distances from the datum, in float64."""
        core, tables = self._tables(t, n)
        level = beside(self.sigma(t), d2)
        u = (d2.double() / (core * level.square())).log1p()
        return tables[which].to(d2.device)(u.reshape(len(tables[which].knots), -1)).reshape(u.shape)

    def _centre(self, t: Tensor, n: int) -> Tensor:
        """The log-kernel at level 1 at its centre, `()` or `(B,)` shaped like `t`."""
        start = self._tables(t, n)[1][0].knots[:, 0, 0].to(t.device)
        return start.expand(t.numel()).reshape(t.shape)  # a stable law has one table for all times

    def _tables(self, t: Tensor, n: int) -> tuple[float, tuple[Curves, Curves]]:
        """The size of the core, squared, and the two functions of `ln(1 + d^2 / core)`, one or one for each time."""
        if self.symbol.index:
            return _row(self.symbol, n, 0.0)
        if t.ndim == 0 and t.device.type == "cpu":  # the time of a grid: exact, and nothing waits
            return _row(self.symbol, n, math.log(float(self.sigma(t.double()))))
        core, sheets = _sheets(self.symbol, n, self.levels)
        a = self.sigma(t.double()).log().reshape(-1)
        profile, pull = (s.to(a.device).at(a) for s in sheets)
        return core, (profile, pull)


@dataclass(frozen=True)
class Subordinated(Subordination):
    """The equation `phi_t + Omega(-laplace) phi = 0` for any Bernstein symbol `Omega`, sums of symbols among them.

    The noise is `sqrt(2 A_t) g` with `E exp(-lam A_t) = exp(-t Omega(lam))`: `Power(1.0) + 0.3 * Power(0.5)` adds to
    the noise of diffusion an independent one of Poisson flow. Increments over separate times are independent, so a
    walk upward is exact. The level solves `t Omega(4 / level^2) = 2`.
    Exact:  draws as those of the symbol. The kernel and the pull are found by inverting Laplace transforms: for a time
            of a grid to 1e-5 of the log-kernel, while that is above -10^4, and of the pull, some 0.1 s once; for times
            that differ from row to row (training) by interpolation, to 1e-3, some seconds once, within 30 times the
            `levels`. Both at distances of 1e-9 to 1e9 levels.
    Raises: ValueError for a symbol that is not a Bernstein function, or is bounded.
    Source: Bochner 1955, Ch. 4; Liu et al. 2023. [bochner1955harmonic] [liu2023genphys]
    """

    symbol: Symbol = field(default_factory=Power)
    levels: tuple[float, float] = LEVELS
    span: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_bernstein(self.symbol)
        self._settle()


class _Law(NamedTuple):
    """The law of the variance at one time as a sum over points, at level 1."""

    log_variance: Array  # (K,)
    log_mass: Array  # (K,)
    rate: Array  # (K,), d ln(variance) / 2 d ln(level) along a quantile


def _law(symbol: Symbol, log_level: float, n: int) -> _Law:
    """Points so close that a Gaussian's place in `n` dimensions, and the law itself, are resolved between them.

    They are saddle points of the inversion integral at even steps of their logarithm. The law is inverted without its
    drift, and after a tilt by `exp(edge A)`, so that its tail is a power at most.
    """
    unit = torch.tensor(4 * math.exp(-2 * log_level), dtype=torch.float64)
    time = 2 / float(symbol(unit))
    edge, least = symbol.edge, 1e-9 * symbol.edge  # below `least`, the tilt has no digits left
    base = _at(symbol, -edge)
    if not math.isfinite(base):
        edge, least = symbol.edge * (1 - 1e-6), 1e-6 * symbol.edge
        base = _at(symbol, -edge)

    def log_transform(mu: Array) -> Array:
        return np.asarray(-time * (numpy_of(symbol.jumps, mu - edge + 0j) - base))

    def log_variance(y: Array) -> Array:
        return np.asarray(np.log(2 * (y + time * symbol.drift)) - 2 * log_level)

    lam = float(unit) * np.exp(np.arange(-110.0, 110.0))
    lam = lam[lam > least]
    with np.errstate(all="ignore"):  # far beyond the law, where there is nothing to see
        coarse = laplace_contour(log_transform, lam, 2)
        log_v = log_variance(coarse.y)
        score = coarse.log_scale - edge * coarse.y - n / 2 * log_v + np.log(lam * coarse.spacing)
    usable = np.isfinite(score) & (log_v < 2 * math.log(_FAR)) & (log_v > -2 * math.log(_FAR) - math.log(n))
    middle = int(np.searchsorted(lam, float(unit)))  # in the bulk of the law, where its transform is exp(-2)
    gaps = np.flatnonzero(~usable)
    first = int(gaps[gaps < middle].max(initial=-1)) + 1
    last = int(gaps[gaps > middle].min(initial=len(lam)))
    best = first + int(np.argmax(score[first:last]))
    low = np.flatnonzero(score[best:last] < score[best] - 60)
    ends = np.log(lam[[first, best + low[0] if len(low) else last - 1]])
    log_lam = np.arange(ends[0], ends[1] + _COARSE, _COARSE)
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
        log_lam, density, flow = log_lam[kept], density[kept], flow[kept]
        path = path._replace(y=path.y[kept], spacing=path.spacing[kept], log_scale=path.log_scale[kept])
    if not (density > 0).all():
        raise FloatingPointError(f"the law of {symbol} at level {math.exp(log_level):.3g} could not be inverted")
    moved = symbol.drift + constant + flow / density  # dA / dt along a quantile
    rate = moved / (path.y + time * symbol.drift) * time * float(symbol.steepness(unit))
    log_density = path.log_scale + np.log(density * path.spacing) - edge * path.y - time * base
    spacing = min(_FINE if edge > 0 else _COARSE, 0.6 * math.sqrt(2 / (n + 2)))
    columns = CubicSpline(log_lam, np.stack((log_variance(path.y), log_density, rate)), axis=1)
    log_v, log_density, rate = columns(np.arange(log_lam[0], log_lam[-1], spacing))
    return _Law(log_v, log_density + math.log(spacing), rate)


def _at(symbol: Symbol, lam: float) -> float:
    """`symbol.jumps` at a real number, which may be negative."""
    return float(symbol.jumps(torch.tensor(lam + 0j, dtype=torch.complex128)).real)


def _tabulated(law: _Law, n: int, d2: Array) -> tuple[Array, Array]:
    """The log-kernel and the pull in `n` dimensions at squared distances `d2`."""
    log_weight = law.log_mass - n / 2 * law.log_variance
    half = np.exp(-law.log_variance) / 2
    profile, pull = np.empty_like(d2), np.empty_like(d2)
    for rows in np.array_split(np.arange(len(d2)), max(1, len(d2) * len(half) // 500_000)):
        exponent = log_weight - d2[rows, None] * half
        top = exponent.max(1, keepdims=True)
        weight = np.exp(exponent - top)
        total = weight.sum(1)
        profile[rows] = top[:, 0] + np.log(total)
        pull[rows] = weight @ law.rate / total
    return profile - n / 2 * math.log(2 * math.pi), pull


def _core(law: _Law, n: int) -> float:
    """The squared distance over which the kernel first falls, `n / E[1 / V]` at its centre."""
    log_weight = law.log_mass - n / 2 * law.log_variance
    weight = np.exp(log_weight - log_weight.max())
    return max(n * float(weight.sum() / (weight @ np.exp(-law.log_variance))), _FAR**-2)


def _grid(core: float) -> Array:
    return _U * np.arange(math.ceil(math.log(_FAR**2 / core) / _U) + 1)


@lru_cache(maxsize=128)
def _row(symbol: Symbol, n: int, log_level: float) -> tuple[float, tuple[Curves, Curves]]:
    law = _law(symbol, log_level, n)
    core = _core(law, n)
    profile, pull = _tabulated(law, n, core * np.expm1(_grid(core)))
    return core, (curve(0.0, _U, profile), curve(0.0, _U, pull))


@lru_cache(maxsize=8)
def _sheets(symbol: Symbol, n: int, levels: tuple[float, float]) -> tuple[float, tuple[Sheet, Sheet]]:
    first, last = math.log(levels[0] / _BEYOND), math.log(levels[1] * _BEYOND)
    laws = [_law(symbol, a, n) for a in np.arange(first, last + _STRIDE, _STRIDE).tolist()]
    core = min(_core(law, n) for law in laws)
    d2 = core * np.expm1(_grid(core))
    profiles, pulls = (np.stack(rows) for rows in zip(*(_tabulated(law, n, d2) for law in laws), strict=True))
    return core, (sheet(first, _STRIDE, 0.0, _U, profiles), sheet(first, _STRIDE, 0.0, _U, pulls))
