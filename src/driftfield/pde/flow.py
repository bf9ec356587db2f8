"""What becomes of a whole set of data under an equation: sums over sources, and waves on a periodic grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from torch import Tensor

from ..special import gauss_legendre
from .base import PDE, Green
from .hankel import plane_wave
from .wave import Schrodinger

_NEAREST = 1e-6  # of the width of the kernel: the least distance in a table
_MOST = 10**7  # pieces of an integral, over all distances: 10 s of work and 1.3 GB
_TABLE = 120  # distances at which a kernel without a closed form is computed, when more are asked for


class Fluid(NamedTuple):
    """A density on a grid `(X, Y)` and its flux `(2, X, Y)`: the velocity is their ratio."""

    density: Tensor
    flux: Tensor


def posterior(pde: PDE, x: Tensor, t: float, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The density at `x`, `(B,)`, the velocity `(B, N)` and the births per particle `(B,)`, of equally likely `data`.

    Shapes: `x` is `(B, N)`, `data` `(M, N)`; the results are float64. Differences of all pairs are held at once: this
    is for pictures and tests: processes sample. Where the density is not above 0 there is no velocity: NaN.
    Raises: ValueError for shapes that do not fit, for the Schroedinger equation, whose densities do not add, and what
    `green` raises.
    """
    if x.ndim != 2 or data.ndim != 2 or x.shape[1] != data.shape[1] or not len(data):
        raise ValueError(f"x and data must be (B, N) and (M, N), got {tuple(x.shape)} and {tuple(data.shape)}")
    if isinstance(pde, Schrodinger):
        raise ValueError(
            "densities of the Schroedinger equation do not add up over data; simulate it on a grid instead"
        )
    gap = x.double()[:, None] - data.double()
    g = _tabled(pde, gap.norm(dim=2), t, x.shape[1])
    positive = g.log_density > -math.inf
    top = g.log_density.where(positive, -math.inf).amax(1, keepdim=True)
    top = top.where(top > -math.inf, 0)
    # in units of the highest kernel: in many dimensions the densities themselves are out of range
    share = torch.where(positive, (g.log_density - top).exp(), g.density / top.exp())
    total = share.sum(1)
    none = share == 0  # a source whose front has not come here
    weight = share / torch.where(total > 0, total, math.nan)[:, None]
    velocity = (weight * g.velocity.masked_fill(none, 0))[..., None] * gap
    return top[:, 0].exp() * total / len(data), velocity.sum(1), (weight * g.rate.masked_fill(none, 0)).sum(1)


def _tabled(pde: PDE, s: Tensor, t: float, n: int) -> Green:
    """`green`, by a spline where the kernel has no closed form and the distances are many."""
    if pde.closed or s.numel() <= _TABLE:
        return pde.green(s, t, n)
    unit = _reach(pde, t)
    top = math.asinh(s.max().item() / unit)
    u = np.linspace(_NEAREST, 1.000001 * top, _TABLE)  # at 0 the kernel may be infinite
    table = pde.green(torch.from_numpy(unit * np.sinh(u)), t, n)
    at = (s / unit).asinh().clamp(min=_NEAREST).numpy()

    def spline(column: Tensor) -> Tensor:
        return torch.from_numpy(CubicSpline(u, column.numpy())(at))

    sure = bool(table.log_density.isfinite().all())  # the logarithm is smooth where it exists: a signed kernel has none
    density = spline(table.log_density).exp() if sure else spline(table.density)
    log = spline(table.log_density) if sure else density.where(density > 0, math.nan).log()
    return Green(torch.full_like(s, math.nan), density, log, spline(table.velocity), torch.zeros_like(s))


def _reach(pde: PDE, t: float) -> float:
    """The distance `1 / k` at which modes have fallen to 1 / e, for a spectrum that falls."""
    rest = abs(pde.total_mass(t)) * math.exp(-1)
    low, high = 1e-12, 1e12
    for _ in range(60):
        k = math.sqrt(low * high)
        above = pde.spectrum(torch.tensor(k, dtype=torch.float64), t)[1].item() > rest
        low, high = (k, high) if above else (low, k)
    return 1 / low


def time_at(pde: PDE, distance: float, width: float) -> float:
    """About when the density of a source has spread over `distance`: the mode of that length has fallen to 1 / e.

    Where it does not fall, when waves from a blob of deviation `width` have travelled so far.
    Raises: ValueError where it does neither, or grows.
    """
    k = torch.tensor([1 / distance, 0.0], dtype=torch.float64)

    def share(t: float) -> float:
        mode, mass = pde.scaled(k, t)[1].abs().tolist()
        return float(mode / mass)

    times = np.geomspace(1e-9, 1e19, 561)
    for low, high in pairwise(times.tolist()):
        if share(high) <= math.exp(-1):
            return float(brentq(lambda t: share(t) - math.exp(-1), low, high))
    ahead, behind = pde.omega(torch.tensor((0.505 / width, 0.495 / width), dtype=torch.float64))[0].real
    speed = abs((ahead - behind).item()) * width / 0.01
    if speed == 0 and share(1.0) > 1:
        raise ValueError(
            f"waves of length {distance:g} grow under this equation ({pde.pde}), so that no data fade in it"
        )
    if speed == 0:
        raise ValueError(f"waves of length {distance:g} neither fade nor travel under this equation ({pde.pde})")
    return float(distance / speed)


