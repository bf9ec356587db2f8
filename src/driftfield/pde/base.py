"""What a linear, translation- and rotation-invariant equation is here: its density flow, its waves, its kernel.

An equation `L phi = 0` is read as a flow of density, `dp/dt + div(p v) = R`, with `p` the data at `t = 0`. A mode
`exp(-i omega t + i k . x)` of wavenumber `k` solves it if `omega = omega(k)`, one of a few branches. It makes data if
two things hold: the density forgets them (every mode fades faster than the constant one), and it is a density (it is
nowhere negative). Times are the equation's own, growing from the data; distances are in units of the data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import sympy
import torch
from torch import Tensor

from ..process.base import Process
from .dispersion import symbols


class Flow(NamedTuple):
    """An equation as a flow of density, in words: its text, the density, the velocity, and the rate of births."""

    pde: str
    p: str
    v: str
    R: str


class Judgement(NamedTuple):
    """Whether an equation generates: `verdict` is yes, conditional or no; the `condition`, if any; and the `reason`."""

    verdict: str
    condition: str
    reason: str


class Green(NamedTuple):
    """The response to one unit source, at some distances from it: tensors of one shape.

    `log_density` is NaN where the density is not above 0, and finite where it is, also in thousands of dimensions,
    where the density itself is out of range. `velocity` is the coefficient `c` in `v = c (x - x')`, and `rate` the
    births per particle, `R / p`: NaN where there is no density. `potential` is complex for the Schroedinger equation.
    """

    potential: Tensor
    density: Tensor
    log_density: Tensor
    velocity: Tensor
    rate: Tensor


@dataclass(frozen=True)
class PDE(ABC):
    """An equation with its parameters: a frozen value. Parameters are positive numbers.

    A subclass gives the texts, the verdict, the branches, the transforms and the response to a point source.
    Raises: ValueError for a parameter that is not a finite number above 0.
    Source: Liu et al. 2023. [liu2023genphys]
    """

    name: ClassVar[str]
    closed: ClassVar[bool] = True  # whether the response is a formula, or an integral that takes a while
    sharp: ClassVar[bool] = False  # whether the response to a point is singular away from it, or infinitely extended
    additive: ClassVar[bool] = True  # kernels at two times convolve to the one at their sum: `p^ = exp(-t Omega)`

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name} of {self.name} must be a finite number above 0, got {value!r}")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    @abstractmethod
    def flow(self) -> Flow:
        """The equation, and what is its density, its velocity and its rate of births. The density has mass +1 at 0."""

    @property
    @abstractmethod
    def judgement(self) -> Judgement:
        """Whether it generates, under which condition, and for what reason."""

    @property
    @abstractmethod
    def branches(self) -> tuple[sympy.Expr, ...]:
        """`omega(k)` in sympy, in the positive symbols of `symbols()`; first the branch that the density follows."""

    @abstractmethod
    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The Fourier transforms of the potential and the density of one source at wavenumbers `k >= 0`, float64.

        The potential's may be infinite at `k = 0`. With data as sources they multiply the transform of the data.
        """

    def scaled(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """`spectrum` up to a factor of `t` alone. A hook: for a mass that leaves the range of numbers."""
        return self.spectrum(k, t)

    @abstractmethod
    def response(self, s: Tensor, t: float, n: int) -> Green:
        """`green` for arguments that have been checked, in float64."""

    @abstractmethod
    def process(self) -> Process:
        """The process that trains and samples. Raises: ValueError with the reason where there is none."""

    @property
    def pde(self) -> str:
        """The equation."""
        return self.flow.pde

    @property
    def p(self) -> str:
        """The density in terms of the solution `phi`."""
        return self.flow.p

    @property
    def v(self) -> str:
        """The velocity in terms of the solution `phi`."""
        return self.flow.v

    @property
    def R(self) -> str:
        """The rate of births per volume in terms of the solution `phi`."""
        return self.flow.R

    @property
    def verdict(self) -> str:
        """yes, conditional or no."""
        return self.judgement.verdict

    @property
    def condition(self) -> str:
        """What must hold for it to generate; empty where it always does, or never."""
        return self.judgement.condition

    @property
    def reason(self) -> str:
        """Why the verdict is what it is."""
        return self.judgement.reason

    def record(self) -> dict[str, str]:
        """`name`, `pde`, `verdict`, `condition` and `reason`."""
        return {"name": self.name, "pde": self.pde, **self.judgement._asdict()}

    def omega(self, k: Tensor) -> Tensor:
        """All branches at the wavenumbers `k >= 0`, complex128, `(branches, *k.shape)`."""
        at = k.double().to(torch.complex128)
        found = [torch.as_tensor(curve(at.numpy()), dtype=torch.complex128) for curve in self._curves]
        return torch.stack([f.expand(k.shape) for f in found])

    @cached_property
    def _curves(self) -> list[Any]:
        s = symbols()
        values = {s[name]: value for name, value in self.parameters.items() if name in s}
        return [sympy.lambdify(s["k"], branch.subs(values), "numpy") for branch in self.branches]

    def green(self, s: Tensor, t: float, n: int) -> Green:
        """The response to a unit source at distances `s` from it (any shape), time `t` > 0, in `n` dimensions, float64.

        Singular parts on a front, if any, are left out; see the class.
        Raises: ValueError for a time that is not above 0 (at 0 the response is the source itself, infinite at distance
        0), a negative distance, or no whole dimension >= 1.
        """
        if not 0 < t < math.inf:
            raise ValueError(
                f"at time 0 a Green's function is the point source itself, so t must be finite and above 0, got t={t}"
            )
        if not 1 <= n < math.inf or n != int(n):
            raise ValueError(f"the dimension must be a whole number from 1, got n={n}")
        s = torch.as_tensor(s, dtype=torch.float64)
        if not bool((s >= 0).all()):
            raise ValueError(f"distances must be >= 0, got {s.min().item():g}")
        return self.response(s, float(t), int(n))

    def total_mass(self, t: float) -> float:
        """The mass of the density of one source at `t`: its transform at wavenumber 0."""
        return float(self.spectrum(torch.zeros((), dtype=torch.float64), t)[1].real)

    def made(self, name: str, values: dict[str, Any]) -> Process:
        """The process that the package exports as `name`, with these fields."""
        made: Process = getattr(import_module(__package__.partition(".")[0]), name)(**values)
        return made

    def unfit(self) -> ValueError:
        """The error that says why it cannot be trained."""
        return ValueError(f"the {self.name} equation cannot be trained: {self.reason}")
