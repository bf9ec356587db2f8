"""Denoisers in closed form: a single datum, and Gaussian data with independent coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear import expand
from ..process.base import Isotropic


@dataclass(frozen=True, eq=False)
class Point:
    """The exact denoiser when there is one datum: whatever the process, `x` and `t`, the estimate is `x0`.

    States must be shaped like data; under CLD take `Empirical(process, x0[None])`.
    `x0` is `(*data)`, or anything else that broadcasts to `x`.
    """

    x0: Tensor

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """`x0` for every row of `x`, shaped and typed like `x`."""
        return self.x0.to(x).expand(x.shape)


@dataclass(frozen=True, eq=False)
class Normal:
    """The exact denoiser when the coordinates of the data are independent normal variables, under Gaussian noise.

    Shapes: `mean` and `std` are numbers, or tensors that broadcast to the data's shape `(*data)`.
    Units:  of the data; `std` is >= 0, and 0 marks a coordinate that is known.
    Raises: TypeError where the noise is not Gaussian; ValueError for a `std` that is negative or not finite.
    Source: the conditional mean of jointly normal variables.
    """

    process: Isotropic
    mean: Tensor | float = 0.0
    std: Tensor | float = 1.0

    def __post_init__(self) -> None:
        if not hasattr(self.process, "freedom"):
            raise TypeError(f"Normal needs an isotropic process, got {type(self.process).__name__}")
        if self.process.freedom != math.inf:
            raise TypeError(
                f"the posterior of Gaussian data under {self.process} has no closed form; "
                "use Mixture(process, weights, means, covariances) with a single component"
            )
        std = torch.as_tensor(self.std)
        if not bool(((std >= 0) & (std < math.inf)).all()):
            raise ValueError(f"std must be finite and >= 0, got {self.std}")

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """`E[x_0 | x_t = x]`, shaped and typed like `x`; `t` is `()` or `(B,)`, and may be 0."""
        mean, std = (torch.as_tensor(v, dtype=torch.float64, device=x.device) for v in (self.mean, self.std))
        x64 = x.double()
        a, s = expand(self.process.alpha(t.double()), x64), expand(self.process.sigma(t.double()), x64)
        known = std == 0  # whatever the noise, which may be 0 as well
        gain = torch.where(known, 0, a * std.square()) / torch.where(known, 1, (a * std).square() + s.square())
        return (mean + gain * (x64 - a * mean)).to(x.dtype)
