"""Helmholtz's equation as a process: Poisson flow with births, inside the ball where its density is positive."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy import optimize, special
from torch import Tensor

from ..linear import expand, flat
from ..rng import Rng, normal, uniform
from ..special import gauss_legendre
from .base import ByLevel, check_span

_PLAIN = 25  # half the dimension from which the logarithmic part of the series is below rounding
_DENSEST = 2.0  # times Poisson's density: the end of the ball in many dimensions
_HELD = 1 / 3  # of Poisson's noise at the top of the span, the least that the ball must hold
_CELLS, _NODES, _NEWTON = 28, 8, 6  # of the radial law: cells, nodes in each, steps of its inversion


def growth(n: int, u: Tensor) -> Tensor:
    """`G(u) = -pi / Gamma(mu) (u / 2)^mu Y_mu(u)`, `mu = (n + 1) / 2`, for `0 < u <= edge(n)`.

    Helmholtz's density is `G(k_0 rho)` times Poisson's; `G(0) = 1`, and `G` rises to the first zero of `Y_(mu - 1)`.
    By the series about 0; to about 1e-14 in float64. Source: [dlmf] 10.8.1 and 10.8.2.
    """
    return _series((n + 1) / 2, u.square() / 4)


def growth_slope(n: int, u: Tensor) -> Tensor:
    """`u G'(u)` for the same. Source: [dlmf] 10.6.2."""
    x = u.square() / 4
    return -2 * x * _logarithmic(0, x) if n == 1 else 4 * x / (n - 1) * _series((n - 1) / 2, x)


def _series(mu: float, x: Tensor) -> Tensor:
    """`G` of the order `mu` at `u^2 / 4 = x`: a power series, at a whole order with a part that has a logarithm."""
    whole = mu == round(mu)
    total = torch.ones_like(x)
    for k in range(min(_terms(mu), round(mu) - 1) if whole else _terms(mu), 0, -1):
        total = 1 + x / (k * (mu - k)) * total
    return total - x**mu / math.gamma(mu) * _logarithmic(round(mu), x) if whole and mu < _PLAIN else total


def _logarithmic(m: int, x: Tensor) -> Tensor:
    """`sum_k (ln x - psi(k + 1) - psi(m + k + 1)) (-x)^k / (k! (m + k)!)`."""
    terms = _terms(m + 1)
    psi = [float(special.digamma(k + 1) + special.digamma(m + k + 1)) for k in range(terms)]
    log = x.log()
    total = log - psi[-1]
    for k in range(terms - 1, 0, -1):
        total = log - psi[k - 1] - x / (k * (m + k)) * total
    return total / math.gamma(m + 1)


@lru_cache(maxsize=128)
def _terms(mu: float) -> int:
    """How many terms of the series reach rounding at the largest argument, `u^2 / 4 < 0.8 mu + 1`."""
    term, k = 1.0, 0
    while term > 1e-17 or k < mu < 20:
        k += 1
        term *= (0.8 * mu + 1) / (k * max(0.5, abs(mu - k)))
    return k


@lru_cache(maxsize=64)
def edge(n: int) -> float:
    """`k_0 rho` at the end of the ball in `n` dimensions: the first zero of `Y_((n - 1) / 2)`, where births end.

    Or, from 4 dimensions on, where the density is twice Poisson's, which comes first: near the zero it grows like
    `exp(0.15 n)`, and all but a trace of the mass would be births there.
    """

    def at(u: float) -> Tensor:
        return torch.tensor(u, dtype=torch.float64)

    if n < 4:
        return float(optimize.brentq(lambda u: float(growth_slope(n, at(u))), 0.5, 2.5, xtol=1e-15))
    guess = math.sqrt(2 * (n - 1) * math.log(_DENSEST))  # `ln G` is about `u^2 / 4 (mu - 1)`
    return float(optimize.brentq(lambda u: float(growth(n, at(u))) - _DENSEST, guess / 2, 1.1 * guess, xtol=1e-13))


@dataclass(frozen=True)
class Helmholtz(ByLevel):
    """`(d^2/dt^2 + Laplacian + k_0^2) phi = 0` with `p = -dphi/dt`: Poisson flow to which particles are born.

    Its kernel is `p = -pi t (k_0 / 2 pi rho)^mu Y_mu(k_0 rho)`, `rho^2 = t^2 + |x - x_0|^2`, `mu = (N + 1) / 2`. It
    is a density only near the data, so all that is drawn stays within `reach` of its datum: the noise is bounded.
    Within it the flow is `dx/dt = (x - E[x_0 | x]) / t`, as for PFGM, with other weights. Particles are born at `rate`,
    going up; `df.branching` follows that, and without it little is lost. What does cost is the bound: samples shrink
    towards the mean, by about a tenth at `wavenumber T = 0.5` in the plane and 2 % at 0.1, so keep it small.

    `log_peak`, and with it `Empirical.log_prob`, is that of the equation's own `p`, whose mass is not 1 (`log_mass`);
    `prior_log_prob` is normalised. Times above the span, which a law of training times may draw, have Poisson's kernel
    beyond the ball.
    Units:  `wavenumber` is `k_0`, radians per unit of the data; `k_0 = 0` would be PFGM.
    Raises: ValueError for a wavenumber that is not a finite number above 0; and, when the number of dimensions is
            known, for one whose ball holds less than a third of Poisson's noise at the top of the span.
    Source: Liu et al. 2023, Sec. 4; the density, its range and the rate of births as derived. [liu2023genphys]
    """

    wavenumber: float = 0.01
    span: tuple[float, float] = (1e-3, 5.0)

    def __post_init__(self) -> None:
        check_span(self.span)
        object.__setattr__(self, "wavenumber", float(self.wavenumber))
        if not 0 < self.wavenumber < math.inf:
            raise ValueError(f"the wavenumber of Helmholtz must be finite and > 0, got {self.wavenumber}")

    @property
    def heavy(self) -> bool:
        """Its tails are those of Poisson's equation up to the edge of its ball, which is far away."""
        return True

    def reach(self, n: int) -> float:
        """The largest distance between a particle and its datum, in `n` dimensions: the ball's radius at the top.

        Raises: ValueError, naming the largest wavenumber that works, where the ball is too small for the span.
        """
        top = self.span[1]
        least = top / math.sqrt(1 - special.betaincinv(n / 2, 0.5, _HELD))  # a third of Poisson's noise is nearer
        radius = edge(n) / self.wavenumber
        if radius < least:
            raise ValueError(
                f"in {n} dimension{'s' if n > 1 else ''} Helmholtz(wavenumber={self.wavenumber:g}) has a density "
                f"within {radius:.3g} of a datum, too small a ball for noise at t = {top:g}; the largest wavenumber "
                f"for this span is {edge(n) / least:.3g}, or lower the top of the span"
            )
        return math.sqrt(radius**2 - top**2)

    def _growth(self, rho: Tensor, n: int) -> Tensor:
        """`growth` within the ball, and held beyond it."""
        return growth(n, (self.wavenumber * rho).clamp(max=edge(n)))

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        """Minus infinity beyond `reach`."""
        drop = self._smooth(torch.zeros_like(d2), d2, t, n)
        return drop.where(d2 <= self.reach(n) ** 2, -math.inf)

    def _smooth(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        base = d2 + t.square()
        near, far = (self._growth(r2.sqrt(), n) for r2 in (base, base + rise))
        return (far / near).log() - (n + 1) / 2 * (rise / base).log1p()

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        """Where every datum is beyond its `reach`, and nothing is ever drawn, the weights go on as Poisson's."""
        limit = self.reach(n) ** 2
        return self._smooth(d2, rise, t, n).where((d2 + rise <= limit) | (d2 > limit), -math.inf)

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        mu = (n + 1) / 2
        poisson = math.lgamma(mu) - mu * math.log(math.pi) - n * t.log()
        return poisson + self._growth(t, n).log()

    def rate(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        """`k_0^2 phi / p = (k_0 rho / t) Y_(mu - 1) / Y_mu`: births, as time grows; none beyond the ball."""
        u, end = self.wavenumber * (d2 + t.square()).sqrt(), edge(n)
        inside = u.clamp(max=end)
        return (growth_slope(n, inside) / (growth(n, inside) * t)).where(u < end, 0)

    def log_mass(self, t: Tensor, n: int) -> Tensor:
        """The logarithm of the mass of the equation's own `p` within `reach`, in `n` dimensions, shaped like `t`."""
        cells, _, _ = self._cells(t.double().reshape(-1, 1), n)
        area = math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)  # of the unit sphere
        mu = (n + 1) / 2
        poisson = math.lgamma(mu) - mu * math.log(math.pi)
        return (cells.sum(1).log() + area + poisson).reshape(t.shape).to(t)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        t = torch.tensor(self.span[1], dtype=torch.float64)
        return super().prior_log_prob(x) - self.log_mass(t, flat(x).shape[1])

    def perturb(self, x0: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """A direction, evenly, and a distance by inverting its distribution function."""
        g, rows = flat(normal(x0, rng)), torch.ones(len(x0), dtype=torch.float64, device=x0.device)
        distance = self._distance(t.double() * rows, uniform(rows, rng), g.shape[1])
        length = g.double().norm(dim=1)
        return x0 + (expand(distance / length, g) * g).reshape(x0.shape)

    def noise(self, like: Tensor, rng: Rng) -> Tensor:
        """Draw the noise of level 1, shaped like the batch `like`."""
        return self.perturb(torch.zeros_like(like), torch.ones((), dtype=torch.float64), rng)

    def _law(self, t: Tensor, n: int) -> Callable[[Tensor], Tensor]:
        """The density of `b`, where the distance is `t sinh(b)`, up to a factor: Poisson's, times the growth."""

        def density(b: Tensor) -> Tensor:
            at = t.reshape(-1, *[1] * (b.ndim - 1))
            g = self._growth(at * b.cosh(), n) / b.cosh()
            return g if n == 1 else g * b.tanh() ** (n - 1)

        return density

    def _cells(self, t: Tensor, n: int) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """For times `(B, 1)`: the mass in each of the cells of `b`, `(B, K)`, their edges `(B, K + 1)`, the density."""
        low = 0.0 if n == 1 else math.atanh(1e-18 ** (1 / (n - 1)))  # what lies below is less than rounding
        high = torch.asinh(self.reach(n) / t)
        low_ = torch.minimum(torch.full_like(high, low), high / 2)
        share = torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64, device=t.device)
        edges = low_ + (high - low_) * share
        density = self._law(t, n)
        nodes, weights = (v.to(t.device) for v in gauss_legendre(_NODES))
        half = (edges[:, 1:] - edges[:, :-1])[..., None] / 2
        inner = edges[:, :-1, None] + half * (1 + nodes)
        return (density(inner) * weights * half).sum(2), edges, density

    def _distance(self, t: Tensor, u: Tensor, n: int) -> Tensor:
        """The distance that a draw does not exceed with probability `u`, `(B,)`, at times `(B,)`, float64."""
        cells, edges, density = self._cells(t[:, None], n)
        above = cells.cumsum(1)
        goal = u[:, None] * above[:, -1:]
        i = torch.searchsorted(above, goal).clamp(max=_CELLS - 1)
        rest = goal - (above - cells).gather(1, i)  # of the mass, within the cell
        begin, end, whole = edges.gather(1, i), edges.gather(1, i + 1), cells.gather(1, i)
        nodes, weights = (v.to(t.device) for v in gauss_legendre(_NODES))
        low, high = begin, end
        b = begin + (end - begin) * (rest / whole).clamp(0, 1)
        for _ in range(_NEWTON):  # Newton's method, kept within what is known to hold the solution
            half = (b - begin)[..., None] / 2
            over = (density(begin[..., None] + half * (1 + nodes)) * weights * half).sum(2) - rest
            low, high = torch.where(over < 0, b, low), torch.where(over < 0, high, b)
            ahead = b - over / density(b)
            b = torch.where((ahead >= low) & (ahead <= high), ahead, (low + high) / 2)
        return t * b[:, 0].sinh()
