"""Special functions in float64: ratios of gamma functions, modified Bessel functions, quadrature, Laplace inversion.

Everything is in logarithms, so that a dimension of 10^12 neither overflows nor cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

Array = NDArray[Any]

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_VAST = 1e8  # arguments from here on use the expansion for large ones: for orders below 30 the error is 1e-16
_UNIFORM = 30.0  # orders from here on use the expansion that is uniform in the argument: for x > 0 the error is 1e-14


def _stirling(x: float) -> float:
    """`ln Gamma(x) - (x - 1/2) ln x + x - ln(2 pi) / 2`, for `x >= 20`."""
    return sum(c / x ** (2 * k + 1) for k, c in enumerate(_STIRLING))


def log_gamma_ratio(a: float, delta: float) -> float:
    """`ln Gamma(a + delta) - ln Gamma(a)` for `a > 0`, `delta >= 0`, without the cancellation of a difference.

    Exact:  to about 1e-14 relative for `a` up to 1e12 and beyond (at a = 5e8 the plain difference is wrong by 1e-6).
    Raises: ValueError outside that domain.
    Source: Stirling's series, subtracted term by term. [dlmf] 5.11.1
    """
    if not (0 < a < math.inf and 0 <= delta < math.inf):
        raise ValueError(f"log_gamma_ratio needs a finite a > 0 and delta >= 0, got a={a}, delta={delta}")
    if a < 20:
        return math.lgamma(a + delta) - math.lgamma(a)
    b = a + delta
    return (a - 0.5) * math.log1p(delta / a) + delta * (math.log(b) - 1) + _stirling(b) - _stirling(a)


@lru_cache(maxsize=32)
def gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """The `n` nodes on (-1, 1) and weights of Gauss-Legendre quadrature, float64: exact to degree `2 n - 1`.

    The two tensors are shared between calls: do not write to them. Raises: ValueError for `n < 1`.
    """
    if n < 1:
        raise ValueError(f"a quadrature needs at least one node, got {n}")
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


@lru_cache(maxsize=1)
def _debye_terms() -> tuple[tuple[float, ...], ...]:
    """Coefficients in `p`, from low to high, of the polynomials `(-1)^k u_k(p)`, `k = 1, ..., 9`. [dlmf] 10.41.9"""
    p = Polynomial([0.0, 1.0])
    u, out = Polynomial([1.0]), []
    for k in range(1, 10):
        u = p**2 * (1 - p**2) * u.deriv() / 2 + ((1 - 5 * p**2) * u).integ() / 8
        out.append(tuple(float(c) for c in (-1) ** k * u.coef))
    return tuple(out)


def _debye(nu: float, p: Any) -> Any:
    """The sum over `k >= 1` of `(-1)^k u_k(p) / nu^k`; `p` is an array (complex allowed) or a tensor."""
    total = 0 * p
    for terms in reversed(_debye_terms()):
        poly = 0 * p
        for c in reversed(terms):
            poly = poly * p + c
        total = (total + poly) / nu
    return total


def log_bessel_k(nu: float, x: Tensor) -> Tensor:
    """`ln K_nu(x)`, the modified Bessel function of the second kind, for real `nu >= 0` and `x > 0`.

    Computed in float64 and returned like `x`; exact to about 1e-13 relative to `max(1, |ln K|)`, and finite wherever
    `x` is positive. Orders below 30 are evaluated on the CPU and carry no gradient; from 30 on it is plain torch.
    Raises: ValueError for an order that is negative or not finite.
    Source: the expansion uniform in the argument for large orders, [dlmf] 10.41.4; the small-argument form, 10.30.2;
            the large-argument one, 10.40.2.
    """
    if not 0 <= nu < math.inf:
        raise ValueError(f"the order of a Bessel function must be finite and >= 0 here, got {nu}")
    if nu < _UNIFORM:
        z = x.double().cpu().numpy()
        with np.errstate(over="ignore", divide="ignore"):
            log = np.log(special.kve(nu, z)) - z
            tiny = special.gammaln(nu) + nu * np.log(2 / z) - math.log(2)  # exact once K_nu overflows, where nu > 1
        far = np.maximum(z, _VAST)
        term = (4 * nu**2 - 1) / (8 * far)
        vast = np.log(np.pi / (2 * far)) / 2 - z + np.log1p(term * (1 + (term - 1 / far) / 2))
        log = np.where(z > _VAST, vast, log)
        return torch.from_numpy(np.asarray(np.where(np.isposinf(log), tiny, log))).to(x)
    r = x.double() / nu
    w = torch.hypot(torch.ones_like(r), r)
    log = -nu * (w + (r / (1 + w)).log()) - w.log() / 2 + torch.log1p(_debye(nu, 1 / w))
    return (log + math.log(math.pi / (2 * nu)) / 2).to(x)


def _log_power_k(nu: float, z: Array) -> Array:
    """`ln(z^nu K_nu(z)) + z`, analytic, for `nu > 0` and `z = 0` or `Re z > 0`; the limit at 0 where `K_nu` overflows.

    The logarithm is known up to whole turns; the leading term of the uniform expansion, within pi of it, counts them.
    """
    k = special.kve(nu, z)
    inside = (z != 0) & np.isfinite(k)
    z = np.where(inside, z, 1)
    log = nu * np.log(z) + np.log(np.where(inside, k, 1))
    w = np.sqrt(1 + (z / nu) ** 2)
    phase = (z - nu * (w - np.log(1 + w)) - np.log(w) / 2).imag
    log = log + 2j * np.pi * np.round((phase - log.imag) / (2 * np.pi))
    return np.asarray(np.where(inside, log, special.gammaln(nu) + (nu - 1) * math.log(2)))


def _log1p(z: Array) -> Array:
    """`ln(1 + z)` for complex `z`, accurate for small `z`, where NumPy's is not."""
    x, y = z.real, z.imag
    return np.asarray(np.log1p(x * (2 + x) + y * y) / 2 + 1j * np.arctan2(y, 1 + x))


