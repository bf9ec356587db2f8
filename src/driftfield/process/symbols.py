"""Symbols of smoothing equations: how fast a wave of each length decays.

The equation `phi_t + Omega(-laplace) phi = 0` damps waves of the wave number `k` as `exp(-t Omega(k^2))`. Its Green
function is a probability density in every dimension and at all times if and only if `Omega`, as a function of
`lam = k^2`, is a Bernstein function with `Omega(0) = 0`: then `exp(-t Omega(lam))` is the Laplace transform of a
positive random variable `A_t`, and the Green function is Gaussian of variance `2 A_t`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..rng import Rng, gamma, inverse_gaussian, open_uniform, positive_stable
from .bernstein import check_value, quantiles


class Symbol(ABC):
    """A Bernstein function `Omega(lam)` with `Omega(0) = 0`, unbounded: a frozen value.

    A subclass gives the function, and may give exact draws. Symbols add up, `Power(1.0) + Power(0.5)`, and take
    factors, `0.1 * Power(1.0)`: the noise of a sum is the sum of independent noises.
    Source: Bochner 1955, Ch. 4, for subordination; Schilling, Song and Vondracek 2012, Ch. 3.
            [bochner1955harmonic] [schilling2012bernstein]
    """

    @abstractmethod
    def __call__(self, lam: Tensor) -> Tensor:
        """`Omega` at `lam`, float64 or complex128, of any shape: analytic off the negative axis, and on it above
        `-edge`. Near 0 it must keep its digits: `lam / ((lam + 1).sqrt() + 1)`, not `(lam + 1).sqrt() - 1`.
        """

    @property
    def edge(self) -> float:
        """How far down the negative axis the function goes on: the rate at which large `A_t` become rare.

        Where it is not said, the kernel leaves out what is rarer than about 1e-10 if that falls faster than a power.
        """
        return 0.0

    @property
    def index(self) -> float | None:
        """The power, of a symbol that is one: then the noise keeps its shape."""
        return None

    @property
    def drift(self) -> float:
        """The limit of `Omega(lam) / lam` at infinity: the part of `A_t` that is no chance, per unit of time."""
        return 0.0

    def jumps(self, lam: Tensor) -> Tensor:
        """`Omega(lam) - drift lam`, with its own digits."""
        return self(lam) - self.drift * lam if self.drift else self(lam)

    def draw(self, t: Tensor, rng: Rng) -> Tensor:
        """`A_t` for times `t > 0` `(B,)`, in float64; unless a symbol knows better, by inversion of its law to 1e-9.

        That serves jumps of a smooth density. Raises: FloatingPointError for others, where they show.
        """
        return self.drift * t.double() if self.index == 1 else quantiles(self, t.double(), open_uniform(t, rng))

    def inverse(self, value: Tensor) -> Tensor:
        """The `lam` at which `Omega(lam)` is `value` > 0, in float64."""
        v = value.double()
        low, high = torch.full_like(v, -300.0), torch.full_like(v, 300.0)
        for _ in range(34):  # by halves to 4e-8, then by Newton's method in logarithms
            middle = (low + high) / 2
            above = self(middle.exp()) > v
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        x = (low + high) / 2
        for _ in range(2):
            x = x - (self(x.exp()) / v).log() / self.steepness(x.exp())
        return x.exp()

    def steepness(self, lam: Tensor) -> Tensor:
        """`lam Omega'(lam) / Omega(lam)`, between 0 and 1, at real `lam > 0`, in float64."""
        with torch.enable_grad():
            at = lam.detach().double().requires_grad_()
            value = self(at)
            slope = torch.autograd.grad(value.sum(), at)[0]
        return (at * slope / value).detach()

    def __add__(self, other: Symbol) -> Sum:
        return Sum(self, other)

    def __rmul__(self, factor: float) -> Times:
        return Times(float(factor), self)


@dataclass(frozen=True)
class Power(Symbol):
    """`lam^beta`, 0 < beta <= 1: diffusion at 1, Poisson's equation at 1/2; a stable law of index `2 beta` between."""

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 1:
            raise ValueError(
                f"the power must be in (0, 1], got {self.beta}; above 1 the Green function has negative values"
            )

    def __call__(self, lam: Tensor) -> Tensor:
        return lam**self.beta

    @property
    def index(self) -> float:
        return self.beta

    @property
    def drift(self) -> float:
        return float(self.beta == 1)

    def draw(self, t: Tensor, rng: Rng) -> Tensor:
        t = t.double()
        return t if self.beta == 1 else t ** (1 / self.beta) * positive_stable(self.beta, t, rng)

    def inverse(self, value: Tensor) -> Tensor:
        return value.double() ** (1 / self.beta)

    def steepness(self, lam: Tensor) -> Tensor:
        return torch.full_like(lam.double(), self.beta)


