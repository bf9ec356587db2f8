"""Massive Poisson flow: Yukawa's kernel and its relatives, Gaussian noise of generalised inverse Gaussian variance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..linear import expand
from ..rng import Rng, inverse_gaussian, normal, open_uniform, uniform
from ..special import Array, log_matern_ratio
from .base import check_climb
from .curves import Curves, Sheet, curve, sheet
from .gaussian import EDM
from .gig import log_integral_drop, log_integral_gain, mean_share, quantile
from .poisson import LEAST_CLIMB, Table, tabulated
from .smoothing import LEVELS, Smoothing, beside

_U = 0.1 * torch.arange(700, dtype=torch.float64)  # ln(rho^2 / r^2) in a table of pulls: distances up to 10^15 r
_MASS = 0.25 * np.arange(-74, 75)  # ln(mass r) in one for every time: 1e-8 to 1e8
_LARGEST = 1e6  # of D and of the mass


@dataclass(frozen=True)
class Hyperbolic(Smoothing):
    """Massive Poisson flow in `N + D` dimensions, `D` of them folded into the radius `r = t sqrt(D)`, of unit mass.

    The variance of the noise has the density `v^(-D/2 - 1) exp(-(r^2 / v + mass^2 v) / 2)`, that of Poisson flow cut
    off beyond `1 / mass^2`, so the kernel is `rho^(-nu) K_nu(mass rho)` with `rho^2 = |x - x0|^2 + r^2` and
    `nu = (N + D) / 2`: a generalised hyperbolic law. `mass = 0` is PFGM++ at the same `D` and `t`; `D = 1` is `Yukawa`;
    where `mass r` is well above `D` it is Gaussian of variance `r / mass`. The level is
    `t / sqrt(1 + mass t / sqrt(D))`, the scale of the first and the deviation of the last. `mass` is an inverse length.
    Exact:  draws to 1e-9 in probability, the log-kernel to 1e-8, the pull to 1e-6, in any number of dimensions, at
            distances up to 1e15 `r`.
    Raises: ValueError for `D` not in (0, 1e6] or a mass not in [0, 1e6].
    Source: Barndorff-Nielsen 1977, for the law; Liu et al. 2023, for the physics.
            [barndorff1977exponentially] [liu2023genphys]
    """

    D: float = 1.0
    mass: float = 1.0
    levels: tuple[float, float] = LEVELS
    span: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "D", float(self.D))
        object.__setattr__(self, "mass", float(self.mass))
        if not 0 < self.D <= _LARGEST:
            raise ValueError(f"D must be in (0, {_LARGEST:g}], got {self.D}; for the Gaussian limit take EDM")
        if not 0 <= self.mass <= _LARGEST:
            raise ValueError(f"the mass is an inverse length in [0, {_LARGEST:g}], got {self.mass}")
        self._settle()

    @property
    def _cut(self) -> float:
        return self.mass / math.sqrt(self.D)

    def sigma(self, t: Tensor) -> Tensor:
        return t / (1 + self._cut * t).sqrt()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        far = self._cut * t
        return torch.zeros_like(t), (1 + far / 2) / (1 + far) ** 1.5

    def time(self, level: Tensor) -> Tensor:
        half = self._cut * level / 2
        return level * (half + (1 + half.square()).sqrt())

    @property
    def freedom(self) -> float:
        return self.D if self.mass == 0 else super().freedom

    @property
    def heavy(self) -> bool:
        return self.mass == 0 and self.D <= 4

    def scale(self, t: Tensor, rng: Rng) -> Tensor:
        r = t.double() * math.sqrt(self.D)
        if self.D == 1:
            return inverse_gaussian(r, self.mass, rng).sqrt()
        return r * quantile(open_uniform(t, rng), self.D / 2, self.mass * r).sqrt()

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        return log_integral_drop((n + self.D) / 2, self.mass**2, self.D * t.square() + d2, rise)

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        return self.log_drop(torch.zeros_like(d2), d2, t, n)

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        r, nu = t.double() * math.sqrt(self.D), self.D / 2
        gain = log_integral_gain(nu, n / 2, self.mass * r)
        return (gain - n * (r.log() + math.log(2 * math.pi) / 2)).to(t)

    def pull(self, d2: Tensor, t: Tensor, n: int) -> Tensor | None:
        if self.mass == 0:
            return None
        at = beside(t, d2)
        r, far = at * math.sqrt(self.D), at * self._cut
        u = (d2.double() / r.square()).log1p()
        return (_shares(self.D, n, self.mass * r, u) * (1 + far) / (1 + far / 2)).to(d2)

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` given `x_s = x`, for `t >= s`: add a Gaussian whose variance is drawn once per row.

        The increment of the variance is that of PFGM++, tilted by `exp(-mass^2 v / 2)` as the law itself is: inverse
        Gaussian for `D = 1`, else tabulated once for each pair of times, some milliseconds each.
        Exact:  for `D = 1`; else the table's distribution function is within 1e-8 of the true one.
        Raises: ValueError for `t < s` (times on the CPU), and for `D` other than 1 and levels closer than 1e-6 of them.
        Source: the law is self-decomposable by Grosswald 1976. [grosswald1976student]
        """
        check_climb(s, t)
        g = normal(x, rng)
        rows = torch.ones(len(x), dtype=torch.float64, device=x.device)
        if self.D == 1:
            step = (t - s).double() * rows
            deviation = inverse_gaussian(step.where(step > 0, 1.0), self.mass, rng).sqrt().where(step > 0, 0.0)
            return x + expand(deviation, x) * g
        u, deviation = uniform(rows, rng), torch.zeros_like(rows)
        low, high = s.double() * rows, t.double() * rows
        for a, b in sorted(set(zip(low.tolist(), high.tolist(), strict=True))):
            if a < b:
                jump = _jump(self.D, round(a / b, 13), float(f"{self.mass * b * math.sqrt(self.D):.13g}"), x.device)
                deviation = torch.where((low == a) & (high == b), b * jump.quantile(u).sqrt(), deviation)
        return x + expand(deviation, x) * g


