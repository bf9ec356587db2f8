"""Runge-Kutta methods in the process's own time.

A step to `s = 0` is one evaluation, `field.arrive`: the flow is not defined where no noise is left, and the step ends
on the denoiser's estimate, which for `alpha = 1` is the Euler step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..field.base import Field
from ..rng import Rng
from .base import Solver


@dataclass(frozen=True)
class Euler(Solver):
    """First order, one evaluation a step."""

    order = 1

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        return (field.arrive(x, t) if s.item() == 0 else x + (s - t) * field.velocity(x, t)), None


@dataclass(frozen=True)
class Heun(Solver):
    """Second order, two evaluations a step and one for the step to 0.

    Source: Karras et al. 2022, Alg. 1. [karras2022edm]
    """

    order = 2

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1 if s.item() == 0 else 2

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        if s.item() == 0:
            return field.arrive(x, t), None
        v = field.velocity(x, t)
        ahead = x + (s - t) * v
        return x + (s - t) / 2 * (v + field.velocity(ahead, s)), None


@dataclass(frozen=True)
class RK4(Solver):
    """The classical fourth-order method, four evaluations a step and one for the step to 0."""

    order = 4

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1 if s.item() == 0 else 4

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        if s.item() == 0:
            return field.arrive(x, t), None
        h, middle = s - t, (s + t) / 2
        k1 = field.velocity(x, t)
        k2 = field.velocity(x + h / 2 * k1, middle)
        k3 = field.velocity(x + h / 2 * k2, middle)
        k4 = field.velocity(x + h * k3, s)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None
