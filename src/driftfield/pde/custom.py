"""An equation of one's own, from its dispersion relation or its symbol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import mpmath
import numpy as np
import sympy
import torch
from torch import Tensor

from ..process.base import Process
from .base import Flow, Judgement
from .dispersion import DECADES, bernstein, forgets_at, numerical, parsed, settles, solved, symbols
from .formula import Formula
from .parabolic import Fading


@dataclass(frozen=True)
class Custom(Fading):
    """An equation given by how its modes behave, held at unit mass: `p^ = exp(-t Omega)`, `Omega(0) = 0`, no births.

    Give one of
    `symbol`: `Omega(k)`, a formula such as "log(1 + k**2)";
    `dispersion`: a formula for `omega(k)` such as "-I*k**2", several in a list, or one in `w` and `k` that is 0 on all
    branches, such as "w**2 + k**2". Of the branches the first that fades is kept, `Omega = i (omega(k) - omega(0))`.
    A formula is text (see `parsed`), an expression of sympy in a symbol named k, or a Python function of a complex
    NumPy array, tested in float64 only. A branch that oscillates stands for itself and its mirror, `-conj(omega)`.
    Raises: ValueError for what is not understood, or not finite; from `process` for what does not generate.
    Source: the criterion of Liu et al. 2023; subordination, Schilling et al. 2012. [liu2023genphys]
            [schilling2012bernstein]
    """

    symbol: Any = None
    dispersion: Any = None
    name: ClassVar[str] = "custom"
    _branches: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    _rest: complex = field(init=False, repr=False, compare=False)  # omega(0); NaN where it is not finite
    _judged: Judgement = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.symbol is None) == (self.dispersion is None):
            raise ValueError("give a symbol Omega(k) or a dispersion relation omega(k), one of the two")
        found = _fading(self.symbol) if self.dispersion is None else _branches_of(self.dispersion)
        kept = [i for i, b in enumerate(found) if forgets_at(_exact(b), 3 if _is_function(b) else DECADES)]
        order = [*kept[:1], *(i for i in range(len(found)) if i not in kept[:1])]
        object.__setattr__(self, "_branches", tuple(found[i] for i in order))
        object.__setattr__(self, "_rest", _rest(self._branches[0]))
        object.__setattr__(self, "_judged", _judged(self._branches[0], self._rest, bool(kept)))

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    @property
    def flow(self) -> Flow:
        given = self.symbol if self.dispersion is None else self.dispersion
        text = getattr(given, "__name__", None) or str(given)
        text = f"phi_t + Omega phi = 0, Omega = {text}" if self.dispersion is None else f"omega: {text}"
        return Flow(text, "phi", "-grad(Omega / k^2 phi) / phi", "0")

    @property
    def judgement(self) -> Judgement:
        return self._judged

    @property
    def branches(self) -> tuple[sympy.Expr, ...]:
        """Raises: ValueError where the relation was given as a Python function."""
        if any(map(_is_function, self._branches)):
            raise ValueError("this relation is a Python function, which has no formula; give text to see its branches")
        return self._branches

    def omega(self, k: Tensor) -> Tensor:
        at = k.double().to(torch.complex128).numpy()
        return torch.stack(
            [torch.as_tensor(_array(b)(at), dtype=torch.complex128).expand(k.shape) for b in self._branches]
        )

    def _relative(self, k: Tensor) -> Tensor:
        """`omega(k) - omega(0)` of the branch that is kept. Raises: ValueError where `omega(0)` is not finite."""
        if self._rest != self._rest:
            raise ValueError(f"the custom equation has no density to compute: {self.reason}")
        return self.omega(k)[0] - self._rest

    @property
    def sharp(self) -> bool:  # type: ignore[override]
        """Whether the branch that is kept oscillates, so that it may travel in fronts, or is bounded: an atom stays."""
        return not self.additive or _bounded(self._branches[0])

    @property
    def additive(self) -> bool:  # type: ignore[override]
        """Whether the branch that is kept does not oscillate."""
        return bool((self._relative(torch.logspace(-3, 3, 25, dtype=torch.float64)).real == 0).all())

    def fade(self, k: Tensor) -> Tensor:
        return -self._relative(k).imag

    def spectrum(self, k: Tensor, t: float) -> tuple[Tensor, Tensor]:
        omega = self._relative(k)
        falls, turns = (omega.imag * t).exp(), omega.real
        p = falls * (turns * t).cos()
        return (turns * falls * (turns * t).sin() - omega.imag * p) / k.square(), p

    def process(self) -> Process:
        """`driftfield.Subordinated`: its time is this equation's.

        Raises: ValueError where the equation does not generate, and for a Python function, which no file can keep.
        """
        if self.verdict == "no":
            raise self.unfit()
        if _is_function(self._branches[0]):
            raise ValueError("a process is kept in a file as text, so give the relation as a formula, not a function")
        return self.made("Subordinated", {"symbol": Formula(str(sympy.I * self._branches[0]))})


def _formula(given: Any) -> Any:
    """Text or sympy as an expression in our symbols; a function as it is."""
    if isinstance(given, str):
        return parsed(given)
    if hasattr(given, "free_symbols"):
        ours = {s.name: s for s in (symbols()["k"], symbols()["w"])}
        strange = sorted(s.name for s in given.free_symbols if s.name not in ours)
        if strange:
            raise ValueError(
                f"the formula {given} has the symbols {', '.join(strange)}; put numbers for all but k (and w)"
            )
        return given.subs({s: ours[s.name] for s in given.free_symbols})
    if callable(given):
        return given
    raise ValueError(f"a relation is text, an expression of sympy or a Python function, got {type(given).__name__}")


def _is_function(branch: Any) -> bool:
    return not hasattr(branch, "free_symbols")


def _fading(symbol: Any) -> list[Any]:
    found = _formula(symbol)
    if not _is_function(found):
        if symbols()["w"] in found.free_symbols:
            raise ValueError(f"a symbol Omega is a formula in k alone, got {symbol}; a relation in w is a dispersion")
        return [-sympy.I * found]
    return [lambda k: -1j * np.asarray(found(k))]


def _branches_of(dispersion: Any) -> list[Any]:
    many = isinstance(dispersion, Sequence) and not isinstance(dispersion, str)
    found: list[Any] = []
    for given in dispersion if many else [dispersion]:
        formula = _formula(given)
        implicit = not _is_function(formula) and symbols()["w"] in formula.free_symbols
        found += solved(formula) if implicit else [formula]
    if not found:
        raise ValueError("a dispersion relation needs at least one branch, got an empty list")
    return found


def _array(branch: Any) -> Callable[[Any], Any]:
    """The branch as a function of complex NumPy arrays."""
    if _is_function(branch):
        return branch  # type: ignore[no-any-return]
    found: Callable[[Any], Any] = sympy.lambdify(symbols()["k"], branch, "numpy")
    return found


def _exact(branch: Any) -> Callable[[Any], Any]:
    """The branch as a function of numbers of mpmath: of 60 digits, or for a Python function of 16."""
    if not _is_function(branch):
        return numerical(branch, {})

    def found(k: Any) -> Any:
        value = np.asarray(branch(np.asarray(complex(k)))).item()
        if not np.isfinite(value):
            raise ValueError(f"the relation is {value} at k = {float(k):g}; it must be finite at every k > 0")
        return mpmath.mpmathify(value)

    return found


def _settles(branch: Any, upward: bool) -> bool:
    return settles(_exact(branch), upward, *((4, 1e-13) if _is_function(branch) else (150, 1e-50)))


def _bounded(branch: Any) -> bool:
    return _settles(branch, upward=True)


def _rest(branch: Any) -> complex:
    """`omega(0)`, NaN where there is no finite limit."""
    if not _settles(branch, upward=False):
        return complex("nan")
    with mpmath.workdps(60):
        return complex(_exact(branch)(mpmath.mpf(10) ** (-16 if _is_function(branch) else -600)))


def _outgrows(exact: Callable[[Any], Any]) -> bool:
    """Whether the relation grows faster than `k^2` where no factor of its terms can hide it."""
    with mpmath.workdps(60):
        early, late = (abs(exact(mpmath.mpf(10) ** e)) / mpmath.mpf(10) ** (2 * e) for e in (100, 150))
        return bool(late > 2 * early)


def _judged(branch: Any, rest: complex, fades: bool) -> Judgement:
    """The verdict on the branch that is kept."""
    if rest != rest:
        return Judgement("no", "", "Omega(k) has no finite limit as k goes to 0, so that the mass has no value")
    if not fades:
        return Judgement(
            "no", "", "no branch of its dispersion relation fades: Im omega(k) < Im omega(0) fails at some k > 0"
        )
    by_hand, exact = _is_function(branch), _exact(branch)
    with mpmath.workdps(180):  # as exact as what it is subtracted from
        least = exact(mpmath.mpf(10) ** -180)
    symbol = lambda k: 1j * (exact(k) - least)
    # a function in float64 bears fewer differences, each with its rounding
    wrong = bernstein(symbol, 5, 25, 1e-13) if by_hand else bernstein(symbol)
    if wrong is not None:
        return Judgement("no", "", f"it forgets the data, but its kernel is no density in every dimension: {wrong}")
    if not by_hand and _outgrows(exact):
        return Judgement("no", "", "Omega(k) outgrows k^2 as k grows, so that its kernel has negative values")
    if _bounded(branch):
        return Judgement("no", "", "Omega(k) is bounded as k grows, so that an atom stays at each datum: no density")
    return Judgement("yes", "", "every mode fades, and the exponent passes the test of a Bernstein function of k^2")
