"""From a radial Fourier transform to the function, in any small number of dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from ..special import gauss_legendre

Array = NDArray[Any]

MOST = 8  # dimensions: beyond, the value at a distance is a difference of far larger numbers
_SMOOTH = 30.0  # largest phase `k s` that is integrated without regard to its waves
_TINY = 1e-18


def radial(transform: Callable[[Tensor], Tensor], s: Tensor, n: int) -> Tensor:
    """`(2 pi)^-n int transform(|k|) exp(i k . x) dk` at `|x| = s`, for a `transform` of `k > 0`, real, float64.

    `transform` is smooth for `k > 0`, bounded by a power at 0, and falls. Where it has fallen before the waves of the
    Bessel function begin, a double-exponential rule is used; else a sum over half-waves, its limit by averaging.
    Shapes: any `s >= 0`; the result is like it, and at 0 infinite where the integral is.
    Exact:  to about 1e-10 of the largest value. A tail that falls as a power is known to 1e-8 of itself at 1,000 times
            the width of the kernel in up to 3 dimensions, and to 1e-6 in 6.
    Raises: ValueError for more than 8 dimensions, or where the integral has not converged.
    Source: Takahasi and Mori 1974; Euler's transformation, [dlmf] 3.9.2. [takahasi1974double]
    """
    if n > MOST:
        raise ValueError(f"a radial transform is inverted in up to {MOST} dimensions, got {n}")
    r = s.double().reshape(-1).numpy()
    edge = _edge(transform, n)
    near = r == 0 if math.isinf(edge) else r * edge <= _SMOOTH
    out = np.empty_like(r)
    hat = lambda k: transform(torch.from_numpy(k)).numpy()
    if near.any():
        out[near] = _direct(hat, r[near], n, edge)
    if (~near).any():
        out[~near] = _in_waves(hat, r[~near], n)
    return torch.from_numpy(out).reshape(s.shape)


def _edge(transform: Callable[[Tensor], Tensor], n: int) -> float:
    """The wavenumber beyond which `k^n transform` is negligible; infinite where it does not become so."""
    k = np.geomspace(1e-12, 1e12, 2401)
    with np.errstate(all="ignore"):  # judged below
        size = np.abs(transform(torch.from_numpy(k)).numpy()) * k**n
    if not np.isfinite(size).all():
        raise ValueError("the transform is not finite, so the kernel cannot be computed")
    large = np.nonzero(size > _TINY * size.max())[0]
    return math.inf if large[-1] == len(k) - 1 else float(k[large[-1] + 1])


def _direct(hat: Callable[[Array], Array], r: Array, n: int, edge: float) -> Array:
    """By the tanh-sinh rule on `[0, edge]`; at distance 0 of a transform that falls as a power, as such."""
    area = math.log(2) - n / 2 * math.log(4 * math.pi) - math.lgamma(n / 2)
    if math.isinf(edge):
        v = np.linspace(math.log(1e-12), math.log(1e12), 4801)
        size = hat(np.exp(v)) * np.exp(n * v)
        index = math.log(size[-401] / size[-1]) / (v[-1] - v[-401])  # of the power that `k^n transform` falls by
        total = size.sum() * (v[1] - v[0]) + size[-1] / index if index > 1e-6 else math.inf
        return np.full_like(r, math.exp(area) * total)
    found = []
    for step in (1 / 96, 1 / 192):
        k, weight = tanh_sinh(edge, step)
        kernel = weight * k ** (n - 1) * hat(k)
        found.append(plane_wave(n, np.multiply.outer(r, k)) @ kernel)
    scale = np.abs(found[1]).max()
    if np.abs(found[1] - found[0]).max() > 1e-9 * scale:
        raise ValueError("the integral for the kernel has not converged; its transform is not smooth")
    return np.asarray(math.exp(area) * found[1])


def plane_wave(n: int, phase: Array) -> Array:
    """The mean of `exp(i k . x)` over directions, at `phase = |k| |x|`: 1 at 0."""
    if n == 1:
        return np.cos(phase)
    if n == 2:
        return np.asarray(special.j0(phase))
    return np.sinc(phase / np.pi) if n == 3 else np.asarray(special.hyp0f1(n / 2, -(phase**2) / 4))


def _in_waves(hat: Callable[[Array], Array], r: Array, n: int) -> Array:
    """By the sum over half-waves of the Bessel function, whose signs alternate: a fixed rule in the phase `k r`."""
    found = []
    for waves in (48, 64):
        x, weights = _rule(n, waves)
        found.append(hat(x / r[:, None]) @ weights)
    scale = np.abs(hat(np.atleast_1d(1 / r))).max()
    rounding = 4 * np.finfo(float).eps * np.abs(weights).sum()  # late waves are large in many dimensions, and cancel
    if (np.abs(found[1] - found[0]) > max(1e-8, rounding) * scale).any():
        raise ValueError("the integral for the kernel does not converge: its transform does not fall smoothly")
    return np.asarray(found[1] * (2 * np.pi) ** (-n / 2) * r**-n)


@lru_cache(maxsize=64)
def _rule(n: int, waves: int) -> tuple[Array, Array]:
    """Nodes `x` and weights for `int_0^oo x^(n/2) J_(n/2-1)(x) f(x) dx`, for a smooth `f` of slow growth or decay.

    The first half-wave by tanh-sinh, for `f` may be singular at 0; the others by Gauss-Legendre. Their partial sums
    alternate about the limit, and each averaging of neighbours takes one difference of `f` off the error.
    """
    order = n / 2 - 1
    grid = np.arange(max(order, 0.01), np.pi * (waves + order / 2 + 2), 0.25)
    values = special.jv(order, grid)
    at = np.nonzero(values[:-1] * values[1:] < 0)[0][:waves]
    zeros = (grid[at] + grid[at + 1]) / 2
    for _ in range(6):
        zeros = zeros - special.jv(order, zeros) / special.jvp(order, zeros)
    first, first_weight = tanh_sinh(zeros[0], 1 / 32)
    node, weight = (a.numpy() for a in gauss_legendre(24))
    half = np.diff(zeros)[:, None] / 2
    later = zeros[:-1, None] + half * (1 + node)
    share = np.tri(waves)[waves // 2 :]  # partial sums
    while len(share) > 1:
        share = (share[1:] + share[:-1]) / 2
    x = np.concatenate((first, later.ravel()))
    w = np.concatenate((first_weight * share[0, 0], (half * weight * share[0, 1:, None]).ravel()))
    return x, w * x ** (n / 2) * special.jv(order, x)


def tanh_sinh(edge: float, step: float) -> tuple[Array, Array]:
    """Nodes and weights on `[0, edge]` of the double-exponential rule: singular ends do no harm."""
    w = np.arange(-4.2, 3.4, step)
    e = np.pi / 2 * np.sinh(w)
    part = 1 / (1 + np.exp(-2 * e))
    return edge * part, edge * np.pi * np.cosh(w) * np.exp(-2 * e) * part**2 * step
