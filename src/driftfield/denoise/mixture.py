"""The exact denoiser of a mixture of Gaussians, under Gaussian noise and under Student's t.

Student's t with `D` degrees of freedom is Gaussian noise of random variance `sigma^2 e^w`, `e^-w = chi2_D / D`. Given
`w` everything is Gaussian, so the density at `x` is one integral over `w` for each component, of an integrand
`exp(G)` that is analytic and falls at least exponentially at both ends. The trapezoidal rule converges geometrically
on such integrals, once its range is where the integrand is: that depends on `x`, because a distant `x` is explained
by a variance far in the tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..linear import flat
from ..process.base import Isotropic
from ..process.structured import GaussianProcess
from ..rng import Rng, normal, uniform
from .observed import ObservedMixture

_DEPTH = 50.0  # nats below its maximum where an integrand is cut
_CELLS = 64  # of the search for the range
_NODES = 128  # of the first attempt at an integral
_MOST = 1 << 14  # of the last one
_NUMBERS = 1 << 22  # held at a time: 32 MiB in float64


class _Modes(NamedTuple):
    """Rows against components in eigen-coordinates; `S` is `spread + noise e^w`, the variance of each coordinate."""

    square: Tensor  # (B, K, N), of the coordinates of x less the component's mean
    spread: Tensor  # (B, K, N), alpha^2 times the eigenvalues
    noise: Tensor  # (B, 1, 1), sigma^2


@dataclass(frozen=True, eq=False)
class Mixture:
    """The mean of `x_0` given `x_t = x`, when `x_0` is drawn from a mixture of `K` Gaussians in `N` dimensions.

    Shapes: `weights` is `(K,)`, `means` `(K, N)`, `covariances` `(K, N, N)`; `x` is `(B, N)`, `t` is `()` or `(B,)`.
            Under CLD and Blur `means` are `(K, *data)`, with `N` numbers in a datum, and `x` is a state.
    Exact:  in float64 to about 1e-12, at any degrees of freedom of the noise and for any `x`; all arithmetic is in
            float64, whatever the type of `x`. Under Student's t an accelerator's host waits several times a call, to
            see whether the integrals have converged; a singular covariance costs one wait under any noise.
    Raises: TypeError for noise that is neither Gaussian nor Student's t; ValueError for weights that are not positive
            with sum 1, and for covariances that are not symmetric and positive semi-definite.
    Source: Student's t as a Gaussian scale mixture, Andrews and Mallows 1974; the trapezoidal rule, Trefethen and
            Weideman 2014. [andrews1974scale] [trefethen2014trapezoidal]
    """

    process: Isotropic | GaussianProcess
    weights: Tensor
    means: Tensor
    covariances: Tensor
    _freedom: float = field(init=False, repr=False)
    _log_weights: Tensor = field(init=False, repr=False)  # (K,)
    _values: Tensor = field(init=False, repr=False)  # (K, N), eigenvalues
    _axes: Tensor = field(init=False, repr=False)  # (K, N, N), eigenvectors in columns
    _singular: bool = field(init=False, repr=False)
    _observed: ObservedMixture | None = field(default=None, init=False, repr=False)  # for what is not isotropic

    def __post_init__(self) -> None:
        isotropic = hasattr(self.process, "freedom")
        if not isotropic and not hasattr(self.process, "observe"):
            raise TypeError(f"Mixture needs an isotropic or Gaussian process, got {type(self.process).__name__}")
        w, c = self.weights, self.covariances
        mu = self.means if isotropic or self.means.ndim < 2 else flat(self.means)
        if w.ndim != 1 or mu.ndim != 2 or len(mu) != len(w) or c.shape != (*mu.shape, mu.shape[1]):
            shapes = ", ".join(str(tuple(v.shape)) for v in (w, mu, c))
            raise ValueError(f"weights, means and covariances must be (K,), (K, N) and (K, N, N), got {shapes}")
        slack = 100 * mu.shape[1] * torch.finfo(c.dtype).eps
        if not bool((w > 0).all()) or abs(w.double().sum().item() - 1) > 100 * len(w) * torch.finfo(w.dtype).eps:
            raise ValueError(f"weights must be positive with sum 1, got {w.tolist()}; divide them by their sum")
        c = c.double()
        largest = c.abs().amax((1, 2))
        if bool(((c - c.mT).abs().amax((1, 2)) > slack * largest).any()):
            raise ValueError("covariances must be symmetric; take (C + C.mT) / 2 if they are so up to rounding")
        values, axes = torch.linalg.eigh((c + c.mT) / 2)
        if not bool((values[:, 0] >= -slack * largest).all()):
            raise ValueError(f"covariances must be positive semi-definite, got eigenvalues down to {values.min():.3g}")
        null = values <= slack * largest[:, None]
        log_weights = (w.double() / w.double().sum()).log()
        kept = values.masked_fill(null, 0)  # an eigenvalue that rounding cannot tell from 0
        for name, value in (("_log_weights", log_weights), ("_values", kept), ("_axes", axes)):
            object.__setattr__(self, name, value)
        if not isotropic:
            process = cast(GaussianProcess, self.process)
            object.__setattr__(self, "_observed", ObservedMixture(process, log_weights, self.means.double(), c))
        object.__setattr__(self, "_freedom", self._law.freedom if isotropic else math.inf)
        object.__setattr__(self, "_singular", bool(null.any()))

    @property
    def _law(self) -> Isotropic:
        return cast(Isotropic, self.process)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """`E[x_0 | x_t = x]`, shaped and typed like `x`.

        Raises: ValueError where neither noise nor the covariance spreads the data.
        """
        if cond is not None:
            raise ValueError("a Mixture has no classes, so it takes no condition; build one Mixture per class")
        if self._observed is not None:
            return self._observed.mean(self._state(x), t).to(x.dtype)
        a, modes, turned = self._split(x, t)
        log_mass, inverse = self._integrate(modes)
        gain = a * self._values * inverse
        parts = self.means + torch.einsum("kij,bkj->bki", self._axes, gain * turned)
        return (self._share(log_mass)[..., None] * parts).sum(1).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """The log-density of `x_t` at `x`, `(B,)`, nats: that of the data at a time without noise.

        Raises: ValueError where neither noise nor the covariance spreads the data.
        """
        if self._observed is not None:
            return self._observed.log_prob(self._state(x), t).to(x.dtype)
        _, modes, _ = self._split(x, t)
        return (self._log_weights + self._integrate(modes)[0]).logsumexp(1).to(x.dtype)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The gradient of `log_prob` in `x`, shaped and typed like `x`."""
        if self._observed is not None:
            return self._observed.score(self._state(x), t).to(x.dtype)
        _, modes, turned = self._split(x, t)
        log_mass, inverse = self._integrate(modes)
        parts = -torch.einsum("kij,bkj->bki", self._axes, inverse * turned)
        return (self._share(log_mass)[..., None] * parts).sum(1).to(x.dtype)

    def sample(self, count: int, rng: Rng) -> Tensor:
        """Draw `count` data, `(count, *data)`, with the type and device of `means`."""
        like = self.means.new_empty(count, dtype=torch.float64)
        levels = self._log_weights.exp().cumsum(0)[:-1]
        which = torch.searchsorted(levels, uniform(like, rng), right=True)
        g = normal(like.new_empty(count, self._values.shape[1]), rng) * self._values[which].sqrt()
        off = torch.einsum("bij,bj->bi", self._axes[which], g).to(self.means.dtype)
        return self.means[which] + off.reshape(count, *self.means.shape[1:])

    def _share(self, log_mass: Tensor) -> Tensor:
        """The probability of each component, `(B, K)`."""
        return (self._log_weights + log_mass).softmax(1)

    def _state(self, x: Tensor) -> Tensor:
        state = self.process.lift(self.means[:1]).shape[1:]
        if x.shape[1:] != state:
            raise ValueError(f"x must be (B, {', '.join(map(str, state))}), got {tuple(x.shape)}")
        return x

    def _split(self, x: Tensor, t: Tensor) -> tuple[Tensor, _Modes, Tensor]:
        """Alpha, `()` or `(B, 1, 1)`, and `x` less each component's mean in its eigen-coordinates, `(B, K, N)`."""
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ValueError(f"x must be (B, {self.means.shape[1]}), got {tuple(x.shape)}")
        time = t.double().reshape(-1, 1, 1) if t.ndim else t.double()
        a, s = self._law.alpha(time), self._law.sigma(time)
        turned = torch.einsum("bki,kij->bkj", x.double()[:, None] - a * self.means, self._axes)
        spread = (a.square() * self._values).expand(turned.shape)
        noise = turned.new_zeros(len(x), 1, 1) + s.square()  # on the device of `x` also where the time is not
        if self._singular and bool(((spread + noise) <= 0).any()):
            raise ValueError("without noise a singular covariance has no density; choose a time with sigma_t > 0")
        return a, _Modes(turned.square(), spread, noise), turned

    def _integrate(self, modes: _Modes) -> tuple[Tensor, Tensor]:
        """The log-density of each component at each row, `(B, K)`, and the mean of `1 / S` over `w`, `(B, K, N)`."""
        k, n = self.means.shape
        constant = -n / 2 * math.log(2 * math.pi)
        if self._freedom == math.inf:
            total = modes.spread + modes.noise
            return constant - ((modes.square / total) + total.log()).sum(2) / 2, 1 / total
        size = max(1, _NUMBERS // (k * n * _NODES))
        parts = [
            _quadrature(self._freedom, _Modes(*(v[start : start + size] for v in modes)))
            for start in range(0, max(1, len(modes.square)), size)
        ]
        log_mass, inverse = (torch.cat(column) for column in zip(*parts, strict=True))
        return constant + _log_constant(self._freedom) + log_mass, inverse


def _log_constant(freedom: float) -> float:
    """What normalises `exp(-D / 2 (w + e^-w - 1))`: `z ln z - z - ln Gamma(z)` at `z = D / 2`. [dlmf] 5.11.1"""
    z = freedom / 2
    if z < 20:
        return z * math.log(z) - z - math.lgamma(z)
    return math.log(z / (2 * math.pi)) / 2 - (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / z**2) / z**2) / z**2) / z