def log_matern_ratio(nu: float, z: Array, q: float) -> Array:
    """`ln M(z) - ln M(q z)` with `M(z) = 2^(1 - nu) / Gamma(nu) z^nu K_nu(z)`, `M(0) = 1`, a Matern function.

    Domain: `nu > 0`, `0 <= q < 1`, complex `z` with `Re z > 0`; the logarithm is the analytic one, real on the axis.
    Exact:  to about 1e-13, also as `q` goes to 1 and at an order of 10^12: the leading terms are subtracted before
            they are formed. For orders just above 30 it is 1e-11 at 1 radian from the turning points `+- i nu` and
            1e-6 at them, where inversion integrals are long negligible.
    Source: the expansion uniform in the argument. [dlmf] 10.41.4
    """
    if nu < _UNIFORM:
        return np.asarray(_log_power_k(nu, z) - _log_power_k(nu, q * z) - (1 - q) * z)
    a, b = np.sqrt(1 + (z / nu) ** 2), np.sqrt(1 + (q * z / nu) ** 2)
    rise = (1 - q) * (1 + q) * (z / nu) ** 2 / (a + b)  # a - b
    leading = _log1p(rise / (1 + b)) - rise
    series = _log1p(_debye(nu, 1 / a)) - _log1p(_debye(nu, 1 / b))
    return np.asarray(nu * leading - _log1p(rise / b) / 2 + series)


class Contour(NamedTuple):
    """Points `y`, `(M,)`, and for each a path through the plane of `lam` on which Bromwich's integral converges fast.

    The function with the Laplace transform `g(lam) exp(log_transform(lam))` is, at `y`,
    `exp(log_scale) (weights g(points)).real.sum(1)`. `spacing` is `-dy / dlog(lam)`, which turns a density into a mass.
    """

    y: Array  # (M,)
    points: Array  # (M, K) complex
    weights: Array  # (M, K) complex
    log_scale: Array  # (M,)
    spacing: Array  # (M,)


def laplace_contour(log_transform: Callable[[Array], Array], lam: Array, nodes: int = 128) -> Contour:
    """A path of `nodes` points for each `lam`, `(M,)`; see `invert_laplace`.

    Source: Bromwich's integral by steepest descent; Trefethen and Weideman 2014, Sec. 15. [trefethen2014trapezoidal]
    """
    circle = np.exp(2j * np.pi * np.arange(16) / 16)
    taylor = np.fft.fft(log_transform(lam[:, None] * (1 + circle / 2)), axis=1).real / 16 * 2.0 ** np.arange(16)
    y = (1 - taylor[:, 1]) / lam
    a2 = np.maximum(2 * taylor[:, 2], 0)  # of the law tilted by exp(-lam Y), the variance, in units of 1 / lam^2
    # Steepest descent to third order, but so little bent that a Gaussian of that variance is below exp(-32) at the end.
    spare = 8 * np.sqrt(a2) - 1
    bend = np.minimum((2 - 6 * taylor[:, 3]) / (6 * (1 + a2)), np.where(spare > 0, a2 / (2 * np.abs(spare)), np.inf))
    with np.errstate(divide="ignore"):  # a law of one point, but for rounding, has none
        end = np.sqrt((bend + a2 / 2) / a2) / bend  # where that Gaussian is least; it grows beyond
    v = np.arange(nodes) / (5 * np.sqrt(1 + a2))[:, None]
    path = 1 + 1j * v - bend[:, None] * v**2
    points = lam[:, None] * path
    exponent = np.where(v < end[:, None], points * y[:, None] + log_transform(points), -np.inf)
    log_scale = exponent[:, 0].real
    kernel = (1 + 2j * bend[:, None] * v) * v[:, 1:2] / np.pi * np.exp(exponent - log_scale[:, None])
    kernel[:, 0] /= 2
    return Contour(y, points, lam[:, None] * kernel, log_scale, (1 + a2) / lam)


def invert_laplace(log_transform: Callable[[Array], Array], lam: Array, nodes: int = 128) -> tuple[Array, Array, Array]:
    """Points `y`, one for each `lam` > 0, with the distribution function and density of a positive law there.

    `log_transform(lam)` is `ln E exp(-lam Y)`, analytic off the negative axis. `lam` is the saddle point of the
    integrand of the inversion integral and `y` follows from it, so a geometric grid of `lam` places the points where
    the law is, from one tail (large `lam`) to the other. The path is a parabola through the saddle, on which the
    trapezoidal rule converges geometrically: `lam (1 + i v - bend v^2)`.

    Shapes: `lam` and the three results are `(M,)`.
    Exact:  to about 1e-11 absolute in the distribution function.
    Source: Bromwich's integral by steepest descent; Trefethen and Weideman 2014, Sec. 15. [trefethen2014trapezoidal]
    """
    path = laplace_contour(log_transform, lam, nodes)
    scale = np.exp(path.log_scale)
    below = scale * (path.weights / path.points).sum(1).real
    return path.y, below, scale * path.weights.sum(1).real