@dataclass(frozen=True)
class Yukawa(Hyperbolic):
    """The screened Poisson equation `phi_tt + laplace phi = mass^2 phi`, its kernel brought to unit mass at every time.

    The noise is normal-inverse-Gaussian: Gaussian, its variance the time at which a Brownian motion with drift `mass`
    first reaches `t`; the kernel's transform is `exp(t (mass - sqrt(mass^2 + k^2)))`. It is Poisson flow (`PFGM`) at
    levels well below `1 / mass`, where `t` is the level, and diffusion of variance `t / mass` well above. The equation
    itself loses mass, `exp(-mass t)` of it remains, and its flow needs births; this process, which conserves, does not.
    Source: Liu et al. 2023; the unit-mass flow is ours. [liu2023genphys]
    """

    D: float = field(default=1.0, init=False, repr=False)


@dataclass(frozen=True)
class MixedDiffusionPoisson(Smoothing):
    """The equation `a phi_tt - b phi_t + laplace phi = 0`: Poisson's for `b = 0`, the heat equation's for `a = 0`.

    Its decaying branch is Yukawa's at the time `t / sqrt(a)` with the mass `b / (2 sqrt(a))`, brought to unit mass, so
    in between the noise is normal-inverse-Gaussian. The level is `t / sqrt(a + b t / 2)`.
    Raises: ValueError for a negative coefficient, two that are 0, or `b / (2 sqrt(a))` above 1e6 with `a` above 0.
    Source: Liu et al. 2023; its closed form is ours. [liu2023genphys]
    """

    a: float = 1.0
    b: float = 1.0
    levels: tuple[float, float] = LEVELS
    span: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (0 <= self.a < math.inf and 0 <= self.b < math.inf and self.a + self.b > 0):
            raise ValueError(f"a and b are finite and >= 0, not both 0, got a={self.a}, b={self.b}")
        if self.b > 2 * _LARGEST * math.sqrt(self.a) > 0:
            raise ValueError(
                f"b / (2 sqrt(a)) is an inverse length of at most {_LARGEST:g}, got a={self.a}, b={self.b}; "
                "for an `a` too small to be seen take a=0"
            )
        self._settle()

    def sigma(self, t: Tensor) -> Tensor:
        return t / (self.a + self.b * t.where(t > 0, 1.0) / 2).sqrt()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        under = self.a + self.b * t / 2
        return torch.zeros_like(t), (self.a + self.b * t / 4) / under**1.5

    def time(self, level: Tensor) -> Tensor:
        half = self.b * level / 4
        return level * (half + (self.a + half.square()).sqrt())

    def _inner(self, t: Tensor) -> tuple[EDM | Hyperbolic, Tensor]:
        """The same noise by another name, and its time."""
        if self.a == 0:
            return EDM(), (2 * t / self.b).sqrt()
        return Hyperbolic(1.0, self.b / (2 * math.sqrt(self.a))), t / math.sqrt(self.a)

    @property
    def freedom(self) -> float:
        return math.inf if self.a == 0 else 1.0 if self.b == 0 else super().freedom

    @property
    def heavy(self) -> bool:
        return self.a > 0 and self.b == 0

    def scale(self, t: Tensor, rng: Rng) -> Tensor:
        inner, clock = self._inner(t.double())
        return clock if isinstance(inner, EDM) else inner.scale(clock, rng)

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        inner, clock = self._inner(t)
        return inner.log_profile(d2, clock, n)

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        inner, clock = self._inner(t)
        return inner.log_drop(d2, rise, clock, n)

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        inner, clock = self._inner(t)
        return inner.log_peak(clock, n)

    def pull(self, d2: Tensor, t: Tensor, n: int) -> Tensor | None:
        inner, clock = self._inner(t)
        return inner.pull(d2, clock, n)

    def score(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        inner, clock = self._inner(t)
        return inner.score(x, clock, y) if self.a == 0 else super().score(x, t, y)

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        check_climb(s, t)
        inner, low = self._inner(s)
        return inner.diffuse(x, low, self._inner(t)[1], rng)


def _shares(D: float, n: int, z: Tensor, u: Tensor) -> Tensor:
    """`mean_share` at `u`, for one `z` or one for each row of `u`, through a table; in float64."""
    if z.ndim == 0 and z.device.type == "cpu":  # the time of a grid: exact, and nothing waits
        return _row(D, n, float(z)).to(u.device)(u)
    rows = z.reshape(-1)
    curves = _sheet(D, n).to(u.device).at(rows.log())
    return curves(u.reshape(len(rows), -1)).reshape(u.shape)


def _share(D: float, n: int, z: float) -> Array:
    return mean_share(D, n, z, _U).numpy()


@lru_cache(maxsize=256)
def _row(D: float, n: int, z: float) -> Curves:
    return curve(0.0, 0.1, _share(D, n, z))


@lru_cache(maxsize=16)
def _sheet(D: float, n: int) -> Sheet:
    values = np.stack([_share(D, n, math.exp(a)) for a in _MASS])
    return sheet(_MASS[0], 0.25, 0.0, 0.1, values)


@lru_cache(maxsize=256)
def _jump(D: float, q: float, z: float, device: torch.device) -> Table:
    """The law of the variance that takes the noise at `q t` to that at `t`, for `t = 1` and `z = mass sqrt(D) t`."""
    if q > 1 - LEAST_CLIMB:
        raise ValueError(
            f"two times of an upward move are {1 - q:.1e} apart, relatively; merge times closer than {LEAST_CLIMB:g}"
        )
    at_zero = log_matern_ratio(D / 2, np.array([z + 0j]), q) if z > 0 else 0.0
    return tabulated(lambda lam: log_matern_ratio(D / 2, np.sqrt(2 * D * lam + z**2 + 0j), q) - at_zero, device)
