"""Equations of waves: ideal, damped, and the free Schroedinger equation.

The response of a wave has a front on the sphere `s = t`, singular, which `green` leaves out: it gives the interior, and
0 outside. In one dimension the front of the density is a positive mass, `front`.
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
from .base import PDE, Flow, Green, Judgement
from .dispersion import symbols


def _interior(s: Tensor, t: float, n: int, damping: float) -> tuple[Tensor, Tensor, Tensor]:
    """`exp(-damping t)` times the undamped part `psi` of the response and its slope over `t`; and where `s < t`.

    `psi = (1/2) (e / (2 pi q))^nu I_-nu(e q)`, `e` the damping, `q^2 = t^2 - s^2`, `nu = (n - 1) / 2`; its slope in `t`
    is `2 pi t` times the same in two dimensions more.
    """
    inside = s < t
    q = ((t - s) * (t + s)).where(inside, 1.0).sqrt()
    z, out = (damping * q).numpy(), []
    for nu in ((n - 1) / 2, (n + 1) / 2):
        bessel = torch.as_tensor(special.ive(-nu if nu % 1 else nu, z))
        out.append(0.5 * bessel * (damping * (q - t) + nu * (damping / (2 * math.pi * q)).log()).exp())
    return out[0].where(inside, 0.0), 2 * math.pi * out[1].where(inside, 0.0), inside


@dataclass(frozen=True)
class IdealWave(PDE):
    """The wave equation: nothing fades, and the density is a front that remembers its source.

    Source: Liu et al. 2023. [liu2023genphys]
    """

    name: ClassVar[str] = "ideal-wave"
    sharp: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    @property
    def flow(self) -> Flow:
        return Flow("phi_tt - lap(phi) = 0", "phi_t", "-grad(phi) / phi_t", "0")

    @property
    def judgement(self) -> Judgement:
        reason = "no mode fades (omega = k is real), and the density is a singular front around each datum"
        return Judgement("no", "", reason)

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        return (symbols()["k"], -symbols()["k"])

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return t * torch.sinc(k * t / math.pi), (k * t).cos()

    def response(self, s: Tensor, t: float, n: int) -> Green:
        """`phi = q^(1-n) pi^-nu / (2 Gamma(1 - nu))` inside: 0 in odd dimensions from 3 on, by Huygens' principle."""
        nu, inside = (n - 1) / 2, s < t
        q2 = ((t - s) * (t + s)).where(inside, 1.0)
        phi, slope = (
            (0.5 * float(special.rgamma(1 - order)) * (math.pi * q2) ** -order).where(inside, 0.0)
            for order in (nu, nu + 1)
        )
        p = 2 * math.pi * t * slope
        c = torch.full_like(s, 1 / t).where(p != 0, math.nan)
        return Green(phi, p, p.where(p > 0, math.nan).log(), c, 0 * c)

    def front(self, t: float) -> float:
        """The mass of the two fronts in one dimension: all of it."""
        return 1.0

    def process(self) -> Process:
        """Raises: ValueError: it does not generate."""
        raise self.unfit()


@dataclass(frozen=True)
class DissipativeWave(PDE):
    """Waves with friction: in one dimension the telegraph process; at late times diffusion of time `t / (2 damping)`.

    In two dimensions or more the density is negative just behind the front, whose weight is `exp(-damping t)`.
    Source: Goldstein 1951; Kac 1974; Liu et al. 2023. [goldstein1951telegraph] [kac1974telegraph] [liu2023genphys]
    """

    damping: float = 10.0
    name: ClassVar[str] = "dissipative-wave"
    sharp: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    @property
    def flow(self) -> Flow:
        return Flow("phi_tt + 2 eps phi_t - lap(phi) = 0", "phi_t + 2 eps phi", "-grad(phi) / p", "0")

    @property
    def judgement(self) -> Judgement:
        return Judgement(
            "conditional",
            "damping * t >> 1, so that the front has died out (in one dimension always)",
            "the slow branch fades, but in two dimensions or more the density is negative just behind the front",
        )

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        e = symbols()["damping"]
        root = sympy.sqrt(e**2 - symbols()["k"] ** 2)
        return (sympy.I * (root - e), -sympy.I * (root + e))

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        e, q = self.damping, ((self.damping - k) * (self.damping + k)).to(torch.complex128).sqrt()
        up, down = ((q - e) * t).exp(), ((-q - e) * t).exp()
        phi = torch.where((q * t).abs() > 1e-6, (up - down) / (2 * q), t * math.exp(-e * t)).real
        return phi, ((up + down) / 2).real + e * phi

    def response(self, s: Tensor, t: float, n: int) -> Green:
        psi, slope, inside = _interior(s, t, n, self.damping)
        p = t * slope + self.damping * psi
        c = (slope / p).where(inside, math.nan)
        return Green(psi, p, p.where(p > 0, math.nan).log(), c, torch.zeros_like(s).where(inside, math.nan))

    def front(self, t: float) -> float:
        """The mass of the two fronts in one dimension."""
        return math.exp(-self.damping * t)

    def process(self) -> Process:
        """`driftfield.DissipativeWave`, of this time: the equation in each coordinate alone, where it is a density."""
        return self.made("DissipativeWave", self.parameters)


@dataclass(frozen=True)
class Schrodinger(PDE):
    """A free quantum particle, `|phi|^2` its density. The response to a point source spreads evenly over all space.

    The density is not linear in the data, so the densities of several sources do not add: they interfere.
    Source: Liu et al. 2023. [liu2023genphys]
    """

    name: ClassVar[str] = "schrodinger"
    sharp: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    @property
    def flow(self) -> Flow:
        return Flow("i phi_t + lap(phi) = 0", "|phi|^2", "2 Im(grad(log phi))", "0")

    @property
    def judgement(self) -> Judgement:
        reason = "no mode fades (omega = k^2 is real), and the velocity is infinite where waves of two data cancel"
        return Judgement("no", "", reason)

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        return (symbols()["k"] ** 2,)

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Of `phi`, twice: the density has none of its own, being the square of what superposes."""
        phi = torch.polar(torch.ones_like(k), -k.square() * t)
        return phi, phi

    def response(self, s: Tensor, t: float, n: int) -> Green:
        size = torch.full_like(s, (4 * math.pi * t) ** (-n / 2))
        phi = torch.polar(size, s.square() / (4 * t) - n * math.pi / 4)
        return Green(phi, size.square(), 2 * size.log(), torch.full_like(s, 1 / t), torch.zeros_like(s))

    def process(self) -> Process:
        """Raises: ValueError: it does not generate."""
        raise self.unfit()
