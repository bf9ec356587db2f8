"""Electrostatic processes: data as charges in extra dimensions, whose kernel is Student's t."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..linear import expand, flat
from ..rng import Rng, chi_square, normal, uniform
from ..special import Array, invert_laplace, log_gamma_ratio, log_matern_ratio
from .base import ByLevel, Isotropic, check_climb, check_span
from .gaussian import EDM

_LARGEST = 1e16  # of a finite D: there the scale of the noise is already 1 to eight digits
LEAST_CLIMB = 1e-6  # of a level: an upward move tells no smaller ones apart


class RadialProcess(Isotropic):
    """`x_t = x_0 + scale g` with `g ~ N(0, I)` and one random `scale` per row: a Gaussian mixture over scales."""

    @abstractmethod
    def scale(self, t: Tensor, rng: Rng) -> Tensor:
        """Draw the standard deviation of each row, `(B,)` float64, for times `t` of the same shape and type."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def perturb(self, x0: Tensor, t: Tensor, rng: Rng) -> Tensor:
        g = normal(x0, rng)  # drawn first, so that processes with the same generator share it
        return x0 + expand(self.scale(t * _rows(x0), rng), x0) * g

    def noise(self, like: Tensor, rng: Rng) -> Tensor:
        """Draw the noise of level 1, shaped like the batch `like`."""
        return self.perturb(torch.zeros_like(like), self.time(torch.ones((), dtype=torch.float64)), rng)


