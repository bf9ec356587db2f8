"""Regression on the process's target: denoising, flow matching and the PFGM++ objective are one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..denoise.preconditioned import Preconditioned
from ..linear import flat
from ..network.embed import Condition, condition
from ..process.base import Process
from ..rng import Rng, uniform
from .augment import Augment
from .base import Batch, Regression
from .laws import Balanced, LogNormal, Times, Weight
from .reveal import Reveal, told, unknown_mean


@dataclass(frozen=True)
class Matching(Regression):
    """`weight(t) |denoiser(x_t, t, cond) - target|^2`, averaged over the data's dimensions, one number per sample.

    `times` draws the times and `weight` weighs them. PFGM++ is aligned with diffusion by `r = t sqrt(D)`, which its
    process carries: laws and weights tuned at `D = inf` hold at every D. A share `label_dropout` of the rows loses its
    class label, which trains the unconditional model beside the conditional one. `augment` deforms images and tells
    the network how (its labels reach it as `Condition.augment`), so that samples, drawn with none, show no trace.
    `reveal` tells the network a random part of each sample (as `Condition.known` and `mask`): the mean is then over the
    entries that are neither known nor missing.
    Source: Karras et al. 2022, Eq. 8; Xu et al. 2023, Alg. 2. [karras2022edm] [xu2023pfgmpp]
    """

    process: Process
    times: Times = field(default_factory=LogNormal)
    weight: Weight = field(default_factory=Balanced)
    label_dropout: float = 0.1
    augment: Augment | None = None
    reveal: Reveal | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout is a probability, got {self.label_dropout}")

    def resolved(self, sigma_data: float, shape: Sequence[int]) -> Self:
        balanced = isinstance(self.weight, Balanced) and self.weight.sigma_data is None
        return replace(self, weight=Balanced(sigma_data)) if balanced else self

    def denoiser(
        self,
        build: Callable[..., nn.Module],
        shape: Sequence[int],
        sigma_data: float,
        scaling: str | None,
        autocast: torch.dtype | None,
    ) -> Preconditioned:
        return Preconditioned(build(shape=shape), self.process, sigma_data, scaling, autocast)

    def __call__(self, models: Mapping[str, Any], batch: Batch, rng: Rng) -> Tensor:
        """Losses `(b,)` of `models["denoiser"]`; the batch carries clean data and their class labels, if any."""
        x0, cond = self.prepare(batch, rng)
        t = self.times(self.process, x0, rng)
        return self._losses(models["denoiser"], x0, t, cond, rng, batch)

    def goal(self, x: Tensor, t: Tensor, x0: Tensor, cond: Condition, batch: Batch) -> Tensor:
        """What the denoiser is to return at `x`, on average: the process's target. A hook, called without gradients.

        `x0` and `cond` are the clean data and their condition as `prepare` leaves them, `batch` as they came.
        """
        return self.process.target(x, t, x0)

    def prepare(self, batch: Batch, rng: Rng) -> tuple[Tensor, Any]:
        """The clean data, augmented, and their condition, with labels dropped."""
        x0, cond = batch.x, condition(batch.cond)
        if cond.label is not None and self.label_dropout > 0:
            keep = uniform(torch.empty(len(x0), device=x0.device), rng) >= self.label_dropout
            cond = cond._replace(label=torch.where(keep, cond.label, -1))
        if self.augment is not None:
            x0, how = self.augment(x0, rng)
            cond = cond._replace(augment=how)
        if self.reveal is not None:
            cond = cond._replace(mask=self.reveal(x0, rng))
        return x0, None if all(c is None for c in cond) else cond

    def at(self, denoiser: Any, batch: Batch, t: Tensor, rng: Rng) -> Tensor:
        """Losses `(b,)` at given times `(b,)`, each sample against its own target, so comparable whatever the goal."""
        return self._losses(denoiser, batch.x, t, batch.cond, rng, None)

    def _losses(self, denoiser: Any, x0: Tensor, t: Tensor, cond: Any, rng: Rng, batch: Batch | None) -> Tensor:
        mask = None
        if self.reveal is not None:
            cond = condition(cond)
            x0, known, mask = told(x0, cond.mask)
            cond = cond._replace(known=known, mask=mask)
        x = self.process.perturb(x0, t, rng)
        with torch.no_grad():
            goal = self.process.target(x, t, x0) if batch is None else self.goal(x, t, x0, condition(cond), batch)
        error = denoiser(x, t, cond) - goal
        mean = flat(error.square()).mean(1) if mask is None else unknown_mean(error.square(), mask)
        losses: Tensor = self.weight.rows(self.process, t, x).to(error.dtype) * mean
        return losses
