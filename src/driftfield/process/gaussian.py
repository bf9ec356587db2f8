"""Processes whose noise is Gaussian: two curves, `alpha` and `sigma`, give everything else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear import Linear, Scalar, expand
from .base import ByLevel, Isotropic, check_span
from .structured import GaussianProcess as GaussianProcess


class ScalarGaussian(Isotropic, GaussianProcess):
    """A Gaussian process whose `A_t` and `R_t` are numbers. A subclass gives `alpha`, `sigma` and `time`."""

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        return -d2 / (2 * self.sigma(t).square())

    @property
    def freedom(self) -> float:
        return math.inf

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        return self.log_profile(rise, t, n)

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        return -n * (self.sigma(t).log() + math.log(2 * math.pi) / 2)

    def signal(self, t: Tensor) -> Linear:
        return Scalar(self.alpha(t))

    def covariance(self, t: Tensor) -> Linear:
        return Scalar(self.sigma(t).square())

    def drift(self, t: Tensor) -> Linear:
        return Scalar(self.slopes(t)[0] / self.alpha(t))

    def diffusion(self, t: Tensor) -> Linear:
        """`2 (sigma sigma' - sigma^2 alpha' / alpha)`: infinite where no signal is left."""
        (d_alpha, d_sigma), sigma = self.slopes(t), self.sigma(t)
        return Scalar(2 * sigma * (d_sigma - sigma * d_alpha / self.alpha(t)))

    def gain(self, t: Tensor, s: Tensor) -> Linear:
        faded, top = self.alpha(t) / self.alpha(s) * self.sigma(s), self.sigma(t)
        return Scalar(((top - faded) * (top + faded)).sqrt())  # as a product: no cancellation when t is close to s

    def observe(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.sigma(t)
        return x / expand(sigma, x), expand(self.alpha(t) / sigma, x).to(x)


@dataclass(frozen=True)
class EDM(ByLevel, ScalarGaussian):
    """Time is the noise level: `alpha = 1`, `sigma = t`.

    Source: Karras et al. 2022, Table 1. [karras2022edm]
    """

    span: tuple[float, float] = (0.002, 80.0)

    def __post_init__(self) -> None:
        check_span(self.span)


@dataclass(frozen=True)
class VE(ScalarGaussian):
    """Variance exploding: `alpha = 1`, `sigma = sigma_min (sigma_max / sigma_min)^t`, `t` in [1e-5, 1].

    At `t = 0` the noise is still `sigma_min`: no time is free of noise, so the span begins above 0 and grids end there.
    Source: Song et al. 2021, App. C. [song2021score]
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    span: tuple[float, float] = (1e-5, 1.0)

    def __post_init__(self) -> None:
        check_span(self.span)
        check_span((self.sigma_min, self.sigma_max))
        if self.span[0] <= 0:
            raise ValueError(
                f"time 0 means no noise, but that of VE is sigma_min={self.sigma_min} there; "
                f"choose span[0] > 0, got {self.span[0]}"
            )

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (t * math.log(self.sigma_max / self.sigma_min)).exp()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), self.sigma(t) * math.log(self.sigma_max / self.sigma_min)

    def time(self, level: Tensor) -> Tensor:
        return (level / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class _LinearBeta(ScalarGaussian):
    """Noise rate `beta_min + t (beta_max - beta_min)`; `alpha` is shared by the two members of the family."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    span: tuple[float, float] = (1e-3, 1.0)

    def __post_init__(self) -> None:
        check_span(self.span)
        check_span((self.beta_min, self.beta_max))

    def log_alpha(self, t: Tensor) -> Tensor:
        """The logarithm of the signal's scale."""
        return -t.square() * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def _rate(self, t: Tensor) -> Tensor:
        return -(t * (self.beta_max - self.beta_min) + self.beta_min) / 2

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        fall = -2 * log_alpha  # the root without cancellation near 0
        return 2 * fall / (self.beta_min + (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * fall).sqrt())


@dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance preserving, linear beta: `alpha^2 + sigma^2 = 1`, `t` in [1e-3, 1].

    Source: Song et al. 2021, App. C. [song2021score]
    """

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def level(self, t: Tensor) -> Tensor:
        return torch.expm1(-2 * self.log_alpha(t)).sqrt()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, rate = self.alpha(t), self._rate(t)
        return alpha * rate, -alpha.square() * rate / self.sigma(t)

    def time(self, level: Tensor) -> Tensor:
        return self._time_of_log_alpha(-level.square().log1p() / 2)


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-variance preserving: the `alpha` of VP with `sigma = 1 - alpha^2`, `t` in [1e-3, 1].

    Source: Song et al. 2021, Eq. 29. [song2021score]
    """

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def level(self, t: Tensor) -> Tensor:
        return -2 * self.log_alpha(t).sinh()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, rate = self.alpha(t), self._rate(t)
        return alpha * rate, -2 * alpha.square() * rate

    def time(self, level: Tensor) -> Tensor:
        return self._time_of_log_alpha(-(level / 2).asinh())


@dataclass(frozen=True)
class Rectified(ScalarGaussian):
    """The straight path from data to noise: `alpha = 1 - t`, `sigma = t`. At `t = 1` no signal is left.

    Source: Liu et al. 2023, Eq. 1; Lipman et al. 2023, Sec. 4.1. [liu2023rectified] [lipman2023flow]
    """

    span: tuple[float, float] = (1e-3, 1.0)

    def __post_init__(self) -> None:
        check_span(self.span)
        if self.span[1] > 1:
            raise ValueError(f"the straight path ends at time 1, so span[1] must be at most 1, got {self.span[1]}")

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def time(self, level: Tensor) -> Tensor:
        return 1 / (1 + 1 / level)
