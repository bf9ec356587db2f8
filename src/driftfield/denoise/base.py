"""What a denoiser is: any callable that estimates the clean data behind a noisy state."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Denoiser(Protocol):
    """An estimate of `E[target | x_t = x]`, by default of the clean data.

    `x` is a state `(B, ...)`, `t` a time `()` or `(B,)`, `cond` opaque; the result is `(B, *data)` like the data.
    """

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor: ...


def evaluations(denoiser: Denoiser) -> int:
    """How many calls of the network one estimate costs: what a wrapper says in `evaluations`, else 1."""
    return int(getattr(denoiser, "evaluations", 1))
