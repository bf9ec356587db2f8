"""What makes a function a symbol, and the law of the subordinator that it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..rng import seeded
from ..special import Array, invert_laplace

if TYPE_CHECKING:
    from .symbols import Symbol

_TAYLOR = 8  # derivatives whose signs are checked
_ROWS = 64  # quantiles found at a time: with 128 points each, and integrals at each of those, more would be slower
_MISSED = 1e-3  # by Newton's last step in ln(y), and of a probability: where the law can be inverted it is 1e-6
_SHARP = 1e10  # `t Omega` at the largest saddle point: a law of the relative width w has saddle points up to 1 / w
_TOP = 1e140  # the largest saddle point: its square is still a number, and a variance of its inverse is none
_TRIED = 3  # draws at each of some levels, to see that the law can be inverted


@lru_cache(maxsize=64)
def check_bernstein(symbol: Symbol) -> None:
    """Raise a ValueError unless `symbol` is 0 at 0, grows without bound, its derivatives alternate, and it draws.

    The first 8 derivatives are looked at, at 121 points from 1e-12 to 1e12, which a function that is not Bernstein can
    pass only by little. Draws are tried at levels from 1e-4 to 1e4.
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
    times = 2 / symbol(torch.logspace(-8, 8, 9, dtype=torch.float64))
    try:
        symbol.draw(times.repeat_interleave(_TRIED), seeded(0))
    except FloatingPointError as error:
        raise ValueError(
            f"{error}; a symbol needs a `draw` of its own where its jumps have no smooth density, such as one size"
        ) from None


def check_value(symbol: object) -> None:
    """Raise a TypeError unless `symbol` is a symbol: a value, not its class."""
    if isinstance(symbol, type) or not hasattr(symbol, "steepness"):
        raise TypeError(f"a symbol is a frozen value such as Power(0.5) or Log(), got {symbol!r}")


def numpy_of(function: Callable[[Tensor], Tensor], lam: Array) -> Array:
    """`function` at an array."""
    return np.asarray(function(torch.from_numpy(np.ascontiguousarray(lam))).numpy())


def quantiles(symbol: Symbol, t: Tensor, u: Tensor) -> Tensor:
    """The quantiles `u` of `A_t`, `(B,)` each: by halves in the saddle point, which falls as the quantile rises.

    Raises: FloatingPointError where the law cannot be inverted on the path that serves smooth ones.
    """
    parts = zip(torch.split(t, _ROWS), torch.split(u, _ROWS), strict=True)
    return torch.cat([symbol.drift * time + _jumped(symbol, time, some) for time, some in parts])


def _jumped(symbol: Symbol, t: Tensor, u: Tensor) -> Tensor:
    """The quantiles of what is no drift."""
    time, below = t.cpu().numpy()[:, None], u.cpu().numpy()

    def law(log_lam: Array) -> tuple[Array, Array, Array]:
        return invert_laplace(lambda lam: -time * numpy_of(symbol.jumps, lam), np.exp(log_lam))

    most = float(symbol.jumps(torch.tensor(_TOP, dtype=torch.float64)))
    rates = np.minimum(np.array([[_SHARP], [1e-17]]) / time[:, 0], most)
    high, low = _inverse(symbol.jumps, rates)
    top = high
    with np.errstate(all="ignore"):  # judged below
        for _ in range(30):
            middle = (low + high) / 2
            above = law(middle)[1] > below  # the quantile is smaller, so its saddle point larger
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        y, reached, density = law((low + high) / 2)
        last = (below - reached) / (y * density)
    nothing = (rates[0] == most) & (high == top)  # less than is likely to jump at all, or a number can hold
    right = (np.abs(last) < _MISSED) & (np.abs(reached - 0.5) < 0.5 + _MISSED) | nothing
    if not right.all():
        raise FloatingPointError(f"the law of {symbol} could not be inverted at the time {t[int(right.argmin())]:.3g}")
    return torch.from_numpy(np.where(nothing, 0, y * np.exp(last))).to(u)


def _inverse(function: Callable[[Tensor], Tensor], value: Array) -> Array:
    """The logarithm of where an increasing function has a `value` > 0, to 1e-9."""
    low, high = np.full_like(value, -math.log(_TOP)), np.full_like(value, math.log(_TOP))
    for _ in range(40):
        middle = (low + high) / 2
        above = numpy_of(function, np.exp(middle)) > value
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.asarray((low + high) / 2)
