"""Blurring diffusion: images dissolve as heat spreads, fine detail first, while noise rises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear import Linear, expand
from ..spectral import Filter, cosine, frequencies, grid_of
from .base import check_span
from .structured import GaussianProcess

_OFFSET = 0.004  # of the cosine schedule, in time
_LENGTH = 1.008


@dataclass(frozen=True)
class Blur(GaussianProcess):
    """Blurring diffusion: in cosine frequency, `x_t = sqrt(a_t) D_t x_0 + sqrt(1 - a_t) eps`, each mode by itself.

    `D_t = (1 - d_min) exp(-lam tau_t) + d_min` is the heat equation run for `tau_t`, where `2 tau_t` is the square of
    `sigma_blur_max sin^2(pi t/2)`, at the frequency `lam = pi^2 (k^2/H^2 + l^2/W^2)`; `d_min` keeps it from 0. The
    signal power `a_t` falls like a squared cosine. `sigma_blur_max = 0` is ordinary diffusion with the cosine schedule.
    States are in pixels, `(B, C, *grid)` with any grid of one axis or more; channels share the blur.

    Units:  `t` in [1e-5, 0.996], where the noise is 80 times the mean colour's signal; `sigma_blur_max` in pixels. The
            level is that of the mean colour, `sqrt((1 - a) / a)`, 0.006 at time 0, so paths end at `span[0]`.
    Raises: ValueError for constants out of range.
    Source: Hoogeboom and Salimans 2023, Sec. 4; Zhang et al. 2023, Sec. 2. [hoogeboom2023blurring] [zhang2023gddim]
    """

    sigma_blur_max: float = 10.0
    d_min: float = 1e-3
    span: tuple[float, float] = (1e-5, 0.996)

    def __post_init__(self) -> None:
        check_span(self.span)
        if self.span[1] >= _LENGTH - _OFFSET:
            raise ValueError(f"no signal is left at time {_LENGTH - _OFFSET:g}; end the span before, got {self.span}")
        if not 0 <= self.sigma_blur_max < math.inf:
            raise ValueError(f"sigma_blur_max is a width in pixels and must be >= 0, got {self.sigma_blur_max}")
        if not 0 < self.d_min < 1:
            raise ValueError(f"d_min must be between 0 and 1, for no frequency may vanish; got {self.d_min}")

    def power(self, t: Tensor) -> Tensor:
        """`a_t`, the signal power of the mean colour; that of the noise is `1 - a_t`."""
        return _phase(t).cos().square()

    def width(self, t: Tensor) -> Tensor:
        """`tau_t`, how long heat has spread, in squared pixels."""
        return (self.sigma_blur_max * (math.pi / 2 * t).sin().square()).square() / 2

    def kept(self, t: Tensor, lam: Tensor) -> Tensor:
        """`D_t`, the share of each frequency that the blur keeps: `(*grid)`, or `(B, *grid)` for times `(B,)`."""
        return (1 - self.d_min) * (-lam * _over(self.width(t), lam)).exp() + self.d_min

    def _share(self, t: Tensor, lam: Tensor) -> Tensor:
        """`m_t`, the factor of the signal."""
        return _over(_phase(t).cos(), lam) * self.kept(t, lam)

    def _rate(self, t: Tensor, lam: Tensor) -> Tensor:
        """`d log D / dt`."""
        half = math.pi / 2 * t
        spread = math.pi * self.sigma_blur_max**2 * half.sin() ** 3 * half.cos()
        blurred = (1 - self.d_min) * (-lam * _over(self.width(t), lam)).exp()
        return -lam * _over(spread, lam) * blurred / (blurred + self.d_min)

    def signal(self, t: Tensor) -> Linear:
        t = t.double()
        return _filter(lambda lam: self._share(t, lam), t)

    def transition(self, t: Tensor, s: Tensor) -> Linear:
        t, s = t.double(), s.double()
        fade = _phase(t).cos() / _phase(s).cos()
        return _filter(lambda lam: _over(fade, lam) * (self.kept(t, lam) / self.kept(s, lam)), t, s)

    def root(self, t: Tensor) -> Linear:
        t = t.double()
        return _filter(lambda lam: _over(_phase(t).sin(), lam) + torch.zeros_like(lam), t)

    def covariance(self, t: Tensor) -> Linear:
        t = t.double()
        return _filter(lambda lam: _over(_phase(t).sin().square(), lam) + torch.zeros_like(lam), t)

    def drift(self, t: Tensor) -> Linear:
        t = t.double()
        return _filter(lambda lam: _over(-_PACE * _phase(t).tan(), lam) + self._rate(t, lam), t)

    def diffusion(self, t: Tensor) -> Linear:
        """`-d log a/dt - 2 (1 - a) d log D/dt`: two terms, neither negative."""
        t = t.double()
        gain, noise = 2 * _PACE * _phase(t).tan(), _phase(t).sin().square()
        return _filter(lambda lam: _over(gain, lam) - 2 * _over(noise, lam) * self._rate(t, lam), t)

    def gain(self, t: Tensor, s: Tensor) -> Linear:
        """Its square is `(1 - d^2)(1 - a_t) + d^2 (1 - a_t/a_s)`, `d = D_t/D_s`: differences that do not cancel."""
        t, s = t.double(), s.double()
        step = _phase(t) - _phase(s)
        fall = (step * 0.5).sin() * ((_phase(t) + _phase(s)) / 2).sin() * 2 / _phase(s).cos()  # 1 - cos t / cos s
        faded, noise = fall * (2 - fall), _phase(t).sin().square()
        at = [(math.pi / 2 * u).sin().square() for u in (t, s)]
        rise = (math.pi / 2 * (t + s)).sin() * (math.pi / 2 * (t - s)).sin()  # of sin^2
        wider = self.sigma_blur_max**2 / 2 * rise * (at[0] + at[1])

        def deviation(lam: Tensor) -> Tensor:
            before = self.kept(s, lam)
            lost = -torch.expm1(-lam * _over(wider, lam)) * (before - self.d_min) / before  # 1 - D_t / D_s
            less = lost * (2 - lost)
            return (less * _over(noise, lam) + (1 - less) * _over(faded, lam)).sqrt()

        return _filter(deviation, t, s)

    def observe(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        t, lam = t.double(), frequencies(grid_of(x), x.device)
        sigma = _phase(t).sin()
        g = self._share(t, lam) / _over(sigma, lam)
        rows = g if t.ndim else g[None]
        return self.modes(x) / expand(sigma, x), rows[:, None].to(x)

    def modes(self, x0: Tensor) -> Tensor:
        return cosine(x0, len(grid_of(x0)))

    def from_modes(self, z: Tensor) -> Tensor:
        return cosine(z, len(grid_of(z)), inverse=True)

    def level(self, t: Tensor) -> Tensor:
        return _phase(t).tan()

    def time(self, level: Tensor) -> Tensor:
        return level.atan() / _PACE - _OFFSET


_PACE = math.pi / 2 / _LENGTH


def _phase(t: Tensor) -> Tensor:
    """The angle whose squared cosine is the signal power."""
    return _PACE * (t + _OFFSET)


def _over(a: Tensor, lam: Tensor) -> Tensor:
    """`a`, `()` or `(B,)`, shaped to broadcast over frequencies `(*grid)`."""
    return a.reshape(-1, *[1] * lam.ndim) if a.ndim else a


def _filter(factors: Callable[[Tensor], Tensor], *times: Tensor) -> Linear:
    return Filter((factors,), any(t.ndim > 0 for t in times))
