"""Regression on births: a network that learns at which rate particles are born or die where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..linear import flat
from ..network.embed import condition
from ..process.base import Isotropic
from ..rng import Rng
from .base import Batch, Objective
from .laws import LogUniform, Times


@dataclass(frozen=True)
class RateMatching(Objective):
    """`t^2 |rate(x_t, t, cond) - r|^2`, with `r` the births by the datum that made `x_t` (`Isotropic.rate`).

    The minimiser is the mean of `r` given `x_t`, which is the rate that `Births` and `branching` take; the factor makes
    it the error of the births in one unit of `ln t`. The model is `models["rate"]`, `(x, t, cond) -> (b,)`, such as a
    `RateNetwork`; it is trained beside a denoiser, and does not change it.
    Raises: TypeError, when called, for a process that keeps its mass.
    Source: Liu et al. 2023, Sec. 3, on the rate for each particle in place of that of density. [liu2023genphys]
    """

    process: Isotropic
    times: Times = field(default_factory=LogUniform)

    def __call__(self, models: Mapping[str, Any], batch: Batch, rng: Rng) -> Tensor:
        """Losses `(b,)` of `models["rate"]`; the batch carries clean data and their class labels, if any."""
        if not isinstance(self.process, Isotropic):
            raise self._refuse()
        x0, cond = batch.x, condition(batch.cond)
        t = self.times(self.process, x0, rng)
        x = self.process.perturb(x0, t, rng)
        rate = self.process.rate(flat(x - x0).square().sum(1), t, flat(x).shape[1])
        if rate is None:
            raise self._refuse()
        error = models["rate"](x, t, None if all(c is None for c in cond) else cond) - rate
        losses: Tensor = (t * error).square()
        return losses

    def _refuse(self) -> TypeError:
        return TypeError(
            f"{type(self.process).__name__} keeps its mass: it has no births or deaths to learn; take a process that "
            "has, df.ScreenedPoisson() or df.Helmholtz()"
        )
