"""The generalised inverse Gaussian law, by quadrature in the logarithm of its variable.

Its density is `v^(-nu - 1) exp(-(chi / v + psi v) / 2)`. It is the law of a massive charge's variance and, with `nu`
raised by `n / 2` and `chi` by a squared distance, of that variance given a place in `n` dimensions. With
`kappa = sqrt(nu^2 + chi psi)` the mode of `ln v` is `ln(chi / (nu + kappa))` and its curvature is `kappa`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ..special import gauss_legendre, log_bessel_k
from .curves import Curves, curve

_DEEP = 40.0  # exp(-40) is left out
_NODES = 64  # from one end of the law to the other
_MANY = 256  # at orders below 1, whose far end is long
_PANEL = 96  # from a point to one end


def _reach(nu: Tensor, kappa: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
    """How far below and above the mode of `ln v` the density has fallen by exp(-40); `excess = kappa - nu`.

    From `-excess (cosh x - 1) - nu (exp(-x) - 1 + x)`, the exponent at the distance `x`, term by term.
    """
    a, b = _DEEP / excess, _DEEP / nu
    even = torch.log1p(a + (a * (a + 2)).sqrt())
    odd = b + (2 * b).sqrt()
    return torch.minimum(even, odd.log1p()), torch.minimum(even, odd)


def around(nu: Tensor, z2: Tensor, nodes: int = _NODES) -> tuple[Tensor, Tensor]:
    """Points of `ln v` less its mode, and the logarithm of their weights, for orders `nu` and `z2 = chi psi`.

    The weights are those of `exp(-excess (cosh x - 1) - nu (exp(-x) - 1 + x)) dx`, the density over its height.
    Shapes: `nu` and `z2` are `(...)` float64; the results `(..., K)`.
    """
    kappa = (nu.square() + z2).sqrt()
    excess = z2 / (nu + kappa)
    below, above = (side.asinh()[..., None] for side in _reach(nu, kappa, excess))
    step = (below + above) / (nodes - 1)
    y = step * torch.arange(nodes, dtype=torch.float64, device=z2.device) - below
    x = y.sinh()
    exponent = -2 * excess[..., None] * (x / 2).sinh().square() - nu[..., None] * (torch.expm1(-x) + x)
    return x, exponent + (y.cosh() * step).log()


@lru_cache(maxsize=64)
def correction(nu: float) -> Curves:
    """`ln(sqrt(2 kappa / pi) exp(kappa) (z / (nu + kappa))^nu K_nu(z))`, a function of `ln(z / nu)` between two limits.

    It is what remains of the logarithm of the integral of the law after its leading terms: small, and smooth.
    """
    start, step = -25.0, 0.025
    u = start + step * torch.arange(2001, dtype=torch.float64)
    z2 = (2 * u).exp() * nu**2
    order = torch.full_like(u, nu)
    kappa = (order.square() + z2).sqrt()
    _, weight = around(order, z2, _MANY)
    return curve(start, step, (weight.logsumexp(1) + (kappa / (2 * math.pi)).log() / 2).numpy())


def corrected(nu: float, z: Tensor) -> Tensor:
    """`correction(nu)` at `z >= 0`, in float64; below 1e-10 nu it is what it is at 0, to rounding."""
    return correction(nu).to(z.device)((z.double() / nu).clamp(min=math.exp(-25)).log())


def log_integral_gain(nu: float, rise: float, z: Tensor) -> Tensor:
    """How `ln` of the integral of `v^(-nu - 1) exp(-(1 / v + z^2 v) / 2)` over `v` grows as `nu` does by `rise`.

    That is `ln(2 z^nu K_nu(z))`; by the small differences of its terms, in float64, so that a large `z` cancels none.
    """
    z = z.double()
    top = nu + rise
    kappa, kappa_top = (nu**2 + z.square()).sqrt(), (top**2 + z.square()).sqrt()
    up = rise * (nu + top) / (kappa + kappa_top)
    leading = rise * (top + kappa_top).log() + nu * ((rise + up) / (nu + kappa)).log1p() - up
    return leading - (up / kappa).log1p() / 2 + corrected(top, z) - corrected(nu, z)


def log_integral_drop(nu: float, psi: float, chi: Tensor, rise: Tensor) -> Tensor:
    """The change of `ln` of the integral of `v^(-nu - 1) exp(-(chi / v + psi v) / 2)` as `chi` goes up by `rise`.

    By the small differences of its terms, so that it also has its digits in float32.
    """
    z, z_up = (psi * chi).sqrt(), (psi * (chi + rise)).sqrt()
    kappa, kappa_up = (nu**2 + z.square()).sqrt(), (nu**2 + z_up.square()).sqrt()
    up = psi * rise / (kappa + kappa_up)
    leading = -nu * ((rise / chi).log1p() - (up / (nu + kappa)).log1p()) - up - (up / kappa).log1p() / 2
    return leading if psi == 0 else leading + (corrected(nu, z_up) - corrected(nu, z)).to(leading)


def _one_side(nu: float, z: Tensor, w: Tensor, deep: float) -> tuple[Tensor, Tensor, Tensor]:
    """From `w = ln v` to the nearer end of the law with `chi = 1` and `psi = z^2`: what `ln v` loses or gains, and the
    logarithm of the weights of the density over that at `w`, `(..., K)`; and 1 where it loses, -1 where it gains.
    """
    down, up = (-w).exp() / 2, z.square() * w.exp() / 2
    lower = down >= nu + up  # below the mode
    ahead, behind = torch.where(lower, down, up), torch.where(lower, up, down)
    power = torch.where(lower, nu, -nu)
    a, b = deep / ahead, deep / behind
    reach = torch.minimum((a + (2 * a).sqrt()).log1p(), b + (2 * b).sqrt())
    steep = ahead - power - behind
    reach = torch.minimum(reach, deep / (steep - 1).clamp(min=0))[..., None]
    nodes, weights = (v.to(w.device) for v in gauss_legendre(_PANEL))
    u = reach * (nodes + 1) / 2
    exponent = power[..., None] * u - ahead[..., None] * torch.expm1(u) - behind[..., None] * torch.expm1(-u)
    return u, exponent + (weights * reach / 2).log(), torch.where(lower, 1.0, -1.0).to(w)


def quantile(p: Tensor, nu: float, z: Tensor) -> Tensor:
    """The value that a draw of the law with `chi = 1` and `psi = z^2` does not exceed with probability `p`.

    Shapes: `p` and `z >= 0` are `(B,)` float64, `p` strictly between 0 and 1.
    Exact:  to about 1e-12 in probability: Newton's method for the logarithm of the nearer tail, which is concave.
    """
    kappa = (nu**2 + z.square()).sqrt()
    mode = -(nu + kappa).log()

    def tail(w: Tensor) -> Tensor:
        return _one_side(nu, z, w, _DEEP)[1].logsumexp(-1)

    def height(w: Tensor) -> Tensor:
        return -nu * w - ((-w).exp() + z.square() * w.exp()) / 2

    nudge = torch.full_like(mode, 1e-9)
    left, right = tail(mode - nudge), tail(mode + nudge)
    whole = torch.logaddexp(left, right) + height(mode)
    lower = p.log() < left + height(mode) - whole
    wanted = torch.where(lower, p.log(), (-p).log1p())
    below, above = _reach(torch.full_like(mode, nu), kappa, z.square() / (nu + kappa))
    first, last = torch.where(lower, mode - below, mode + nudge), torch.where(lower, mode - nudge, mode + above)
    w = torch.where(lower, last, first)
    for _ in range(12):
        here = tail(w)
        error = here + height(w) - whole - wanted
        step = error * here.exp()
        w = torch.where(lower, w - step, w + step).clamp(first, last)
    return w.exp()


def lag(nu: float, z: float) -> Curves:
    """By what share of `2 v / r` the law's quantiles move less as its `chi = r^2` grows, because `psi` stays.

    `dv / dr = (2 v / r) (1 - lag)`. It is a function of `ln(v / r^2)` that rises from 0 to 1; `z = r sqrt(psi)`. The
    law with `psi = 0` is carried by its scale; what `psi` takes from the far and gives to the near moves mass inward,
    `integral_0^v (mean - u) f(u) du` of it across `v`.
    """
    at = torch.tensor(z, dtype=torch.float64)
    start, step = -2 * math.log(max(1.0, nu + z)) - 6.0, 0.05
    w = start + step * torch.arange(1601, dtype=torch.float64)
    u, log_weight, side = _one_side(nu, at, w, 2.5 * _DEEP)
    mean = z / 2 * math.exp(float(log_bessel_k(abs(nu - 1), at) - log_bessel_k(nu, at)))  # psi / 2 times it
    up = at.square() * w.exp() / 2
    gap = side[:, None] * (mean - up[:, None] * (-side[:, None] * u).exp())
    return curve(start, step, (log_weight.exp() * gap).sum(1).numpy())


def lag_of_one(z: Tensor, v: Tensor) -> Tensor:
    """`lag` at `nu = 1/2`, the inverse Gaussian law: `z sqrt(v)` times Mills' ratio at `z sqrt(v) + 1 / sqrt(v)`."""
    root = v.sqrt()
    scaled: Tensor = torch.special.erfcx((z * root + 1 / root) / math.sqrt(2))
    return z * root * math.sqrt(math.pi / 2) * scaled


def mean_share(D: float, n: int, z: float, u: Tensor) -> Tensor:
    """The mean of `1 - lag` given the place `|x - x0|^2 = r^2 expm1(u)` in `n` dimensions, at `z = r mass`: `(K,)`."""
    order, rho2 = torch.full_like(u, (n + D) / 2), u.exp()
    x, log_weight = around(order, z**2 * rho2)
    w = (rho2 / (order + (order.square() + z**2 * rho2).sqrt())).log()[:, None] + x
    behind = lag_of_one(torch.tensor(z, dtype=u.dtype), w.exp()) if D == 1 else lag(D / 2, z)(w)
    return 1 - (log_weight.softmax(1) * behind).sum(1)
