"""Noise that no model was told of, added on the way: how robust a sampler is to leaving its path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..field.base import Field
from ..field.births import WithWeight
from ..process.base import Isotropic
from ..process.gaussian import GaussianProcess
from ..rng import Rng, normal
from .base import Solver, reversal
from .stochastic import check_descent


@dataclass(frozen=True)
class Jolted(Solver):
    """`inner`, whose every step from `t` begins by adding Gaussian noise of deviation `alpha sigma_t`.

    The time stays `t`: the noise is unaccounted for, unlike that of churn, and tests how well a model finds back. At
    `alpha = 0` this is `inner`, bit for bit. Where the noise of a process has a shape, the jolt has the same one.
    Raises: ValueError for a negative or infinite `alpha`, an adaptive `inner`, whose own steps could not be jolted, or
            a step that climbs; TypeError for a field that is not the reversal of a process, that carries weights
            besides, or one whose noise is no linear map.
    Source: Xu et al. 2023, Sec. 6.2. [xu2023pfgmpp]
    """

    inner: Solver
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha is a share of the noise at each step, a finite number >= 0, got {self.alpha}")
        if self.inner.adaptive:
            raise ValueError(
                f"{type(self.inner).__name__} chooses its own steps, which cannot be jolted; take a solver of given "
                "steps, such as df.Heun()"
            )

    @property
    def order(self) -> int:  # type: ignore[override]
        """That of `inner`."""
        return self.inner.order

    @property
    def noisy(self) -> bool:  # type: ignore[override]
        """Where it jolts, or `inner` adds noise."""
        return self.alpha > 0 or self.inner.noisy

    @property
    def remembered(self) -> int:  # type: ignore[override]
        """That of `inner`."""
        return self.inner.remembered

    def init(self) -> Any:
        return self.inner.init()

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return self.inner.evaluations(t, s, fresh)

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        if self.alpha > 0:
            check_descent(self, t, s)
            if isinstance(field, WithWeight):
                raise TypeError(
                    "the weights of particles cannot be jolted; use the inner solver of Jolted, "
                    f"{type(self.inner).__name__}, by itself"
                )
            process: Any = reversal(field).process
            if not isinstance(process, Isotropic | GaussianProcess):
                raise TypeError(
                    f"Jolted needs noise that is a linear map of `eps`, which {type(process).__name__} lacks"
                )
            x = x + self.alpha * process.root(t)(normal(x, rng))
        return self.inner.step(field, x, t, s, state, rng)
