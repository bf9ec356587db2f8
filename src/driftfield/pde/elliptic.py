"""Equations with a second derivative in time that smooth: Poisson, screened Poisson, Helmholtz, and the mixed one.

In `n` dimensions `nu = (n - 1) / 2`, `mu = (n + 1) / 2` and `rho^2 = t^2 + s^2`. The density is that of the response
`p = -dphi/dt` to a source, of which half the flux enters `t > 0`: `phi` is twice the usual Green's function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import sympy
import torch
from scipy import special
from torch import Tensor

from ..process.base import Process
from ..special import log_bessel_k
from .base import PDE, Flow, Green, Judgement
from .dispersion import symbols

_DARKEST = 1e13  # exponent of a density: its logarithm is known to 2e-3
_NODES = 240  # of the trapezoidal rule for the mixed flux: 1e-12


def _log_poisson(rho: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The logarithms of the Poisson potential (of `n >= 2`) and of the density over `t`."""
    mu, log = (n + 1) / 2, rho.log()
    potential = math.lgamma((n - 1) / 2) - math.log(2) - mu * math.log(math.pi) - (n - 1) * log if n > 1 else log
    return potential, math.lgamma(mu) - mu * math.log(math.pi) - (n + 1) * log


def _log_yukawa(rho: Tensor, n: int, mass: float) -> tuple[Tensor, Tensor]:
    """The logarithms of the screened potential and of the density over `t`."""
    mu = (n + 1) / 2
    unit = math.log(2) - mu * math.log(2 * math.pi)
    fall = math.log(mass) - rho.log()
    potential = unit + (mu - 1) * fall + log_bessel_k(mu - 1, mass * rho)
    return potential, unit + mu * fall + log_bessel_k(mu, mass * rho)


_FEW = 2800  # dimensions in which Bessel functions at the first zero of the last are numbers


@dataclass(frozen=True)
class Poisson(PDE):
    """Electrostatics in one dimension more: PFGM.

    Source: Xu et al. 2022; Liu et al. 2023. [xu2022pfgm] [liu2023genphys]
    """

    name: ClassVar[str] = "poisson"

    @property
    def flow(self) -> Flow:
        return Flow("phi_tt + lap(phi) = 0", "-phi_t", "grad(phi) / phi_t", "0")

    @property
    def judgement(self) -> Judgement:
        return Judgement("yes", "", "every mode fades as exp(-k t), and the kernel is a Cauchy law")

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        k = symbols()["k"]
        return (-sympy.I * k, sympy.I * k)

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        p = (-k * t).exp()
        return p / k, p

    def response(self, s: Tensor, t: float, n: int) -> Green:
        rho = torch.hypot(s, torch.full_like(s, t))
        potential, density = _log_poisson(rho, n)
        phi = potential.exp() if n > 1 else -potential / math.pi
        log = density + math.log(t)
        return Green(phi, log.exp(), log, torch.full_like(s, 1 / t), torch.zeros_like(s))

    def process(self) -> Process:
        """`PFGM`: its time is this equation's."""
        return self.made("PFGM", {})


