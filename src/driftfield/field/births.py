"""Flows along which particles are born and die: a velocity, and the rate at which the weight of a particle grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..linear import flat
from ..rng import Rng
from .base import Field
from .reverse import Reverse


class Rate(Protocol):
    """Births for each particle and unit of time, `(B,)`, given a state, a time and a condition; deaths are negative."""

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Births(Reverse):
    """The reversal of a process that gains or loses mass (`ScreenedPoisson`, `Helmholtz`): its flow, with a `rate`.

    `rates` is the estimate of it, learned (`RateMatching`) or exact; by default that of the denoiser, which an
    `Empirical` has.
    Raises: TypeError where there is none.
    Source: Liu et al. 2023, Sec. 2, the density flow with a source. [liu2023genphys]
    """

    rates: Rate | None = None

    def __post_init__(self) -> None:
        if self.rates is None and not hasattr(self.denoiser, "rate"):
            raise TypeError(f"{type(self.denoiser).__name__} does not know the rate of births; give it as rates=")

    def rate(self, x: Tensor, t: Tensor) -> Tensor:
        """`d log(weight) / dt` of a particle at `x`, `(B,)`. Raises: ValueError for an estimate of another shape."""
        known: Any = self.denoiser
        rates = known.rate(x, t, self.cond) if self.rates is None else self.rates(x, t, self.cond)
        if rates.shape != x.shape[:1]:
            raise ValueError(f"the rate of births is one number a particle, ({len(x)},), got {tuple(rates.shape)}")
        made: Tensor = rates
        return made

    def log_kept(self, s: Tensor, t: Tensor, n: int) -> Tensor:
        """The logarithm of the share of particles that live through an upward move from `s` to `t`, `()`.

        Raises: TypeError where the process does not say.
        """
        process: Any = self.process
        if not hasattr(process, "log_mass"):
            raise TypeError(
                f"{type(process).__name__} does not say what mass an upward move keeps; use a grid that falls"
            )
        kept: Tensor = process.log_mass(t, n) - process.log_mass(s, n)
        return kept


class WithWeight(Field):
    """The flow of `field` with the logarithm of the weight: a state is `(B, N + 1)`, flattened, the weight last."""

    def __init__(self, field: Births, shape: tuple[int, ...]):
        """`shape` is that of one state of `field`."""
        self.field, self.shape = field, tuple(shape)

    def pack(self, x: Tensor, log_w: Tensor) -> Tensor:
        """The states `(B, *shape)` and the logarithms of their weights `(B,)` as one."""
        return torch.cat((flat(x), log_w[:, None].to(x)), 1)

    def unpack(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The states `(B, *shape)` and the logarithms of their weights `(B,)`."""
        return z[:, :-1].reshape(len(z), *self.shape), z[:, -1]

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        inner, _ = self.unpack(x)
        return self.pack(self.field.velocity(inner, t), self.field.rate(inner, t))

    def arrive(self, x: Tensor, t: Tensor) -> Tensor:
        """The end of the flow, as the field knows it; the rate is held."""
        inner, log_w = self.unpack(x)
        return self.pack(self.field.arrive(inner, t), log_w - t * self.field.rate(inner, t))

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """The field's own upward move, with the share of particles that live through it."""
        inner, log_w = self.unpack(x)
        kept = self.field.log_kept(s, t, inner[0].numel())
        return self.pack(self.field.diffuse(inner, s, t, rng), log_w + kept)
