"""What training minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..denoise.learned import Learned
from ..process.base import Process
from ..rng import Rng
from .augment import Augment
from .reveal import Reveal


@dataclass(frozen=True, eq=False)
class Batch:
    """Clean data `x` `(b, *data)`, what they are conditioned on, and the data that some objectives compare them with.

    `reference` is `(n, *data)`, conditioned on `reference_cond`; in training its first `b` items are `x` itself.
    """

    x: Tensor
    cond: Any = None
    reference: Tensor | None = None
    reference_cond: Any = None

    @staticmethod
    def of(x: Tensor, cond: Tensor | None, b: int, reference: int) -> Batch:
        """The first `b` of the items drawn, compared with all of them if a `reference` is wanted."""
        if not reference:
            return Batch(x, cond)
        return Batch(x[:b], None if cond is None else cond[:b], x, cond)


class Objective(ABC):
    """Per-sample losses of named models on a batch. A frozen value.

    `reference` is how many data are drawn for each piece of a batch, the piece itself included, for an objective that
    compares each sample with others: 0 where none are. Several processes, and the parts of an accumulated batch, draw
    a reference each.
    """

    reference: int = 0

    @abstractmethod
    def __call__(self, models: Mapping[str, Any], batch: Batch, rng: Rng) -> Tensor:
        """Losses `(b,)`, one per sample; the caller averages."""


class Regression(Objective):
    """An objective whose one model, `"denoiser"`, is a network that becomes a denoiser of `process`: what recipes hold.

    `times(process, like, rng)` draws the times of training, `(B,)` for rows `like`; `augment` and `reveal` are those of
    `Matching`, for which the network is built.
    """

    process: Process
    times: Callable[[Process, Tensor, Rng], Tensor]
    augment: Augment | None = None
    reveal: Reveal | None = None

    @abstractmethod
    def at(self, denoiser: Any, batch: Batch, t: Tensor, rng: Rng) -> Tensor:
        """Losses `(b,)` of a denoiser at given times `(b,)`, each sample's the same whatever else is in the batch.

        The batch's `reference`, where `Objective.reference` is not 0, is one for all batches that are to be compared.
        """

    @abstractmethod
    def resolved(self, sigma_data: float, shape: Sequence[int]) -> Self:
        """With what was left to the data filled in: their deviation `sigma_data`, and their `shape`."""

    @abstractmethod
    def denoiser(
        self,
        build: Callable[..., nn.Module],
        shape: Sequence[int],
        sigma_data: float,
        scaling: str | None,
        autocast: torch.dtype | None,
    ) -> Learned:
        """The untrained denoiser of data of `shape`; `build(shape=...)` makes its network."""