def _excess(w: Tensor) -> Tensor:
    """`w + e^-w - 1`, by its series near 0, where it is `w^2 / 2`."""
    near = w.clamp(-0.5, 0.5)
    series = torch.zeros_like(w)
    for k in range(16, 1, -1):
        series = 1 / math.factorial(k) - near * series
    return torch.where(w.abs() < 0.5, near.square() * series, w + torch.expm1(-w))


def _exponent(freedom: float, modes: _Modes, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`G` and its slope at the nodes `w`, `(B, K, J)`, and `1 / S`, `(B, K, J, N)`."""
    noise = modes.noise[..., None] * w.exp()[..., None]
    inverse = 1 / (modes.spread[:, :, None] + noise)
    pull = modes.square[:, :, None] * inverse
    value = -freedom / 2 * _excess(w) - (pull - inverse.log()).sum(3) / 2
    slope = -freedom / 2 * -torch.expm1(-w) + (noise * inverse * (pull - 1)).sum(3) / 2
    return value, slope, inverse


@torch.no_grad()
def _range(freedom: float, modes: _Modes) -> tuple[Tensor, Tensor]:
    """Where the integrand is, `(B, K)` each: outside it is `_DEPTH` nats below its maximum.

    Every stationary point of `G` lies in `[-ln(1 + N/D), ln(1 + |x|^2 / (D sigma^2))]`, and the slope beyond these
    ends bounds how far the integrand reaches. From there the range is narrowed by looking at 64 cells at a time; a
    cell stays if it is high enough, or if the signs of the slope at its ends enclose a maximum.
    """
    n = modes.square.shape[2]
    noise = modes.noise[..., 0]
    ratio = modes.square.sum(2) / (freedom * noise)
    top = torch.where(noise > 0, ratio, 0).log1p()
    reach = 2 * _DEPTH / freedom
    beyond = torch.full_like(top, (reach + math.sqrt(reach**2 + 8 * reach)) / 2)
    # Where the noise exceeds the data's spread, every coordinate adds a slope of 1/4 at least.
    turn = torch.where(noise > 0, modes.spread.amax(2) / noise, 0).log()
    high = torch.minimum(top + beyond, torch.maximum(top, turn) + 4 * _DEPTH / n)
    high = torch.where(noise > 0, high, beyond)
    reach = 2 * _DEPTH / (freedom + n)
    low = torch.full_like(high, -math.log1p(n / freedom) - min(math.sqrt(2 * reach), 1 + math.log1p(2 * reach)))
    steps = torch.linspace(0, 1, _CELLS + 1, dtype=low.dtype, device=low.device)
    for _ in range(16):
        w = low[..., None] + (high - low)[..., None] * steps
        value, slope, _ = _exponent(freedom, modes, w)
        tall = value > value.amax(2, keepdim=True) - _DEPTH
        keep = tall[..., :-1] | tall[..., 1:] | ((slope[..., :-1] > 0) & (slope[..., 1:] < 0))
        first, last = keep.double().argmax(2, keepdim=True), _CELLS - keep.flip(2).double().argmax(2, keepdim=True)
        narrow = last - first < _CELLS // 2
        low, high = w.gather(2, first)[..., 0], w.gather(2, last)[..., 0]
        if not bool(narrow.any()):
            break
    return low, high


def _quadrature(freedom: float, modes: _Modes) -> tuple[Tensor, Tensor]:
    """The log of the integral of `exp(G)`, `(B, K)`, and the mean of `1 / S` under it, `(B, K, N)`."""
    low, high = _range(freedom, modes)
    nodes = _NODES
    while nodes <= _MOST:
        w = low[..., None] + (high - low)[..., None] * torch.linspace(
            0, 1, nodes + 1, dtype=low.dtype, device=low.device
        )
        value, _, inverse = _exponent(freedom, modes, w)
        peak = value.detach().amax(2, keepdim=True)
        mass = (value - peak).exp()
        total = mass.sum(2)
        error = (2 * mass[..., ::2].sum(2) / total - 1).detach().abs().max()
        if bool(error < 1e-7):  # of every other node; with all of them it is about the square of that
            mean = torch.einsum("bkj,bkjn->bkn", mass, inverse) / total[..., None]
            return total.log() + peak[..., 0] + ((high - low) / nodes).log(), mean
        nodes *= 2
    raise ArithmeticError(f"the integral over the noise's variance needs more than {_MOST} nodes at D={freedom}")
