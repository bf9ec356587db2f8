"""At which times a denoiser is trained, and how the losses there are weighed.

Both are frozen values, so that a recipe can be written down. Times are drawn as levels or in the process's own time;
weights multiply the squared error of the estimate of clean data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..process.base import Isotropic, Process
from ..rng import Rng, normal, uniform


class Times(ABC):
    """A law of training times."""

    @abstractmethod
    def __call__(self, process: Process, like: Tensor, rng: Rng) -> Tensor:
        """One time per row of `like`, `(B,)`, with its dtype and device."""


def _rows(like: Tensor) -> Tensor:
    return like.new_empty(len(like))


@dataclass(frozen=True)
class LogNormal(Times):
    """The logarithm of the level is normal; levels outside the process's span may be drawn.

    Source: Karras et al. 2022, Table 1. [karras2022edm]"""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, process: Process, like: Tensor, rng: Rng) -> Tensor:
        return process.time((self.mean + self.std * normal(_rows(like), rng)).exp())


@dataclass(frozen=True)
class UniformTime(Times):
    """Uniform in the process's own time over its span: the law of VP and of VE.

    Source: Song et al. 2021, Eq. 7. [song2021score]
    """

    def __call__(self, process: Process, like: Tensor, rng: Rng) -> Tensor:
        low, high = process.span
        return low + (high - low) * uniform(_rows(like), rng)


@dataclass(frozen=True)
class LogUniform(Times):
    """The logarithm of the level is uniform between those of `low` and `high`, whether or not the span reaches them."""

    low: float = 0.002
    high: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"levels must satisfy 0 < low < high, got low={self.low}, high={self.high}")

    def __call__(self, process: Process, like: Tensor, rng: Rng) -> Tensor:
        ends = torch.tensor([self.low, self.high], dtype=torch.float64).log().tolist()
        return process.time((ends[0] + (ends[1] - ends[0]) * uniform(_rows(like), rng)).exp())


class Weight(ABC):
    """How the squared error of `E[x_0 | x_t]` is weighed at each time."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """Weights of the shape of `t`."""

    def rows(self, process: Process, t: Tensor, x: Tensor) -> Tensor:
        """Weights of the states `x` at the times `t`, `(B,)`: those of the times, unless a state says more."""
        return self(process, t)


@dataclass(frozen=True)
class Balanced(Weight):
    """`1 / c_out^2`: every level starts at a loss of 1 for data of standard deviation `sigma_data`.

    It is `1 / sigma_data^2 + 1 / level^2`, under heavy-tailed noise at the level that a state looks like
    (`Process.apparent`). `sigma_data` None is filled in from the data by training.
    Source: Karras et al. 2022, Table 1. [karras2022edm]
    """

    sigma_data: float | None = None

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        if self.sigma_data is None:
            raise ValueError("the weight Balanced needs sigma_data, the standard deviation of the data")
        return self.sigma_data**-2 + process.level(t).square().reciprocal()

    def rows(self, process: Process, t: Tensor, x: Tensor) -> Tensor:
        return self(process, t if self.sigma_data is None else process.apparent(x, t, self.sigma_data))


@dataclass(frozen=True)
class NoiseMatching(Weight):
    """`(alpha / sigma)^2`: the squared error of the noise, the weight of VP and of VE.

    Source: Karras et al. 2022, Table 1. [karras2022edm]
    """

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return process.level(t).square().reciprocal()


@dataclass(frozen=True)
class VelocityMatching(Weight):
    """The squared error of the velocity `dx/dt` in the process's own time, the weight of flow matching.

    Raises: TypeError where it is no multiple of the error of the estimate (CLD, Blur).
    Source: Lipman et al. 2023, Eq. 5. [lipman2023flow]
    """

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        if not isinstance(process, Isotropic):
            raise TypeError(
                f"the velocity of {type(process).__name__} weighs directions differently, so its error is no multiple "
                "of the estimate's; use another weight, such as Balanced"
            )
        d_alpha, d_sigma = process.slopes(t)
        return (d_alpha - d_sigma / process.sigma(t) * process.alpha(t)).square()


@dataclass(frozen=True)
class Even(Weight):
    """1: the squared error of the clean data itself."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return torch.ones_like(t)
