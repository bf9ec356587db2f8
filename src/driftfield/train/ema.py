"""Running averages of weights with power-function profiles, and the algebra that rebuilds one from others.

The average of relative width `sigma_rel` at step `t` weighs the weights of step `k` by the integral over `(k - 1, k]`
of the profile `p(u) = (gamma + 1) u^gamma / t^(gamma + 1)`: its width is always the same share of the run so far, and
the start is forgotten. Source: Karras et al. 2024, Sec. 3 and App. C. [karras2024edm]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..recipe import WIDEST


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the profile whose standard deviation is the share `sigma_rel` of the run so far.

    The largest root of `sigma_rel^2 (gamma + 2)^2 (gamma + 3) = gamma + 1`, in closed form (Viete).
    Raises: ValueError outside `(0, 12^(-1/2)]`; the upper end is `gamma = 0`, the plain mean of the run.
    """
    if not 0 < sigma_rel <= WIDEST:
        raise ValueError(
            f"sigma_rel is the width of an average as a share of the run: above 0 and at most {WIDEST:.4f} "
            f"(the plain mean), got {sigma_rel:g}"
        )
    t = sigma_rel**-2  # with gamma = x - 2 the equation is x^3 + x^2 - t x + t = 0
    p, q = -t - 1 / 3, 2 / 27 + 4 * t / 3
    x = 2 * math.sqrt(-p / 3) * math.cos(math.acos(1.5 * q / p * math.sqrt(-3 / p)) / 3) - 1 / 3
    return max(0.0, x - 2)


def width_of(gamma: float) -> float:
    """The inverse of `gamma_of`: the standard deviation of the profile as a share of the run, `gamma >= 0`."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def average_of(model: nn.Module) -> Any:
    """A frozen copy of `model`, the start of its average."""
    return deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int, sigma_rel: float) -> None:
    """Move `average` towards `model` as it is after step `step` = 1, 2, ...; buffers are copied.

    Called after every step, it makes the average exactly the profile's; the first step replaces it.
    Source: Karras et al. 2024, Sec. 3.1. [karras2024edm]
    """
    keep = (1 - 1 / step) ** (gamma_of(sigma_rel) + 1)
    slow: list[torch.Tensor] = list(average.parameters())
    fast = [p.detach() for p in model.parameters()]
    if slow:
        torch._foreach_lerp_(slow, fast, 1 - keep)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(new)


@dataclass(frozen=True)
class Profile:
    """The average of relative width `sigma_rel` taken at step `step`."""

    sigma_rel: float
    step: int


def inner(a: Sequence[Profile], b: Sequence[Profile]) -> np.ndarray:
    """The integrals of `p_i p_j` over time, float64 `(len(a), len(b))`, in units of one over a step.

    In closed form, with nothing but ratios below 1 raised to powers: no overflow at any step or width.
    Source: Karras et al. 2024, App. C. [karras2024edm]
    """
    s, t = (np.array([p.step for p in ps], dtype=np.float64) for ps in (a, b))
    g, h = (np.array([gamma_of(p.sigma_rel) for p in ps]) for ps in (a, b))
    s, t, g, h = s[:, None], t[None, :], g[:, None], h[None, :]
    later = np.where(s < t, h, g)  # the exponent of the profile that ends later
    ratio = np.minimum(s, t) / np.maximum(s, t)
    product: np.ndarray = (g + 1) * (h + 1) / (g + h + 1) * ratio**later / np.maximum(s, t)
    return product


def norm(p: Profile) -> float:
    """The root of the integral of `p^2` over time."""
    return math.sqrt(inner([p], [p])[0, 0])


def spread_of(p: Profile, a: Sequence[torch.Tensor], q: Profile, b: Sequence[torch.Tensor]) -> float:
    """How far the weights of single steps lie from a constant, as a share of its size, if they do so independently.

    It is that which takes two averages of them, `a` and `b` of the profiles `p` and `q`, as far apart as they are.
    Weights that drift take averages apart by more than they change between snapshots, which the value then exceeds.
    """
    apart = math.sqrt(sum(float((x.double() - y.double()).square().sum()) for x, y in zip(a, b, strict=True)))
    size = math.sqrt(sum(float(x.double().square().sum()) for x in a))
    gram = inner([p, q], [p, q])
    return apart / size / math.sqrt(gram[0, 0] - 2 * gram[0, 1] + gram[1, 1]) if size else 0.0


def combination(
    stored: Sequence[Profile], wanted: Profile, spread: float = 1.0, rounding: float = 0.0
) -> tuple[np.ndarray, float]:
    """The weights `(n,)`, summing to 1, with which the `stored` averages come closest to the `wanted` one.

    Also the error that is left of the profile: the root of the integral of the squared difference, as a share of the
    wanted profile's own. What is least is the expected squared error of the average, where the weights of single steps
    have the `spread` of `spread_of` and what is stored is off, independently, by `rounding`: `spread^2` times that
    integral, plus `rounding^2` times the sum of the squared weights. A stored average is given back as it is.
    Least squares in float64 with one multiplier for the sum, which keeps what never changes exact.
    Source: Karras et al. 2024, App. C, with the sum and the rounding added. [karras2024edm]
    """
    n = len(stored)
    if wanted in stored:
        return np.eye(n)[stored.index(wanted)], 0.0
    gram, right = inner(stored, stored), inner(stored, [wanted])[:, 0]
    cost = spread**2 * gram + rounding**2 * np.eye(n)
    size = np.sqrt(np.diag(cost))  # of unit diagonal: the condition grows as n^4, to 1e4 at 32 steps of two widths
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = cost / np.outer(size, size)
    system[:n, n] = system[n, :n] = size.min() / size
    solved = np.linalg.solve(system, np.append(spread**2 * right / size, size.min()))
    weights: np.ndarray = solved[:n] / size
    square = weights @ gram @ weights - 2 * weights @ right + norm(wanted) ** 2
    return weights, math.sqrt(max(0.0, square)) / norm(wanted)
