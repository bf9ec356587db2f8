"""Stochastic gDDIM on processes that are structured: what a step keeps of the noise, and what it draws anew.

Along the reverse-time process with noise `lam` times its own, with the estimate `y` held, `x - A y` moves by the drift
`F + (1 + lam^2) / 2 G G^T Sigma^-1` and fresh noise that keeps its covariance that of the process. So a step keeps what
the transition of that drift leaves, and draws the rest.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ..linear import Block, Linear
from ..process.structured import GaussianProcess
from ..spectral import Filter, Spectral
from .coefficients import Values


@lru_cache(maxsize=256)
def noisy_step(process: GaussianProcess, lam: float, t: float, s: float) -> tuple[Linear, Linear]:
    """`(keep, fresh)` of the step `x_s = A_s y + keep (x_t - A_t y) + fresh z` with `z ~ N(0, I)`.

    Source: Zhang et al. 2023, Props. 8 to 10, with the covariance in closed form. [zhang2023gddim]
    """
    begin, end = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
    before, after = process.root(begin), process.root(end)
    turning = isinstance(after, Block)
    if lam == 0 and process.flowing:
        return after @ before.inv, after.scale(0.0)
    if turning:
        keep: Linear = Block(_reversed(process, lam, begin, end))
        own: Linear = after.inv @ keep @ before
        one: Linear = Block(torch.eye(2, dtype=torch.float64))
        return keep, after @ (one - own @ own.T).factor
    ratio = after @ process.signal(end).inv @ (before @ process.signal(begin).inv).inv
    assert isinstance(ratio, (Spectral, Filter))
    share: Linear = ratio.power(lam**2)
    whole: Linear = ratio.power(0.0)
    return after @ share @ before.inv, after @ (whole - share @ share).factor


def _reversed(process: GaussianProcess, lam: float, t: Tensor, s: Tensor) -> Tensor:
    """The transition `(2, 2)` of `F + (1 + lam^2) / 2 G G^T Sigma^-1` from `t` to `s`."""

    def rate(u: float, flat: Values) -> Values:
        at = torch.tensor(u, dtype=torch.float64)
        moved = process.drift(at) + (process.diffusion(at) @ process.covariance(at).inv).scale((1 + lam**2) / 2)
        assert isinstance(moved, Block)
        return np.asarray(moved.m.numpy() @ flat.reshape(2, 2)).ravel()

    span = (t.item(), s.item())
    found = solve_ivp(rate, span, np.eye(2).ravel(), method="DOP853", rtol=1e-12, atol=1e-14)
    if not found.success:
        raise ArithmeticError(f"the transition of {process} from {span[0]:g} to {span[1]:g} failed: {found.message}")
    return torch.from_numpy(found.y[:, -1].reshape(2, 2).copy())
