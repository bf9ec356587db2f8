"""Equations of first order in time, `dphi/dt + Omega(k) phi = 0`, and the branch of one of third order."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import sympy
import torch
from torch import Tensor

from ..process.base import Process
from .base import PDE, Flow, Green, Judgement
from .dispersion import symbols
from .hankel import MOST, radial


class Fading(PDE):
    """Modes that fade as `exp(-t Omega(k))`, with `Omega` real and 0 at 0: unit mass, no births.

    Of the kernel's flux only the radial part exists, `p v = -grad(phi)` with `phi^ = Omega p^ / k^2`.
    """

    closed: ClassVar[bool] = False

    @abstractmethod
    def fade(self, k: Tensor) -> Tensor:
        """`Omega(k)` at `k >= 0`, float64."""

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        rate = self.fade(k)
        p = (-t * rate).exp()
        return rate * p / k.square(), p

    def response(self, s: Tensor, t: float, n: int) -> Green:
        """By numerical Hankel transforms: the slope of `phi` in `s` is `-2 pi s` times `phi` in two dimensions more.

        The potential is known up to a constant, which in one dimension may be infinite: NaN there. The density is known
        to about 1e-10 of its largest value, and tails that fall as a power to 1e-8 of themselves; where one that falls
        faster has come below that, the density, its logarithm and the velocity are rounding.
        Raises: ValueError for more than 6 dimensions.
        """
        if n > MOST - 2:
            raise ValueError(
                f"the {self.name} kernel has no closed form and is computed in up to {MOST - 2} dimensions, got n={n}; "
                "its process trains in any number"
            )
        phi = radial(lambda k: self.spectrum(k, t)[0], s, n) if n > 1 else torch.full_like(s, math.nan)
        p = radial(lambda k: self.spectrum(k, t)[1], s, n)
        return Green(phi, p, p.log(), self.pace(s, t, n, p), torch.zeros_like(s))

    def pace(self, s: Tensor, t: float, n: int, p: Tensor) -> Tensor:
        """The coefficient of the velocity. A hook: closed forms for kernels that keep their shape."""
        return 2 * math.pi * radial(lambda k: self.spectrum(k, t)[0], s, n + 2) / p


@dataclass(frozen=True)
class Diffusion(Fading):
    """The heat equation; its kernel at `t` is normal with variance `2 t`.

    Source: Ho et al. 2020; Liu et al. 2023. [ho2020ddpm] [liu2023genphys]
    """

    name: ClassVar[str] = "diffusion"
    closed: ClassVar[bool] = True

    @property
    def flow(self) -> Flow:
        return Flow("phi_t - lap(phi) = 0", "phi", "-grad(log phi)", "0")

    @property
    def judgement(self) -> Judgement:
        return Judgement("yes", "", "every mode fades as exp(-k^2 t), and the kernel is a normal law")

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        return (-sympy.I * symbols()["k"] ** 2,)

    def fade(self, k: Tensor) -> Tensor:
        return k.square()

    def response(self, s: Tensor, t: float, n: int) -> Green:
        log = -s.square() / (4 * t) - n / 2 * math.log(4 * math.pi * t)
        return Green(log.exp(), log.exp(), log, torch.full_like(s, 0.5 / t), torch.zeros_like(s))

    def process(self) -> Process:
        """`EDM`, whose time is `sqrt(2 t)`, the deviation of the noise."""
        return self.made("EDM", {})


@dataclass(frozen=True)
class Fractional(Fading):
    """Diffusion by a power of the Laplacian: the isotropic stable law of index `2 beta`, a density for `beta <= 1`.

    It keeps its shape: scales grow as `t^(1 / (2 beta))`, and `v = (x - x') / (2 beta t)`.
    Source: Liu et al. 2023. [liu2023genphys]
    """

    beta: float = 0.5
    name: ClassVar[str] = "fractional"

    @property
    def flow(self) -> Flow:
        return Flow("phi_t + (-lap)^beta phi = 0", "phi", "-grad(-lap)^(beta - 1) phi / phi", "0")

    @property
    def judgement(self) -> Judgement:
        if self.beta > 1:
            return Judgement("no", "", f"its kernel takes negative values, as for every beta > 1 (beta={self.beta:g})")
        return Judgement(
            "yes", "", "every mode fades as exp(-k^(2 beta) t), and the kernel is a stable law for beta <= 1"
        )

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        return (-sympy.I * symbols()["k"] ** (2 * symbols()["beta"]),)

    def fade(self, k: Tensor) -> Tensor:
        return k ** (2 * self.beta)

    def pace(self, s: Tensor, t: float, n: int, p: Tensor) -> Tensor:
        return torch.full_like(s, 1 / (2 * self.beta * t))

    def process(self) -> Process:
        """`driftfield.Fractional`: its time is this equation's."""
        if self.beta > 1:
            raise self.unfit()
        return self.made("Fractional", self.parameters)


@dataclass(frozen=True)
class ThirdOrder(Fading):
    """Third order in time: of its three branches the one that fades is fractional diffusion of `beta = 1 / 3`.

    Source: Liu et al. 2023. [liu2023genphys]
    """

    name: ClassVar[str] = "third-order"

    @property
    def flow(self) -> Flow:
        return Flow("phi_ttt - lap(phi) = 0", "phi_tt", "-grad(phi) / phi_tt", "0")

    @property
    def judgement(self) -> Judgement:
        reason = "of its branches one fades, as exp(-k^(2/3) t), and keeps a stable law; the other two grow"
        return Judgement("yes", "", reason)

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        size = symbols()["k"] ** sympy.Rational(2, 3)
        roots = (-sympy.I, (sympy.sqrt(3) + sympy.I) / 2, (-sympy.sqrt(3) + sympy.I) / 2)
        return tuple(root * size for root in roots)

    def fade(self, k: Tensor) -> Tensor:
        return k ** (2 / 3)

    def pace(self, s: Tensor, t: float, n: int, p: Tensor) -> Tensor:
        return torch.full_like(s, 1.5 / t)

    def process(self) -> Process:
        """`driftfield.Fractional(1/3)`: its time is this equation's."""
        return self.made("Fractional", {"beta": 1 / 3})


@dataclass(frozen=True)
class Biharmonic(Fading):
    """Elasticity, overdamped. Its kernel forgets the data but is negative in rings: no density, never to be drawn from.

    Source: Liu et al. 2023, who list it as one that generates. [liu2023genphys]
    """

    name: ClassVar[str] = "biharmonic"

    @property
    def flow(self) -> Flow:
        return Flow("phi_t + lap(lap(phi)) = 0", "phi", "grad(lap(phi)) / phi", "0")

    @property
    def judgement(self) -> Judgement:
        reason = "it forgets the data, but its kernel takes negative values: k^4 is no Bernstein function of k^2"
        return Judgement("no", "", reason)

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        return (-sympy.I * symbols()["k"] ** 4,)

    def fade(self, k: Tensor) -> Tensor:
        return k**4

    def pace(self, s: Tensor, t: float, n: int, p: Tensor) -> Tensor:
        return torch.full_like(s, 0.25 / t)

    def process(self) -> Process:
        """Raises: ValueError: it does not generate."""
        raise self.unfit()
