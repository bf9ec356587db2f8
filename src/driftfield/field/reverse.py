"""The field that generates: a process and a denoiser of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoise.base import Denoiser
from ..process.base import Process
from ..rng import Rng
from .base import Field


@dataclass(frozen=True, eq=False)
class Reverse(Field):
    """The deterministic flow of `process`, with `denoiser` in place of the posterior mean.

    `s_noise` multiplies the noise that climbs add (churn, Restart); 1 is exact.
    Source: Karras et al. 2022, Alg. 2, for `s_noise`. [karras2022edm]
    """

    process: Process
    denoiser: Denoiser
    cond: Any = None
    s_noise: float = 1.0

    def predict(self, x: Tensor, t: Tensor) -> Tensor:
        """The denoiser's estimate at the state `x`."""
        return self.denoiser(x, t, self.cond)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        return self.process.velocity(x, t, self.predict(x, t))

    def arrive(self, x: Tensor, t: Tensor) -> Tensor:
        """The denoiser's estimate: the end of the flow if the estimate holds all the way.

        For `alpha = 1` this is the Euler step; on VP, whose noise falls like `sqrt(t)`, Euler would leave half of it.
        Raises: ValueError where the process still carries noise at time 0 (VE): the estimate is not the state there.
        """
        if self.process.level(torch.zeros((), dtype=torch.float64)) != 0:
            raise ValueError(
                f"{type(self.process).__name__} carries noise at time 0, so no path of it ends there; "
                f"end the path at span[0]={self.process.span[0]:g}"
            )
        return self.predict(x, t)

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        up = self.process.diffuse(x, s, t, rng)
        if self.s_noise == 1:
            return up
        mean = self.process.transition(t, s)(x)
        return mean + self.s_noise * (up - mean)
