"""What a solver follows: a direction at every point and time."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..linear import flat
from ..rng import Rng


class Field(ABC):
    """A velocity at every point and time, and the upward move of the same process."""

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """`dx/dt` at the state `x` `(B, ...)` and the time `t`, `()`, or `(B,)` where rows have their own."""

    def arrive(self, x: Tensor, t: Tensor) -> Tensor:
        """The state at time 0 from one evaluation at `x` and `t`: an Euler step, unless a field knows better."""
        return x - t * self.velocity(x, t)

    def size(self, error: Tensor) -> Tensor:
        """How large the `error` `(B, ...)` of a state is, `(B,)`: a root mean square, unless a field weighs parts.

        An adaptive solver asks for errors that are divided by what it tolerates.
        """
        return flat(error).square().mean(1).sqrt()

    @abstractmethod
    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` given `x_s = x`, for `t > s`: what a path does where it climbs."""