@dataclass(frozen=True)
class Relativistic(Symbol):
    """`sqrt(lam + mass^2) - mass`: the screened Poisson equation at unit mass. `A_t` is inverse Gaussian."""

    mass: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.mass < math.inf:
            raise ValueError(f"the mass must be finite and >= 0, got {self.mass}")

    def __call__(self, lam: Tensor) -> Tensor:
        return lam / ((lam + self.mass**2) ** 0.5 + self.mass)

    @property
    def edge(self) -> float:
        return self.mass**2

    @property
    def index(self) -> float | None:
        return None if self.mass else 0.5

    def draw(self, t: Tensor, rng: Rng) -> Tensor:
        return inverse_gaussian(t, self.mass, rng) / 2

    def inverse(self, value: Tensor) -> Tensor:
        return value.double() * (value.double() + 2 * self.mass)


@dataclass(frozen=True)
class Mixed(Symbol):
    """`(sqrt(b^2 + 4 a lam) - b) / (2 a)`: the decaying branch of `a phi_tt - b phi_t + laplace phi = 0`; a, b >= 0."""

    a: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.a < math.inf and 0 <= self.b < math.inf):
            raise ValueError(f"a must be > 0 and b >= 0, got a={self.a}, b={self.b}; for a = 0 take Power(1.0)")

    def __call__(self, lam: Tensor) -> Tensor:
        return 2 * lam / ((self.b**2 + 4 * self.a * lam) ** 0.5 + self.b)

    @property
    def edge(self) -> float:
        return self.b**2 / (4 * self.a)

    @property
    def index(self) -> float | None:
        return None if self.b else 0.5

    def draw(self, t: Tensor, rng: Rng) -> Tensor:
        root = math.sqrt(self.a)
        return inverse_gaussian(t.double() / root, self.b / (2 * root), rng) / 2

    def inverse(self, value: Tensor) -> Tensor:
        return value.double() * (self.a * value.double() + self.b)


@dataclass(frozen=True)
class Log(Symbol):
    """`ln(1 + length^2 lam)`: `A_t` is a gamma variable, and the noise variance-gamma, a Laplace law at `t = 1`.

    In `n` dimensions its density is infinite at the datum until `t` exceeds `n / 2`.
    """

    length: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.length < math.inf:
            raise ValueError(f"the length must be finite and > 0, got {self.length}")

    def __call__(self, lam: Tensor) -> Tensor:
        z = self.length**2 * lam
        if not z.is_complex():
            return z.log1p()
        x, y = z.real, z.imag
        return torch.complex((x * (2 + x) + y * y).log1p() / 2, torch.atan2(y, 1 + x))

    @property
    def edge(self) -> float:
        return self.length**-2

    def draw(self, t: Tensor, rng: Rng) -> Tensor:
        return self.length**2 * gamma(t, t, rng)

    def inverse(self, value: Tensor) -> Tensor:
        return torch.expm1(value.double()) / self.length**2


@dataclass(frozen=True)
class Sum(Symbol):
    """The sum of two symbols, whose noises are drawn independently and added."""

    first: Symbol = field(default_factory=Power)
    second: Symbol = field(default_factory=Power)

    def __post_init__(self) -> None:
        check_value(self.first)
        check_value(self.second)

    def __call__(self, lam: Tensor) -> Tensor:
        return self.first(lam) + self.second(lam)

    @property
    def edge(self) -> float:
        return min((s.edge for s in (self.first, self.second) if s.index != 1), default=0.0)

    @property
    def index(self) -> float | None:
        return self.first.index if self.first.index == self.second.index else None

    @property
    def drift(self) -> float:
        return self.first.drift + self.second.drift

    def jumps(self, lam: Tensor) -> Tensor:
        return self.first.jumps(lam) + self.second.jumps(lam)

    def draw(self, t: Tensor, rng: Rng) -> Tensor:
        return self.first.draw(t, rng) + self.second.draw(t, rng)


@dataclass(frozen=True)
class Times(Symbol):
    """A symbol times a factor > 0, which makes its clock run faster."""

    factor: float = 1.0
    symbol: Symbol = field(default_factory=Power)

    def __post_init__(self) -> None:
        check_value(self.symbol)
        if not 0 < self.factor < math.inf:
            raise ValueError(f"a symbol takes a finite factor > 0, got {self.factor}")

    def __call__(self, lam: Tensor) -> Tensor:
        return self.factor * self.symbol(lam)

    @property
    def edge(self) -> float:
        return self.symbol.edge

    @property
    def index(self) -> float | None:
        return self.symbol.index

    @property
    def drift(self) -> float:
        return self.factor * self.symbol.drift

    def jumps(self, lam: Tensor) -> Tensor:
        return self.factor * self.symbol.jumps(lam)

    def draw(self, t: Tensor, rng: Rng) -> Tensor:
        return self.symbol.draw(self.factor * t, rng)

    def inverse(self, value: Tensor) -> Tensor:
        return self.symbol.inverse(value / self.factor)
