"""A formula in `k` as a symbol that processes subordinate by, with digits down to the longest waves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import mpmath
import sympy
import torch
from sympy.codegen.cfunctions import log1p
from torch import Tensor

from ..process.symbols import Symbol
from .dispersion import FUNCTIONS, numerical, parsed, symbols
from .hankel import tanh_sinh

_ACCURATE = 1e-12  # relative, of the function on the positive axis
_GRID = torch.logspace(-12, 12, 97, dtype=torch.float64)
_TIE = 1e-25  # relative, of numbers of 40 digits that are to be equal
_FLOOR = 1e-200  # of `lam`: below, the least nodes of the integral would underflow


@dataclass(frozen=True)
class Formula(Symbol):
    """The symbol `Omega(k) - Omega(0)` of a formula such as "log(1 + k**2)", `lam = k^2`; read by `parsed`.

    Where the difference would cancel it is the integral of the derivative from 0.
    Raises: ValueError for a formula that is not understood, or neither way gives 12 digits.
    """

    text: str = "k"

    def __post_init__(self) -> None:
        _compiled(self.text)

    def __call__(self, lam: Tensor) -> Tensor:
        made = _compiled(self.text)
        if made.least == 0:
            return made.direct(lam)
        low = lam.abs() < made.least
        found = made.direct(lam.where(~low, made.least)).clone()
        found[low] = made.gathered(lam[low])
        return found

    @property
    def edge(self) -> float:
        return _compiled(self.text).edge

    @property
    def index(self) -> float | None:
        return _compiled(self.text).power

    @property
    def drift(self) -> float:
        return _compiled(self.text).drift

    def jumps(self, lam: Tensor) -> Tensor:
        rest = _compiled(self.text).rest
        return super().jumps(lam) if rest is None else rest(lam)


class _Compiled(NamedTuple):
    direct: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    least: float  # of `lam`, below which the difference loses digits
    edge: float
    power: float | None
    drift: float
    rest: Callable[[Tensor], Tensor] | None  # without the drift, if there is one

    def gathered(self, lam: Tensor) -> Tensor:
        """By tanh-sinh along the ray from 0, which a power at 0 does not disturb; so near 0 that it is one, as one."""
        at = torch.where(lam.abs() < _FLOOR, _FLOOR, lam)
        part, weight = (torch.from_numpy(a) for a in tanh_sinh(1.0, 1 / 16))
        value = at * (self.slope(at[..., None] * part) * weight).sum(-1)
        return value * (lam / at) ** (at * self.slope(at) / value)


@lru_cache(maxsize=64)
def _compiled(text: str) -> _Compiled:
    formula, lam = parsed(text), sympy.Symbol("lam", positive=True)
    if symbols()["w"] in formula.free_symbols:
        raise ValueError(f"a symbol Omega is a formula in k alone, got {text!r}")
    start = sympy.limit(formula, symbols()["k"], 0, "+")
    if not start.is_finite:
        raise ValueError(f"{text!r} is not finite at k = 0, where a symbol must be")
    omega = sympy.powdenest((formula - start).subs(symbols()["k"], sympy.sqrt(lam)))
    direct, slope = _function(lam, omega), _function(lam, sympy.diff(omega, lam))
    exact = numerical(formula - start, {})
    with mpmath.workdps(60):
        at = [float(mpmath.re(exact(mpmath.sqrt(mpmath.mpf(v))))) for v in _GRID.tolist()]
    known = torch.tensor(at, dtype=torch.float64)
    wrong = ~((direct(_GRID) - known).abs() <= _ACCURATE * known.abs())
    power = omega.as_independent(lam)[1]
    index = float(power.as_base_exp()[1]) if power.as_base_exp()[0] == lam else None
    drift = sympy.limit(omega / lam, lam, sympy.oo)
    if not drift.is_finite:
        raise ValueError(f"{text!r} grows faster than k^2, so it is no Bernstein function")
    rest = _function(lam, sympy.expand(omega - drift * lam)) if drift != 0 and index is None else None
    least = float(_GRID[wrong].max() * 1.01) if bool(wrong.any()) else 0.0
    made = _Compiled(direct, slope, least, _edge(exact), index, float(drift), rest)
    off = (made.gathered(_GRID[wrong]) - known[wrong]).abs()
    if not bool((off <= 10 * _ACCURATE * known[wrong].abs()).all()):
        k = float(_GRID[wrong].max()) ** 0.5
        raise ValueError(
            f"{text!r} does not give 12 digits at k = {k:.3g}; write it without differences of near numbers, and "
            "without powers that overflow"
        )
    return made


def _edge(exact: Callable[[Any], Any]) -> float:
    """How far down the negative axis of `lam` the function stays real and concave; 0 where it never ceases to."""
    with mpmath.workdps(40):
        place, value, slope = mpmath.mpf(0), mpmath.mpf(0), mpmath.mpf(0)

        def goes_on(x: float) -> tuple[bool, Any]:
            """Whether it does from `place` to `x`; beyond a pole it comes back from above."""
            try:
                found = exact(mpmath.mpc(0, mpmath.sqrt(mpmath.mpf(x))))
            except ValueError:  # at a pole
                return False, None
            is_real = abs(mpmath.im(found)) <= 1e-30 * abs(found)
            least = value + slope * (x - place)
            return bool(is_real and mpmath.re(found) <= least * (1 - mpmath.mpf(_TIE))), mpmath.re(found)

        for high in _GRID.tolist():
            good, found = goes_on(high)
            if not good:
                break
            slope, value, place = (found - value) / (high - place), found, mpmath.mpf(high)
        else:
            return 0.0
        low = float(place)
        if low == 0:
            return 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if goes_on(middle)[0] else (low, middle)
        return low


def _function(lam: sympy.Symbol, formula: sympy.Expr) -> Callable[[Tensor], Tensor]:
    """The formula on tensors, complex ones included; what is near 1 for long waves by `log1p`, which keeps digits."""
    names = {"re": "real", "im": "imag"}
    known = {name: getattr(torch, names.get(name, name.lower())) for name in (*FUNCTIONS, "log1p")}

    def logarithm(a: sympy.Expr) -> sympy.Expr:
        return log1p(sympy.expand(a - 1)) if a.subs(lam, 0) == 1 else sympy.log(a)

    def number(e: sympy.Expr) -> bool:  # torch has no functions of plain numbers, such as sqrt(2)
        return bool(e.is_number and e.is_real and not e.is_Rational)

    formula = formula.replace(number, lambda e: e.evalf(17)).replace(sympy.log, logarithm)
    found = sympy.lambdify(lam, formula, [known])
    return lambda z: torch.as_tensor(found(z), dtype=z.dtype).expand(z.shape)
