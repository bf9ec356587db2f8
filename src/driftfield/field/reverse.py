"""The field that generates: a process and a denoiser of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..denoise.base import Denoiser
from ..process.base import Process, check_end
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
        """The denoiser's estimate at the state `x`. Raises: ValueError for one of another shape than the data."""
        y = self.denoiser(x, t, self.cond)
        if y.shape != (expected := self.process.data(x).shape):
            at = f"time {t.item():.6g}" if t.ndim == 0 else f"{len(t)} times from {t[0].item():.6g}"
            raise ValueError(
                f"the denoiser returned shape {tuple(y.shape)} at {at}, but for each of the data {tuple(expected)} it "
                "must return an estimate of that datum"
            )
        return y

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        return self.process.velocity(x, t, self.predict(x, t))

    def arrive(self, x: Tensor, t: Tensor) -> Tensor:
        """The denoiser's estimate: the end of the flow if the estimate holds all the way.

        For `alpha = 1` this is the Euler step; on VP, whose noise falls like `sqrt(t)`, Euler would leave half of it.
        Raises: ValueError where the process still carries noise at time 0 (VE): the estimate is not the state there.
        """
        check_end(self.process)
        return self.predict(x, t)

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        up = self.process.diffuse(x, s, t, rng)
        if self.s_noise == 1:
            return up
        mean = self.process.transition(t, s)(x)
        return mean + self.s_noise * (up - mean)
