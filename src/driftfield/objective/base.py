"""What training minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..rng import Rng


@dataclass(frozen=True, eq=False)
class Batch:
    """Clean data `x` `(b, *data)`, what they are conditioned on, and further data that some objectives compare with."""

    x: Tensor
    cond: Any = None
    reference: Tensor | None = None


class Objective(ABC):
    """Per-sample losses of named models on a batch. A frozen value."""

    @abstractmethod
    def __call__(self, models: Mapping[str, Any], batch: Batch, rng: Rng) -> Tensor:
        """Losses `(b,)`, one per sample; the caller averages."""
