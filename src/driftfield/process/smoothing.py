"""What smoothing processes share: noise that is Gaussian with one random variance per row, whose law changes shape."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import check_span
from .poisson import RadialProcess

LEVELS = (0.002, 80.0)


class Smoothing(RadialProcess):
    """`x_t = x_0 + sqrt(V_t) g` with `g ~ N(0, I)` and `V_t` from the law of a subordinator: the PDE's Green function.

    The flow keeps each datum's `g` and the rank of its `V`, which is the one isotropic flow that conserves mass. It is
    `dx / dlog(level) = x - y` with `y` the mean of `target`, the level being about the deviation of the noise: from
    `t Omega(4 / level^2) = 2`, where `exp(-t Omega(k^2))` is the kernel's transform. For the heat equation that is the
    deviation, for Poisson's the scale of the Cauchy law. A process is given the least and the most noise as `levels`;
    `span` are the times at which it has them.
    Source: Liu et al. 2023, for PDEs as generative models; Andrews and Mallows 1974, for scale mixtures.
            [liu2023genphys] [andrews1974scale]
    """

    levels: tuple[float, float]

    def _settle(self) -> None:
        """Check `levels` and set `span`: for `__post_init__`."""
        check_span(self.levels)
        if self.levels[0] <= 0:
            raise ValueError(f"levels are noise above 0, got {self.levels}")
        ends = self.time(torch.tensor(self.levels, dtype=torch.float64)).tolist()
        object.__setattr__(self, "span", (ends[0], ends[1]))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def level(self, t: Tensor) -> Tensor:
        return self.sigma(t)

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        d2 = d2.double()
        return (self.log_profile(d2 + rise, t, n) - self.log_profile(d2, t, n)).to(rise)


def beside(a: Tensor, like: Tensor) -> Tensor:
    """`a`, `()`, `(B,)` or already of as many dimensions, so that it broadcasts to `like`, `(B, ...)`; in float64."""
    a = a.double()
    return a if a.ndim in (0, like.ndim) else a.reshape(-1, *[1] * (like.ndim - 1))
