"""The screened Poisson equation as it stands: Poisson flow whose particles die on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear import expand
from ..rng import Rng, inverse_gaussian, normal
from ..special import log_bessel_k
from .base import ByLevel, check_climb, check_span
from .poisson import RadialProcess
from .yukawa import Hyperbolic

_LARGE = 30.0  # order from which Bessel functions are expanded, not recurred to


@dataclass(frozen=True)
class ScreenedPoisson(ByLevel, RadialProcess):
    """`(d^2/dt^2 + Laplacian - mass^2) phi = 0` with `p = -dphi/dt`, of mass `exp(-mass t)`: the Yukawa that loses it.

    The noise is that of `Yukawa` at the same `t`, but the flow is `dx/dt = (x - E[x_0 | x]) / t`, straight rays from
    each datum, along which particles die at `-rate`. Going down they are born: `df.branching` follows that, at the cost
    of weights as uneven as `exp(mass t)`. Without births the walk reaches the data in wrong proportions; `Yukawa`,
    whose flow conserves mass, needs none and is the better sampler.

    `log_peak`, and with it `Empirical.log_prob`, is that of the equation's own `p`; what is drawn is normalised.
    Raises: ValueError for a mass that is not a finite number above 0 (mass 0 is PFGM).
    Source: Liu et al. 2023, Sec. 4; the law of the noise and the rate as derived. [liu2023genphys]
    """

    mass: float = 1.0
    span: tuple[float, float] = (1e-3, 5.0)

    def __post_init__(self) -> None:
        check_span(self.span)
        object.__setattr__(self, "mass", float(self.mass))
        if not 0 < self.mass < math.inf:
            raise ValueError(f"the mass of ScreenedPoisson must be finite and > 0, got {self.mass}; at 0 it is PFGM()")

    @property
    def _law(self) -> Hyperbolic:
        return Hyperbolic(D=1.0, mass=self.mass)

    def scale(self, t: Tensor, rng: Rng) -> Tensor:
        return inverse_gaussian(t, self.mass, rng).sqrt()

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        return self.log_drop(torch.zeros_like(d2), d2, t, n)

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        """Of `rho^-mu K_mu(mass rho)`, `mu = (n + 1) / 2`: what nearly cancels is divided out first."""
        if (n + 1) / 2 >= _LARGE:
            return self._law.log_drop(d2, rise, t, n)
        base = d2 + t.square()
        near, far = base.sqrt(), (base + rise).sqrt()
        fall = self.mass * rise / (near + far) + (n + 1) / 4 * (rise / base).log1p()
        own, other = (log_scaled_bessel((n + 1) / 2, self.mass * rho) for rho in (near, far))
        return other - own - fall

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        return self._law.log_peak(t, n) + self.log_mass(t, n)

    def log_mass(self, t: Tensor, n: int) -> Tensor:
        """The logarithm of the mass of the equation's own `p`, in any number of dimensions `n`: `-mass t`."""
        return -self.mass * t

    def prior_log_prob(self, x: Tensor) -> Tensor:
        return super().prior_log_prob(x) + self.mass * self.span[1]

    def rate(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        """`-mass^2 phi / p = -(mass rho / t) K_nu / K_(nu + 1)`, `nu = (n - 1) / 2`: deaths, as time grows."""
        u = self.mass * (d2 + t.square()).sqrt()
        return -u / (t * bessel_ratio((n - 1) / 2, u))

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` given `x_s = x` and that the particle lives: kernels of `s` and `t - s` add up to that of `t`."""
        check_climb(s, t)
        g, rows = normal(x, rng), torch.ones(len(x), dtype=torch.float64, device=x.device)
        return x + expand(inverse_gaussian((t.double() - s.double()) * rows, self.mass, rng).sqrt(), x) * g


def bessel_ratio(nu: float, x: Tensor) -> Tensor:
    """`K_(nu + 1)(x) / K_nu(x)` for `nu` a multiple of 1/2 and `>= 0`, `x > 0`. Source: [dlmf] 10.29.1."""
    if nu >= _LARGE:
        return (log_bessel_k(nu + 1, x) - log_bessel_k(nu, x)).exp()
    return _climb(nu, x)[0]


def log_scaled_bessel(nu: float, x: Tensor) -> Tensor:
    """`ln K_nu(x) + x` up to a constant, for `nu` a multiple of 1/2 from 1/2 to 30, by products of ratios."""
    return _climb(nu, x)[1]


def _climb(nu: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """The ratio and the logarithm, by the recurrence `K_(a + 1) / K_a = 2 a / x + K_(a - 1) / K_a`, which is stable."""
    if nu == round(nu):
        first = torch.special.scaled_modified_bessel_k0(x)
        ratio, log, at = torch.special.scaled_modified_bessel_k1(x) / first, first.log(), 0.0
    else:
        ratio, log, at = 1 + 1 / x, -x.log() / 2, 0.5
    while at < nu:
        at += 1
        log, ratio = log + ratio.log(), 2 * at / x + 1 / ratio
    return ratio, log