def simulate(pde: PDE, density: Tensor, t: float, side: float) -> Fluid:
    """The density and the flux at `t > 0` of data with `density` `(X, Y)` on a periodic square of width `side`.

    Exact for the periodic problem up to the grid's resolution, of any equation, generative or not. The Schroedinger
    equation starts from the wave `sqrt(density)` at rest; where particles die, what is left is scaled as `PDE.scaled`.
    Raises: ValueError for a density that is negative or not on a square grid, and for an equation whose waves grow.
    """
    if density.ndim != 2 or density.shape[0] != density.shape[1] or not bool((density >= 0).all()):
        raise ValueError(
            f"the density must be (X, X) and >= 0, got {tuple(density.shape)}, least {density.min().item():g}"
        )
    if not t > 0:
        raise ValueError(f"time must be above 0, got {t}")
    one = 2 * math.pi * torch.fft.fftfreq(len(density), side / len(density), dtype=torch.float64)
    axes = torch.stack(torch.meshgrid(one, one, indexing="ij"))
    k = axes.square().sum(0).sqrt()
    phi_hat, p_hat = pde.scaled(k, t)
    if not bool(p_hat.abs().max() <= 1e3):
        raise ValueError(f"waves of this equation grow without bound ({pde.pde}), so it has no forward problem to draw")
    quantum = isinstance(pde, Schrodinger)
    waves = torch.fft.fft2((density.sqrt() if quantum else density).to(torch.complex128))
    phi_hat = phi_hat.where(k > 0, 0)  # the constant mode has no slope
    p, phi = torch.fft.ifft2(waves * p_hat), torch.fft.ifft2(waves * phi_hat)
    slope = torch.fft.ifft2(1j * axes * waves * phi_hat)
    if quantum:
        phi = torch.fft.ifft2(waves * p_hat)
        return Fluid(phi.abs().square(), 2 * (phi.conj() * slope).imag)
    return Fluid(p.real, -slope.real)


def overlap(pde: PDE, distance: float, t: float, n: int, width: float = 0.0) -> float:
    """`int p1 p2 / int p1^2` of the densities at `t` of two sources at a `distance`: 1 where they cannot be told apart.

    The sources are points, or Gaussians of standard deviation `width`: to be above 0 where the square of the kernel has
    no integral (waves).
    Raises: ValueError for a kernel that does not fade and a width of 0, and in more than 8 dimensions for kernels
            without a closed form.
    Source: Liu et al. 2023, App. A: the mean of `cos(k . distance)` under the power spectrum. [liu2023genphys]
    """
    apart = torch.tensor([0.0, distance], dtype=torch.float64)
    if width == 0 and pde.additive:
        log = pde.green(apart, 2 * t, n).log_density
        return float((log[1] - log[0]).exp())
    if width == 0:
        raise ValueError(f"the square of the {pde.name} kernel has no integral; give the sources a width above 0")
    power = _blurred(lambda k: pde.spectrum(k, t)[1].abs().square(), apart, n, math.sqrt(2) * width, pde, 2 * t)
    return float(power[1] / power[0])


def blob(pde: PDE, s: Tensor, t: float, n: int, width: float) -> Tensor:
    """The density at distances `s` `(M,)` from a Gaussian source of deviation `width`, finite also on fronts."""
    if isinstance(pde, Schrodinger):  # a wave at rest whose square is the source
        unit = (2 * math.sqrt(2 * math.pi) * width) ** n
        real = _blurred(lambda k: pde.spectrum(k, t)[0].real, s, n, math.sqrt(2) * width, pde, t)
        imaginary = _blurred(lambda k: pde.spectrum(k, t)[0].imag, s, n, math.sqrt(2) * width, pde, t)
        return unit * (real.square() + imaginary.square())
    return _blurred(lambda k: pde.spectrum(k, t)[1], s, n, width, pde, t)


def _blurred(transform: Callable[[Tensor], Tensor], s: Tensor, n: int, width: float, pde: PDE, t: float) -> Tensor:
    """The function whose radial transform is `transform exp(-(k width)^2 / 2)`, at distances `s` `(M,)`.

    By Gauss-Legendre on pieces of `k` that are shorter than any wave of the integrand, as far as it is not rounding.
    """
    k = torch.linspace(1e-3, 1, 1000, dtype=torch.float64) * 8.6 / width
    omega = pde.omega(k)[0]
    k, turns = k[(seen := omega.imag * t - (width * k) ** 2 / 2 > -40)], omega.real[seen]
    end = float(k[-1])
    speed = float((turns.diff() / k.diff()).abs().max()) if len(k) > 1 else 0.0
    pieces = 16 + int(end * (speed * t + s.max().item()) / math.pi)
    if pieces * s.numel() > _MOST:
        raise ValueError(
            f"by t = {t:.3g} the short waves of the {pde.name} equation ({pde.pde}) have turned too often for its "
            "density to be summed up; look at earlier times"
        )
    node, weight = gauss_legendre(16)
    edges = torch.linspace(0, end, pieces + 1, dtype=torch.float64)
    half = edges.diff()[:, None] / 2
    k = (edges[:-1, None] + half * (1 + node)).reshape(-1)
    w = (half * weight).reshape(-1) * k ** (n - 1) * transform(k) * (-((width * k) ** 2) / 2).exp()
    kernel = torch.from_numpy(plane_wave(n, (s[:, None] * k).numpy()))
    return math.exp(math.log(2) - n / 2 * math.log(4 * math.pi) - math.lgamma(n / 2)) * (kernel @ w)
