"""Any smoothing equation with a Bernstein symbol as a process: Gaussian noise of a subordinator's variance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..linear import expand
from ..rng import Rng, normal
from ..special import Array
from .base import check_climb
from .bernstein import check_bernstein
from .curves import Curves, Section, Sheet, curve, sheet
from .gaussian import EDM
from .law import FAR, core_of, law_of, mixed
from .smoothing import LEVELS, Smoothing, beside
from .symbols import Power, Symbol

_U = 0.05  # the step of ln(1 + (d / core)^2) in a table, at most
_ROW, _SHEET = 0.1, 0.2  # and times sqrt(n), which resolves a shell in `n` dimensions: for one time, and for every
_CUSP = 1e-3  # of the core, squared: the scale of the table at the centre, where a kernel may be no power series in d^2
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

    @property
    def heavy(self) -> bool:
        return _heavy(self.symbol)

    def scale(self, t: Tensor, rng: Rng) -> Tensor:
        t = t.double()
        return (2 * self.symbol.draw(t.where(t > 0, 1.0), rng)).sqrt().where(t > 0, 0.0)

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
        return x + expand(self.scale(step, rng), x) * g

    def _values(self, d2: Tensor, t: Tensor, n: int, which: int) -> Tensor:
        """The log-kernel at level 1 (0) or the pull (1) at squared distances from the datum, in float64."""
        core, tables = self._tables(t, n)
        level = beside(self.sigma(t), d2)
        u = (d2.double() / (core * level.square())).log1p()
        return tables[which].to(d2.device)(u)

    def _centre(self, t: Tensor, n: int) -> Tensor:
        """The log-kernel at level 1 at its centre, `()` or `(B,)` shaped like `t`."""
        start = torch.zeros(t.numel(), dtype=torch.float64, device=t.device)
        return self._tables(t, n)[1][0].to(t.device)(start).reshape(t.shape)

    def _tables(self, t: Tensor, n: int) -> tuple[float, tuple[Curves | Section, Curves | Section]]:
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
            of a grid to 1e-5 of the log-kernel (of its size, where that is above 1), while it is above -10^4, and of
            the pull, some 0.1 s once; for times that differ from row to row (training) by interpolation, the pull to
            1e-3 and differences of the log-kernel to 5e-3, some seconds once, within 30 times the `levels`. Both at
            distances of 1e-9 to 1e9 levels.
    Raises: ValueError for a symbol that is not a Bernstein function, is bounded, or draws by inversion of a law that
            cannot be inverted so, as where jumps have one size: `1 - exp(-lam) + lam`.
    Source: Bochner 1955, Ch. 4; Liu et al. 2023. [bochner1955harmonic] [liu2023genphys]
    """

    symbol: Symbol = field(default_factory=Power)
    levels: tuple[float, float] = LEVELS
    span: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_bernstein(self.symbol)
        self._settle()


def _grid(core: float, shell: float) -> tuple[float, Array]:
    """The step of `ln(1 + d^2 / core)` in a table, and its grid."""
    step = min(_U, shell)
    return step, step * np.arange(math.ceil(math.log(FAR**2 / core) / step) + 1)


@lru_cache(maxsize=64)
def _heavy(symbol: Symbol) -> bool:
    """Whether the longest waves fade as a power of `lam` below 1: the tails are then as heavy as a stable law's."""
    return bool(symbol.steepness(torch.tensor(1e-200, dtype=torch.float64)) < 0.999)


@lru_cache(maxsize=128)
def _row(symbol: Symbol, n: int, log_level: float) -> tuple[float, tuple[Curves, Curves]]:
    law = law_of(symbol, log_level, n)
    core = _CUSP * core_of(law, n)
    step, u = _grid(core, _ROW / math.sqrt(n))
    profile, pull = mixed(law, n, core * np.expm1(u))
    return core, (curve(0.0, step, profile), curve(0.0, step, pull))


@lru_cache(maxsize=8)
def _sheets(symbol: Symbol, n: int, levels: tuple[float, float]) -> tuple[float, tuple[Sheet, Sheet]]:
    first, last = math.log(levels[0] / _BEYOND), math.log(levels[1] * _BEYOND)
    laws = [law_of(symbol, a, n) for a in np.arange(first, last + _STRIDE, _STRIDE).tolist()]
    core = _CUSP * min(core_of(law, n) for law in laws)
    step, u = _grid(core, _SHEET / math.sqrt(n))
    d2 = core * np.expm1(u)
    profiles, pulls = (np.stack(rows) for rows in zip(*(mixed(law, n, d2) for law in laws), strict=True))
    return core, (sheet(first, _STRIDE, 0.0, step, profiles), sheet(first, _STRIDE, 0.0, step, pulls))
