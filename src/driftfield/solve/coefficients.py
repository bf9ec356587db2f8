"""The coefficients of exponential integrators: what is left of the flow once its linear part is solved exactly.

Between the times `t` and `s` the flow of `x_t = A_t x_0 + R_t eps` is

    x_s = Psi(s, t) x_t + int_t^s d[Psi(s, u) R_u] eps_u        noise form
    x_s = R_s R_t^-1 x_t + int_t^s R_s d[R_u^-1 A_u] y_u        data form

and a polynomial through remembered `eps` or `y` turns the integral into one linear map for each of them. The maps
depend on the process and the times alone, so they are found once, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..linear import Linear, Scalar
from ..process.base import Isotropic, check_end
from ..process.gaussian import GaussianProcess

FORMS, CLOCKS = ("noise", "data"), ("t", "rho", "log", "flow")

Values = npt.NDArray[np.float64]
_NODES = 16  # on panels over which the variable at most doubles: Gauss-Legendre errs by (3 + sqrt 8)^-32 there
_OCTAVES = 60  # panels down to 0

_X, _W = np.polynomial.legendre.leggauss(_NODES)


def basis(nodes: Sequence[float], at: Values) -> Values:
    """The Lagrange polynomials through `nodes` at the points `at`: `(len(nodes), *at.shape)`."""
    one = np.ones_like(at)
    rows = [np.prod([one, *((at - q) / (p - q) for q in _without(nodes, j))], axis=0) for j, p in enumerate(nodes)]
    return np.stack(rows)


def slopes(nodes: Sequence[float], at: Values) -> Values:
    """The derivatives of `basis`."""
    rows = []
    for j, p in enumerate(nodes):
        rest = _without(nodes, j)
        terms = [np.prod([(at - k) / (p - k) for k in _without(rest, m)], axis=0) / (p - q) for m, q in enumerate(rest)]
        rows.append(np.sum(terms, axis=0) * np.ones_like(at))
    return np.stack(rows)


def _without(nodes: Sequence[float], j: int) -> list[float]:
    return [q for k, q in enumerate(nodes) if k != j]


def panels(a: float, b: float) -> tuple[Values, Values]:
    """Points and weights of a quadrature from `a` to `b`, both >= 0 and finite, for what is smooth in the logarithm."""
    low, high = min(a, b), max(a, b)
    count = _OCTAVES if low == 0 else min(_OCTAVES, max(1, math.ceil(math.log2(high / low))))
    edges = high * 2.0 ** -np.arange(count + 1) if low == 0 else np.geomspace(high, low, count + 1)
    edges[0], edges[-1] = high, low
    edges = edges if a == high else edges[::-1]
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + _X)).ravel(), (half * _W).ravel()


def coefficients(
    process: Any, form: str, clock: str, nodes: tuple[float, ...], t: float, s: float
) -> tuple[Linear, tuple[Linear, ...]]:
    """`(a, (c_0, c_1, ...))` of the step `x_s = a x_t + sum_j c_j value_j`, with `value_j` remembered from `nodes[j]`.

    `form` says what is remembered, `clock` in what it is a polynomial: the process's time, the level `rho`, its
    logarithm, or the time of rectified flow at that level, `rho / (1 + rho)`. Where the clock is infinite, fewer values
    are used (the limit of the formula): the tuple may be shorter than `nodes`. Only scalar processes have clocks other
    than "t".
    Raises: ValueError for a form or clock that the process does not have, and for `s = 0` where noise is left there;
            TypeError for a process without linear maps.
    Source: Zhang and Chen 2023, Eq. 15; Zhang et al. 2023, Eq. 19; Lu et al. 2023, Sec. 4.
            [zhang2023deis] [zhang2023gddim] [lu2023dpmpp]
    """
    if torch.compiler.is_compiling() or not _lasting(process):
        return _maps(process, form, clock, nodes, t, s)
    kept = _kept if isinstance(process, Isotropic) else _kept_large
    return kept(process, form, clock, nodes, t, s)


def _lasting(process: Any) -> bool:
    """Whether equal processes stay equal, so that what is found for one may be kept: a frozen value, as ours are."""
    settings = getattr(type(process), "__dataclass_params__", None)
    if settings is None or not settings.frozen:
        return False
    try:
        hash(process)
    except TypeError:  # it holds a list
        return False
    return True


def _maps(
    process: Any, form: str, clock: str, nodes: tuple[float, ...], t: float, s: float
) -> tuple[Linear, tuple[Linear, ...]]:
    if s == 0:
        check_end(process)
    if isinstance(process, Isotropic):
        a, c = _scalar(process, form, clock, nodes, t, s)
        return Scalar(_number(a)), tuple(Scalar(_number(v)) for v in c)
    if not isinstance(process, GaussianProcess):
        raise TypeError(
            f"{type(process).__name__} does not move by linear maps, so exponential integrators do not apply; "
            "use a Runge-Kutta solver (heun, rk4)"
        )
    if clock != "t":
        raise ValueError(
            f"clock {clock!r} needs one noise level for all directions, which {type(process).__name__} lacks; "
            "use clock='t'"
        )
    return _general(process, form, nodes, t, s)


_kept = lru_cache(maxsize=8192)(_maps)
_kept_large = lru_cache(maxsize=256)(_maps)  # maps that hold a number for each frequency of an image


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _scalar(
    process: Isotropic, form: str, clock: str, nodes: tuple[float, ...], t: float, s: float
) -> tuple[float, tuple[float, ...]]:
    """With `rho = sigma / alpha`: `c = alpha_s int l drho` for noise, `sigma_s int l d(1 / rho)` for data.

    Compiled code takes them as constants.
    """
    ends = torch.tensor([t, s], dtype=torch.float64)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = process.alpha(ends).tolist(), process.sigma(ends).tolist()
    rho_t, rho_s = process.level(ends).tolist()

    def ticks(rho: Values) -> Values:
        if clock == "t":
            return process.time(torch.from_numpy(rho)).numpy()
        if clock == "flow":
            return rho / (1 + rho)
        return rho if clock == "rho" else np.log(rho)

    def tick(time: float) -> float:
        if clock == "t":
            return time
        rho = process.level(torch.tensor(time, dtype=torch.float64)).item()
        if clock == "flow":
            return 1 - 1 / (1 + rho)  # 1 where no signal is left
        return rho if clock == "rho" else (math.log(rho) if rho > 0 else -math.inf)

    at = [p for p in map(tick, nodes) if math.isfinite(p)]
    if clock == "log" and rho_s == 0:
        at = at[:0]
    if form == "noise":
        if alpha_t == 0 or alpha_s == 0:
            raise ValueError(
                f"the noise form is undefined at time {t if alpha_t == 0 else s:g}, where {type(process).__name__} "
                "keeps no signal; use form='data'"
            )
        if len(at) < 2:
            return alpha_s / alpha_t, (sigma_s - alpha_s / alpha_t * sigma_t,)
        rho, weights = panels(rho_t, rho_s)
        c = alpha_s * (basis(at, ticks(rho)) * weights).sum(-1)
        return alpha_s / alpha_t, tuple(c.tolist())
    ratio = sigma_s / sigma_t
    if len(at) < 2:
        return ratio, (alpha_s - ratio * alpha_t,)
    if rho_s == 0:  # all weight of the integral lies at its end
        c = alpha_s * basis(at, np.array(tick(s)))
    else:
        back, weights = panels(0.0 if math.isinf(rho_t) else 1 / rho_t, 1 / rho_s)
        c = sigma_s * (basis(at, ticks(1 / back)) * weights).sum(-1)
    return ratio, tuple(c.tolist())


def _number(value: float) -> torch.Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def _general(
    process: GaussianProcess, form: str, nodes: tuple[float, ...], t: float, s: float
) -> tuple[Linear, tuple[Linear, ...]]:
    """By parts, `[M l] - int M l' du`, with `M` what the integral is over: it needs no derivative of the maps."""
    end, begin = _number(s), _number(t)
    points, weights = panels(t, s)

    if form == "noise":
        a = process.transition(end, begin)
        if not process.flowing:  # another root of the covariance: the noise turns, and the integrand has no primitive
            values = basis(nodes, points) * weights
            parts = [_turning(process, end, _number(u)) for u in points]
            return a, tuple(_sum(parts, row) for row in values)

        def carried(u: torch.Tensor) -> Linear:
            return process.transition(end, u) @ process.root(u)
    else:
        if not process.flowing:
            raise ValueError("the data form needs the root that solves the flow's equation; use factor='R'")
        root = process.root(end)
        a = root @ process.root(begin).inv

        def carried(u: torch.Tensor) -> Linear:
            return root @ process.root(u).inv @ process.signal(u)

    at_s, at_t = carried(end), carried(begin)
    first, last = basis(nodes, np.array(t)), basis(nodes, np.array(s))
    inner = slopes(nodes, points) * weights if len(nodes) > 1 else None
    parts = [] if inner is None else [carried(_number(u)) for u in points]
    c = []
    for j in range(len(nodes)):
        whole = at_s.scale(float(last[j])) - at_t.scale(float(first[j]))
        c.append(whole if inner is None else whole - _sum(parts, inner[j]))
    return a, tuple(c)


def _turning(process: GaussianProcess, s: torch.Tensor, u: torch.Tensor) -> Linear:
    """`1/2 Psi(s, u) G G^T K^-T`."""
    return process.transition(s, u) @ process.diffusion(u).scale(0.5) @ process.root(u).T.inv


def _sum(parts: Sequence[Linear], weights: Values) -> Linear:
    total = parts[0].scale(float(weights[0]))
    for part, w in zip(parts[1:], weights[1:], strict=True):
        total = total + part.scale(float(w))
    return total
