"""What makes a function a symbol, and the law of the subordinator that it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..special import Array, invert_laplace

if TYPE_CHECKING:
    from .symbols import Symbol

_TAYLOR = 8  # derivatives whose signs are checked


def check_bernstein(symbol: Symbol) -> None:
    """Raise a ValueError unless `symbol` is 0 at 0, grows without bound, and its derivatives alternate in sign.

    The first 8 derivatives are looked at, at 121 points from 1e-12 to 1e12, which a function that is not Bernstein can
    pass only by little.
    """
    check_value(symbol)
    lam = torch.logspace(-12, 12, 121, dtype=torch.float64)
    circle = torch.exp(2j * math.pi * torch.arange(32, dtype=torch.float64) / 32)
    around = symbol(lam[:, None] * (1 + circle / 2))
    if not bool(torch.view_as_real(around.to(torch.complex128)).isfinite().all()):
        raise ValueError(f"{symbol} is not finite at complex numbers to the right of 0, so it is no Bernstein function")
    taylor = torch.fft.fft(around, dim=1).real[:, 1 : _TAYLOR + 1] / 32 * 2.0 ** torch.arange(1, _TAYLOR + 1)
    signed = taylor * (-1.0) ** torch.arange(_TAYLOR)
    bad = (signed < -1e-9 * symbol(lam)[:, None].abs()).nonzero()
    start, end = (float(symbol(torch.tensor(v, dtype=torch.float64))) for v in (1e-290, 1e290))
    middle = float(symbol(torch.tensor(1e145, dtype=torch.float64)))
    if len(bad):
        row, order = bad[0].tolist()
        raise ValueError(
            f"{symbol} is not a Bernstein function: its derivative of order {order + 1} has the wrong sign at "
            f"{lam[row]:.3g}, so its Green function has negative values; `pde` can still draw it"
        )
    if not abs(start) < 1e-12 * max(1.0, float(symbol(torch.ones((), dtype=torch.float64)))):
        raise ValueError(f"{symbol} is {start:g} at 0, where a symbol must be 0, or mass is lost; subtract it")
    if not end > middle * (1.000001):
        raise ValueError(
            f"{symbol} is bounded by {end:.4g}, so a share of the data is never moved and there is no density; add a "
            "symbol that grows, such as Power(1.0)"
        )


def check_value(symbol: object) -> None:
    """Raise a TypeError unless `symbol` is a symbol: a value, not its class."""
    if isinstance(symbol, type) or not hasattr(symbol, "steepness"):
        raise TypeError(f"a symbol is a frozen value such as Power(0.5) or Log(), got {symbol!r}")


def numpy_of(function: Callable[[Tensor], Tensor], lam: Array) -> Array:
    """`function` at an array."""
    return np.asarray(function(torch.from_numpy(np.ascontiguousarray(lam))).numpy())


def quantiles(symbol: Symbol, t: Tensor, u: Tensor) -> Tensor:
    """The quantiles `u` of `A_t`, `(B,)` each: by halves in the saddle point, which falls as the quantile rises."""
    time, below = t.cpu().numpy()[:, None], u.cpu().numpy()

    def law(log_lam: Array) -> tuple[Array, Array, Array]:
        return invert_laplace(lambda lam: -time * numpy_of(symbol, lam), np.exp(log_lam))

    high, low = (symbol.inverse(share / t).log().cpu().numpy() for share in (1e3, 1e-17))
    for _ in range(26):
        middle = (low + high) / 2
        above = law(middle)[1] > below  # the quantile is smaller, so its saddle point larger
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    y, reached, density = law((low + high) / 2)
    return torch.from_numpy(y * np.exp((below - reached) / (y * density))).to(u)
