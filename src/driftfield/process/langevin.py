"""Critically damped Langevin diffusion: data get a velocity, and only the velocity is shaken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..linear import Block, Linear, expand, halves, matrix
from ..special import gauss_legendre
from .base import check_span
from .structured import GaussianProcess

_NODES = 16  # of a quadrature over an octave of time, where the integrand is analytic: more digits than float64 has
_OCTAVES = (-40, 8)  # of the longest, in units of the damping time: below, nothing has happened; above, all is at rest


@dataclass(frozen=True)
class CLD(GaussianProcess):
    """Critically damped Langevin diffusion: `dx = beta v / mass dt`, `dv = -beta (x + damping v / mass) dt + noise`.

    The state `(B, 2, *data)` is a position, where the datum is, and a velocity, drawn at time 0 with the variance
    `gamma mass`. That draw is part of the noise (hybrid score matching), so a denoiser estimates the datum alone. The
    damping is critical, `2 sqrt(mass)`; the law at rest is `N(0, 1)` for positions and `N(0, mass)` for velocities.
    `jitter` is added to both variances at time 0; without it the datum would be known there.

    `factor` is the square root of the covariance that carries the noise. "R" is the one along whose flow the noise of
    a datum stays fixed: exponential integrators take large steps with it. "L" is the Cholesky factor, whose noise
    is that of "R" turned by an angle that goes twice round; it is here to be compared with.

    Units:  `t` in [1e-3, 1]; velocities in units in which data have size about 1. The level is the standard deviation
            of the best unbiased estimate of the datum from the state, `(A^T Sigma^-1 A)^(-1/2)`, as `sigma / alpha` is
            for other processes; at time 0 it is `sqrt(jitter)`, so paths end at `span[0]`.
    Raises: ValueError for constants out of range and for an unknown factor.
    Source: Dockhorn et al. 2022, Sec. 3; Zhang et al. 2023, Sec. 3, for R. [dockhorn2022cld] [zhang2023gddim]
    """

    beta: float = 4.0
    mass: float = 0.25
    gamma: float = 0.04
    jitter: float = 1e-6
    factor: str = "R"
    span: tuple[float, float] = (1e-3, 1.0)

    def __post_init__(self) -> None:
        check_span(self.span)
        for name in ("beta", "mass", "jitter"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and > 0, got {getattr(self, name)}")
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma scales the initial variance of the velocity and must be >= 0, got {self.gamma}")
        if self.factor not in ("R", "L"):
            raise ValueError(f"factor is 'R' or 'L', the Cholesky factor, got {self.factor!r}")

    @property
    def flowing(self) -> bool:
        return self.factor == "R"

    @property
    def _kappa(self) -> float:
        return 1 / math.sqrt(self.mass)

    def lift(self, x0: Tensor) -> Tensor:
        return torch.stack((x0, torch.zeros_like(x0)), 1)

    def data(self, x: Tensor) -> Tensor:
        return halves(x)[0]

    def transition(self, t: Tensor, s: Tensor) -> Linear:
        k, b = self._kappa, self.beta * (t.double() - s.double())
        fade = (-k * b).exp()
        return Block(matrix(fade * (1 + k * b), fade * k**2 * b, -fade * b, fade * (1 - k * b)))

    def signal(self, t: Tensor) -> Linear:
        return self.transition(t, torch.zeros_like(t))

    def covariance(self, t: Tensor) -> Linear:
        xx, xv, vv = self._moments(t.double())
        return Block(matrix(xx, xv, xv, vv))

    def root(self, t: Tensor) -> Linear:
        t = t.double()
        lower = _cholesky(*self._moments(t))
        if self.factor == "L":
            return lower
        angle = self.angle(t)
        return lower @ Block(matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos()))

    def angle(self, t: Tensor) -> Tensor:
        """By what angle `R_t = L_t Q(angle)` is turned from the Cholesky factor: radians, like `t`, float64.

        `d angle/dt = -beta c / (mass a)` with `L = [[a, 0], [b, c]]`: a quadrature in place of a stiff matrix equation.
        """
        t = t.double().contiguous()
        edges, sums = _angles(self)
        edges, sums = edges.to(t.device), sums.to(t.device)
        i = torch.searchsorted(edges, t, right=True) - 1
        return sums[i] + _quadrature(self, edges[i], t)

    def _turning(self, t: Tensor) -> Tensor:
        xx, xv, vv = self._moments(t)
        return -self.beta / self.mass * (xx * vv - xv.square()).sqrt() / xx

    def drift(self, t: Tensor) -> Linear:
        k, zero = self._kappa, torch.zeros_like(t, dtype=torch.float64)
        return Block(matrix(zero, zero + self.beta * k**2, zero - self.beta, zero - 2 * self.beta * k))

    def diffusion(self, t: Tensor) -> Linear:
        zero = torch.zeros_like(t, dtype=torch.float64)
        return Block(matrix(zero, zero, zero, zero + 4 * self.beta / self._kappa))

    def gain(self, t: Tensor, s: Tensor) -> Linear:
        return _cholesky(*self._added(self.beta * (t.double() - s.double())))

    def _added(self, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(xx, xv, vv)` of the noise added while `beta dt` sums to `b`: sums of positive terms, nothing cancels."""
        k = self._kappa
        fade, second = (-2 * k * b).exp(), torch.special.gammainc(torch.full_like(b, 3.0), 2 * k * b) / (4 * k**3)
        damping = 4 / k  # twice the damping constant
        return (
            damping * k**4 * second,
            damping * k**2 * b.square() * fade / 2,
            damping * (b * fade + k**2 * second),
        )

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(xx, xv, vv)` of `Sigma_t`."""
        k, b = self._kappa, self.beta * t
        fade, position, velocity = (-2 * k * b).exp(), self.jitter, self.gamma * self.mass + self.jitter
        p, q = 1 + k * b, 1 - k * b
        xx, xv, vv = self._added(b)
        return (
            xx + fade * (position * p.square() + velocity * (k**2 * b).square()),
            xv + fade * b * (velocity * k**2 * q - position * p),
            vv + fade * (position * b.square() + velocity * q.square()),
        )

    def _weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`Sigma_t^-1 A_t` for a position 1: what an estimate of the datum weighs position and velocity by."""
        xx, xv, vv = self._moments(t)
        k, b = self._kappa, self.beta * t
        scale = (-k * b).exp() / (xx * vv - xv.square())
        return scale * (vv * (1 + k * b) + xv * b), -scale * (xv * (1 + k * b) + xx * b)

    def _precision(self, t: Tensor) -> Tensor:
        """`A^T Sigma^-1 A`."""
        k, b = self._kappa, self.beta * t
        of_x, of_v = self._weights(t)
        return (-k * b).exp() * ((1 + k * b) * of_x - b * of_v)

    def observe(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The one combination of position and velocity that carries the datum; the other holds noise alone."""
        t = t.double()
        g, (of_x, of_v) = self._precision(t).sqrt(), self._weights(t)
        place, speed = halves(x)
        w = expand(of_x / g, place) * place + expand(of_v / g, speed) * speed
        return w, expand(g, w).to(w)

    def level(self, t: Tensor) -> Tensor:
        return self._precision(t.double()).rsqrt().to(t.dtype)

    def time(self, level: Tensor) -> Tensor:
        """The first time at which the level is that high: 0 for those that it starts above."""
        log = level.double().log().contiguous()
        times, levels = (v.to(level.device) for v in _levels(self))
        i = torch.searchsorted(levels, log).clamp(1, len(levels) - 1)
        low, high = times[i - 1], times[i]
        t = low * (high / low) ** ((log - levels[i - 1]) / (levels[i] - levels[i - 1])).clamp(0, 1)
        for _ in range(5):  # Newton in log time, from within a thirty-second of an octave: two would do
            precision, (_, of_v) = self._precision(t), self._weights(t)
            slope = 2 * self.beta / self._kappa * of_v.square() / precision * t  # d log level / d log t
            t = (t * ((log + precision.log() / 2) / slope).clamp(-1, 1).exp()).clamp(low, high)
        return torch.where(log > levels[0], t, 0.0).to(level.dtype)


def _cholesky(xx: Tensor, xv: Tensor, vv: Tensor) -> Block:
    """The lower Cholesky factor; 0 for a covariance that is 0."""
    a = xx.sqrt()
    b = torch.where(a > 0, xv / a, 0.0)
    return Block(matrix(a, torch.zeros_like(a), b, (vv - b.square()).sqrt()))


def _quadrature(process: CLD, low: Tensor, high: Tensor) -> Tensor:
    """The angle turned from `low` to `high`, of one shape, by Gauss-Legendre."""
    nodes, weights = (v.to(low.device) for v in gauss_legendre(_NODES))
    half = (high - low)[..., None] / 2
    return (process._turning(low[..., None] + half * (1 + nodes)) * weights * half).sum(-1)


@lru_cache(maxsize=32)
def _angles(process: CLD) -> tuple[Tensor, Tensor]:
    """Octaves of time from 0, and the angle at the start of each."""
    unit = math.sqrt(process.mass) / process.beta
    edges = unit * torch.cat((torch.zeros(1, dtype=torch.float64), 2.0 ** torch.arange(*_OCTAVES).double()))
    turned = _quadrature(process, edges[:-1], edges[1:]).cumsum(0)
    return edges, torch.cat((turned.new_zeros(1), turned))


@lru_cache(maxsize=32)
def _levels(process: CLD) -> tuple[Tensor, Tensor]:
    """Times and the logarithms of their levels, rising, to begin a search from: levels up to e^256."""
    unit = math.sqrt(process.mass) / process.beta
    times = unit * 2.0 ** torch.arange(_OCTAVES[0], _OCTAVES[1] + 1 / 64, 1 / 32, dtype=torch.float64)
    logs = -process._precision(times).log() / 2
    start = max(0, int((logs.diff() <= 0).nonzero().max().item()) + 1) if bool((logs.diff() <= 0).any()) else 0
    return times[start:], logs[start:]