@dataclass(frozen=True)
class Yukawa(PDE):
    """Screened Poisson: charges whose field dies out beyond `1 / mass`. Mass falls as `exp(-mass t)`: particles die.

    As `mass` goes to 0 it is Poisson. The process has the same kernel with its mass kept at 1, and no births.
    Raises: ValueError, from `green`, where `mass t > 1e13`: the logarithm of `exp(-1e13)` keeps too few digits.
    Source: Liu et al. 2023. [liu2023genphys]
    """

    mass: float = 1.0
    name: ClassVar[str] = "yukawa"

    @property
    def flow(self) -> Flow:
        return Flow("phi_tt + lap(phi) - m^2 phi = 0", "-phi_t", "grad(phi) / phi_t", "-m^2 phi")

    @property
    def judgement(self) -> Judgement:
        return Judgement("yes", "", "every mode fades as exp(-sqrt(k^2 + m^2) t), the constant one as exp(-m t)")

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        root = sympy.sqrt(symbols()["k"] ** 2 + symbols()["mass"] ** 2)
        return (-sympy.I * root, sympy.I * root)

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        phi, p = self.scaled(k, t)
        mass = math.exp(-self.mass * t)
        return mass * phi, mass * p

    def scaled(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """At unit mass."""
        omega = torch.hypot(k, torch.full_like(k, self.mass))
        p = (-t * k.square() / (omega + self.mass)).exp()  # omega - mass, without a difference of near numbers
        return p / omega, p

    def response(self, s: Tensor, t: float, n: int) -> Green:
        if self.mass * t > _DARKEST:
            raise ValueError(
                f"the density of yukawa(mass={self.mass:g}) at t={t:g} has fallen by exp(-{self.mass * t:.3g}): its "
                f"logarithm keeps too few digits; take mass * t up to {_DARKEST:g}"
            )
        rho = torch.hypot(s, torch.full_like(s, t))
        potential, density = _log_yukawa(rho, n, self.mass)
        rate = -(self.mass**2) / t * (potential - density).exp()
        log = density + math.log(t)
        return Green(potential.exp(), log.exp(), log, torch.full_like(s, 1 / t), rate)

    def process(self) -> Process:
        """`driftfield.Yukawa`, of unit mass: its time is this equation's."""
        return self.made("Yukawa", self.parameters)


@dataclass(frozen=True)
class Helmholtz(PDE):
    """Waves of one frequency: the real, outgoing-and-incoming solution, a density where `wavenumber rho` is small.

    It is that of Poisson times `y_mu(wavenumber rho)`, 1 at 0, which is above 0 up to the first zero of the Bessel
    function `Y_mu`. Beyond, the kernel oscillates, so that its mass has no meaning but as a transform at `k = 0`.
    Source: Liu et al. 2023; the recurrence of Y, [dlmf] 10.6.1. [liu2023genphys]
    """

    wavenumber: float = 0.01
    name: ClassVar[str] = "helmholtz"
    additive: ClassVar[bool] = False

    @property
    def flow(self) -> Flow:
        return Flow("phi_tt + lap(phi) + k0^2 phi = 0", "-phi_t", "grad(phi) / phi_t", "+k0^2 phi")

    @property
    def judgement(self) -> Judgement:
        return Judgement(
            "conditional",
            "k0 rho below the first zero of Y_(N+1)/2, where rho^2 = t^2 + |x - x'|^2: small k0 (the bound shrinks "
            "samples, in the plane by 2 % at k0 t = 0.1, 6 % at 0.25)",
            "modes longer than 1 / k0 never fade, and the kernel turns negative at a distance",
        )

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        root = sympy.sqrt(symbols()["k"] ** 2 - symbols()["wavenumber"] ** 2)
        return (-sympy.I * root, sympy.I * root)

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        omega = (k**2 - self.wavenumber**2).to(torch.complex128).sqrt()
        p = (-omega * t).exp()
        return (p / omega).real, p.real

    def radius(self, n: int) -> float:
        """How large `rho` may be in `n` dimensions before the density is negative.

        Raises: ValueError in more than 2,800 dimensions, where the functions at it are out of the range of numbers.
        """
        if n > _FEW:
            raise ValueError(f"the first zero of the Helmholtz kernel is found in up to {_FEW} dimensions, got n={n}")
        mu, u = (n + 1) / 2, 1e-3
        step = 0.02 * (1 + mu ** (1 / 3))

        def factor(u: float) -> float:
            return float(_helmholtz_factors(torch.tensor(u, dtype=torch.float64), n)[1])

        while factor(u) > 0:  # the first zero of Y_mu is near mu + 0.93 mu^(1/3)
            u += step
        from scipy.optimize import brentq

        return float(brentq(factor, u - step, u, xtol=1e-14)) / self.wavenumber

    def response(self, s: Tensor, t: float, n: int) -> Green:
        rho = torch.hypot(s, torch.full_like(s, t))
        of_potential, of_density = _helmholtz_factors(self.wavenumber * rho, n)
        potential, density = _log_poisson(rho, n)
        p = t * density.exp() * of_density
        phi = potential.exp() * of_potential if n > 1 else of_potential
        # as a ratio of ratios: in many dimensions each density is out of range
        share = (potential - density).exp() * of_potential if n > 1 else of_potential / density.exp()
        rate = self.wavenumber**2 / t * share / of_density
        there = of_density > 0
        log = (density + math.log(t) + of_density.log()).where(there, math.nan)
        return Green(phi, p, log, torch.full_like(s, 1 / t), rate.where(there, math.nan))

    def process(self) -> Process:
        """`driftfield.Helmholtz`: its time is this equation's."""
        return self.made("Helmholtz", self.parameters)


def _helmholtz_factors(u: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """What the Poisson potential and density are multiplied by, at `u = wavenumber rho`; of `n = 1` the potential.

    `y_nu = -pi (u / 2)^nu Y_nu(u) / Gamma(nu)` obeys `y_(nu+1) = y_nu - u^2 / (4 nu (nu - 1)) y_(nu-1)`, which neither
    overflows nor cancels before the first zero in up to 2,800 dimensions; in more, from `u = 1420` on: NaN.
    """
    z = u.numpy()
    if n % 2 == 0:
        nu, low, high = 0.5, u.cos(), u.cos() + u * u.sin()  # y_1/2 and y_3/2
    else:
        zeroth = torch.as_tensor(-0.5 * special.y0(z))
        first = torch.as_tensor(-math.pi * z / 2 * special.y1(z))
        if n == 1:
            return zeroth, first
        nu, low, high = 1.0, first, torch.as_tensor(-math.pi * (z / 2) ** 2 * special.yv(2, z))
    while nu < (n - 1) / 2:
        nu += 1
        low, high = high, high - u.square() / (4 * nu * (nu - 1)) * low
    return low, high


@dataclass(frozen=True)
class Mixed(PDE):
    """Diffusion and Poisson in one equation: its kernel is that of `Yukawa` with its mass kept at 1, at other scales.

    With `mass = b / (2 sqrt a)` and `time = t / sqrt a` the density is `exp(mass time)` times the screened one. From a
    Cauchy law (small `b t`) to a Gaussian one (large `b t`).
    Source: Liu et al. 2023; the density in closed form is our own. [liu2023genphys]
    """

    a: float = 1.0
    b: float = 1.0
    name: ClassVar[str] = "mixed"
    closed: ClassVar[bool] = False

    @property
    def flow(self) -> Flow:
        return Flow("a phi_tt - b phi_t + lap(phi) = 0", "b phi - a phi_t", "-grad(phi) / p", "0")

    @property
    def judgement(self) -> Judgement:
        reason = "modes fade as exp(-t (sqrt(b^2 + 4 a k^2) - b) / 2a), whose exponent is a Bernstein function of k^2"
        return Judgement("yes", "", reason)

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        s = symbols()
        root = sympy.sqrt(s["b"] ** 2 + 4 * s["a"] * s["k"] ** 2)
        return tuple(sympy.I * (s["b"] + sign * root) / (2 * s["a"]) for sign in (-1, 1))

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        root = torch.hypot(torch.full_like(k, self.b), 2 * math.sqrt(self.a) * k)
        p = (-2 * t * k.square() / (root + self.b)).exp()  # the rate, without a difference of near numbers
        return 2 * p / (root + self.b), p

    def response(self, s: Tensor, t: float, n: int) -> Green:
        mass, time = self.b / (2 * math.sqrt(self.a)), t / math.sqrt(self.a)
        rho = torch.hypot(s, torch.full_like(s, time))
        log = _log_yukawa(rho, n, mass)[1] + mass * time + math.log(time)
        phi = _over_later_times(s, time, n, mass, log * 0) / math.sqrt(self.a)
        pull = 2 * math.pi * _over_later_times(s, time, n + 2, mass, log) / math.sqrt(self.a)
        return Green(phi, log.exp(), log, pull, torch.zeros_like(s))

    def process(self) -> Process:
        """`driftfield.MixedDiffusionPoisson`: its time is this equation's."""
        return self.made("MixedDiffusionPoisson", self.parameters)


def _over_later_times(s: Tensor, time: float, n: int, mass: float, log_unit: Tensor) -> Tensor:
    """`int_0^oo exp(mass (time - u)) p(s, time + u) du` over `exp(log_unit)`, `p` the screened density.

    The transform of the potential, `exp(-(omega - m) time) / (omega + m)`, is that integral; its slope in `s` is the
    same in two dimensions more. By the trapezoidal rule in `u = h exp(w - exp(-w))`, all terms positive.
    Source: Trefethen and Weideman 2014. [trefethen2014trapezoidal]
    """
    rho = torch.hypot(s, torch.full_like(s, time))
    h = 1 / (2 * mass + (n + 1) * time / rho.square() + math.sqrt(n + 1) / rho)
    end = min(36.0, math.log(40 / (mass * h.min().item())))  # exp(-36) of a power, or exp(-80) of an exponential
    w = torch.linspace(-3.7, end, _NODES, dtype=torch.float64)
    u = h[..., None] * (w - (-w).exp()).exp()
    later = time + u
    log = _log_yukawa(torch.hypot(s[..., None], later), n, mass)[1] + later.log() + mass * (time - u)
    jacobian = u.log() + (1 + (-w).exp()).log()
    return (log + jacobian - log_unit[..., None]).exp().sum(-1) * (w[1] - w[0])