@dataclass(frozen=True)
class PFGMPP(ByLevel, RadialProcess):
    """Poisson flow in `N + D` dimensions, `D` of them folded into the radius `r = t sqrt(D)`.

    The kernel `(|x - x0|^2 + r^2)^(-(N + D) / 2)` is the multivariate Student t with `D` degrees of freedom, any real
    number > 0, and scale `t`. `D = 1` is PFGM; `D = inf` is EDM at the same `t`, bit for bit. The noise has a mean
    for `D > 1` and a variance for `D > 2`; below `D` about 0.3 its rarest draws are too large for float32.
    Raises: ValueError for `D <= 0`, and for a finite `D` above 1e16, where `inf` says the same.
    Source: Xu et al. 2023, Sec. 3 and 4. [xu2023pfgmpp]
    """

    D: float = 128.0
    span: tuple[float, float] = (0.002, 80.0)

    def __post_init__(self) -> None:
        check_span(self.span)
        object.__setattr__(self, "D", float(self.D))
        if not self.D > 0 or _LARGEST < self.D < math.inf:
            raise ValueError(f"D must be in (0, {_LARGEST:g}], or inf for the Gaussian limit, got {self.D}")

    def scale(self, t: Tensor, rng: Rng) -> Tensor:
        return t if math.isinf(self.D) else t * (self.D / chi_square(self.D, t, rng)).sqrt()

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        """By `log1p` of a small ratio: it becomes the exponent of the Gaussian, also in float32, as `D` grows."""
        if math.isinf(self.D):
            return EDM(self.span).log_profile(d2, t, n)
        return -(n + self.D) / 2 * (d2 / (self.D * t.square())).log1p()

    @property
    def freedom(self) -> float:
        return self.D

    @property
    def heavy(self) -> bool:
        return self.D <= 4

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        if math.isinf(self.D):
            return EDM(self.span).log_drop(d2, rise, t, n)
        return -(n + self.D) / 2 * (rise / (self.D * t.square() + d2)).log1p()

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        if math.isinf(self.D):
            return EDM(self.span).log_peak(t, n)
        return log_gamma_ratio(self.D / 2, n / 2) - n * (t.log() + math.log(math.pi * self.D) / 2)

    def score(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return EDM(self.span).score(x, t, y) if math.isinf(self.D) else super().score(x, t, y)

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` given `x_s = x`, for `t >= s`: add a Gaussian whose variance is drawn once per row.

        Inverse-gamma laws are self-decomposable, so the variance of the Student t at `t` is that at `s` plus an
        independent one, with Laplace transform `L(lam t^2) / L(lam s^2)`: its law is tabulated once for each `s / t`.
        One number for all rows is one table, kept for the next call; times that differ from row to row cost a table
        for each distinct ratio among them, some milliseconds each, and on an accelerator the host waits for the times.
        Exact:  the marginal law at `t` follows from that at `s` whatever the data; the table's distribution function
                is within 1e-8 of the true one for D from 0.5 to 1e12, 1e-6 down to 0.1; the tails go on as power laws.
        Raises: ValueError for `t < s` (times on the CPU), and for levels closer than one part in a million.
        Source: the law is self-decomposable by Grosswald 1976. [grosswald1976student]
        """
        check_climb(s, t)
        if math.isinf(self.D):
            return EDM(self.span).diffuse(x, s, t, rng)
        g, u = normal(x, rng), uniform(_rows(x), rng)
        share = torch.where(t > s, s / t, 1.0).double()
        deviation = torch.zeros_like(u)
        for q in sorted(set(share.reshape(-1).tolist())):  # one on a grid: the rows share their times
            if q < 1:
                law = _jump(self.D, round(q, 13), u.device)  # rounded, so that equal steps of a grid share a table
                deviation = torch.where(share * _rows(x) == q, law.quantile(u).sqrt(), deviation)
        return x + expand(t * deviation, x) * g

    def diffuse_published(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Move `x_s = x` up to `t >= s` along a random field line: the jump of the published Restart, approximate.

        It has the kernel's law when `s = 0` and when `D = inf`, and not in between: use `diffuse`, which is exact,
        unless the published numbers are to be reproduced. Of the `D`-vector on the sphere of radius `s sqrt(D)` only
        the cosine to the direction of the move matters, so `D` is any real number >= 1.
        Raises: ValueError for `t < s` (times on the CPU), and for `D < 1`, where there is no such sphere.
        Source: Xu et al. 2023, Restart for PFGM++. [xu2023restart]
        """
        check_climb(s, t)
        if self.D < 1:
            raise ValueError(f"the published jump needs D >= 1, got D={self.D}; `diffuse` is exact at every D")
        if math.isinf(self.D):
            return EDM(self.span).diffuse(x, s, t, rng)
        g, h, rows = normal(x, rng), normal(_rows(x), rng), _rows(x)
        rest = chi_square(self.D - 1, rows, rng) if self.D > 1 else torch.zeros_like(rows)
        along = s * h / (h.square() + rest).sqrt()  # s times the first coordinate of a uniform unit vector
        length = (along.square() + (t - s) * (t + s)).sqrt() - along
        scale = length * (self.D / chi_square(self.D, rows, rng)).sqrt()
        return x + expand(scale, x) * g


@dataclass(frozen=True)
class PFGM(PFGMPP):
    """Poisson flow with one extra dimension, whose coordinate is the time: PFGM++ at `D = 1`, the Cauchy kernel.

    The prior is what a uniform law on a hemisphere around the data leaves on the plane `t = span[1]` along straight
    lines from the centre. It has no mean: with `clip`, draws that are longer are shortened to that length, as
    published, where it is part of the model (at 40 and 3000, in 3072 dimensions, more than half of them);
    `prior_log_prob` stays that of the whole law. `clip=inf` keeps the prior whole where `PoissonField` would clip it.
    Raises: ValueError for a `clip` that is not above 0.
    Source: Xu et al. 2022, Sec. 3. [xu2022pfgm]
    """

    D: float = field(default=1.0, init=False)
    span: tuple[float, float] = (1e-3, 40.0)
    clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is the greatest length of a prior draw and must be > 0, got {self.clip}")

    def prior(self, shape: Sequence[int], rng: Rng, dtype: torch.dtype = torch.float32) -> Tensor:
        x = super().prior(shape, rng, dtype)
        return x if self.clip is None else x * expand((self.clip / flat(x).norm(dim=1)).clamp(max=1), x)


@dataclass(frozen=True)
class PublishedJump(PFGMPP):
    """PFGM++ whose upward move is the published one, which is not exact: to compare Restart with and without it.

    Raises: ValueError for `D < 1`, where a path climbs. Source: Xu et al. 2023. [xu2023restart]
    """

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """`diffuse_published`."""
        return self.diffuse_published(x, s, t, rng)


def _rows(x: Tensor) -> Tensor:
    """One float64 number 1 for each row of `x`: what a number per row is drawn like."""
    return torch.ones(len(x), dtype=torch.float64, device=x.device)


@dataclass(frozen=True, eq=False)
class Table:
    """A quantile function: cubic Hermite for `ln y` in the logit of the probability, and straight beyond its ends.

    In these variables both tails are smooth, and a power-law tail is a straight line. Each field is `(K,)` float64.
    """

    logit: Tensor
    log_y: Tensor
    slope: Tensor

    def quantile(self, u: Tensor) -> Tensor:
        """The value that a draw does not exceed with probability `u`."""
        at = u.log() - (-u).log1p()
        inside = at.clamp(self.logit[0], self.logit[-1])
        i = torch.searchsorted(self.logit, inside).clamp(1, len(self.logit) - 1)
        h = self.logit[i] - self.logit[i - 1]
        w = (inside - self.logit[i - 1]) / h
        rise = self.log_y[i] - self.log_y[i - 1]
        left, right = h * self.slope[i - 1] - rise, rise - h * self.slope[i]
        log_y = self.log_y[i - 1] + w * (rise + (1 - w) * ((1 - w) * left + w * right))
        beyond = at - inside
        return (log_y + beyond * torch.where(beyond < 0, self.slope[0], self.slope[-1])).exp()


@lru_cache(maxsize=256)
def _jump(D: float, q: float, device: torch.device) -> Table:
    """The law of the variance that takes the Student t of scale `q` to that of scale 1, with `D` degrees of freedom.

    Its Laplace transform is `M(z) / M(q z)`, `z = sqrt(2 D lam)`, with `M` the Matern function of order `D / 2`.
    """
    if q > 1 - LEAST_CLIMB:
        raise ValueError(
            f"two levels of an upward move are {1 - q:.1e} apart, relatively; merge levels closer than {LEAST_CLIMB:g}"
        )
    return tabulated(lambda lam: log_matern_ratio(D / 2, np.sqrt(2 * D * lam + 0j), q), device)


def tabulated(
    log_transform: Callable[[Array], Array], device: torch.device, points: int = 1024, tail: float = 1e-8
) -> Table:
    """The quantiles of a positive law from the logarithm of its Laplace transform, as `invert_laplace` takes it."""

    def chernoff(lam: float) -> float:
        below, here, above = log_transform(lam * np.array([0.99, 1.0, 1.01])).real
        return float(1 + here - (above - below) / 0.02)  # at least the log-probability below the point of `lam`

    high = 1.0
    while chernoff(high) > math.log(tail):
        high *= 2
    low = high
    while low > 1e-290 and invert_laplace(log_transform, np.array([low]))[1][0] < 1 - tail:
        low /= 2
    y, below, density = invert_laplace(log_transform, np.geomspace(high, low, points))
    y, below, density = (a[(below > tail) & (below < 1 - tail)] for a in (y, below, density))
    logit = np.log(below) - np.log1p(-below)
    slope = below * (1 - below) / (y * density)
    return Table(*(torch.from_numpy(a).to(device) for a in (logit, np.log(y), slope)))
