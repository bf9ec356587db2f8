"""Dispersion relations: formulas read from text, and whether a branch forgets the data, by algebra and by numbers.

A branch `omega(k)` forgets if `Im omega(k) < Im omega(0)` for every `k > 0`: each mode then fades faster than the
constant one, and the overlap of the densities of any two sources goes to 1.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import mpmath
import sympy

FUNCTIONS = ("sqrt", "exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "Abs", "re", "im")
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LONGEST, _DEEPEST, _PARTS = 1000, 50, 300  # characters of a formula, levels, and parts with powers written out
_LARGEST = 10**300  # number in a formula, above and below the line
_HIGHEST = 12  # degree in w of a relation that is solved
_STEEP = ("exp", "sinh", "cosh")
_SENSITIVE = (*_STEEP, "sin", "cos", "tan", "tanh")  # functions that need all digits before the point
_DIGITS = 60  # of the arithmetic of the numerical tests: nothing is lost to cancellation
_MOST = 3000  # digits, where those do not tell a number from 1
DECADES = 6  # of wavenumbers, on either side of 1, that the numerical tests look at


@lru_cache(maxsize=1)
def symbols() -> dict[str, sympy.Symbol]:
    """The positive symbols of formulas: the wavenumber `k` and the parameters of the catalogue, by name; and `w`."""
    named = {"k": "k", "mass": "m", "wavenumber": "k0", "damping": "epsilon", "a": "a", "b": "b", "beta": "beta"}
    return {name: sympy.Symbol(letter, positive=True) for name, letter in named.items()} | {"w": sympy.Symbol("w")}


def parsed(text: str) -> sympy.Expr:
    """The formula `text` in sympy: numbers, `k` (and `w`, the frequency), `I`, `pi`, `+ - * / **` and functions.

    Nothing is executed: only these are understood.
    Raises: ValueError for anything else, naming it; and for what would take forever: more than 1000 characters, 50
            levels or 300 parts (powers written out as products), numbers beyond 1e300, exponentials of exponentials.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"a formula has up to {_LONGEST} characters, got {len(text)}; simplify it: {text[:40]!r}...")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is not a formula in k, such as 'k**2' or 'sqrt(k**2 + 1) - 1'") from None
    parts = _parts(tree, text)
    if parts > _PARTS:
        raise ValueError(f"{text!r} has {parts:g} parts with its powers written out as products, more than {_PARTS}")
    found = _expression(tree, text)
    if not isinstance(found, sympy.Expr) or found.has(sympy.zoo, sympy.nan, sympy.oo):
        raise ValueError(f"{text!r} is not a finite formula in k")
    if any(max(abs(number.p), number.q) > _LARGEST for number in found.atoms(sympy.Rational)):
        raise ValueError(f"{text!r} has numbers beyond 1e300, which cannot be computed with; choose other units")
    return found


def _parts(node: ast.AST, text: str, depth: int = 0) -> float:
    """How many parts a formula has once its powers are written out: known before anything is computed."""
    if depth > _DEEPEST:
        raise ValueError(f"a formula nests up to {_DEEPEST} levels (a sum: as many terms); simplify {text[:40]!r}...")
    parts = [_parts(c, text, depth + 1) for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)]
    inner: ast.AST | None = None  # of which all digits before the point are needed
    match node:
        case ast.BinOp(op=ast.Pow(), right=exponent) if not _varies(exponent) and parts[1] <= _PARTS:
            return parts[0] * max(1.0, _size(_expression(exponent, text))) + parts[1]
        case ast.BinOp(op=ast.Pow(), right=exponent):
            inner = exponent
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in _SENSITIVE:
            inner = argument
    if inner is not None and any(map(_explodes, ast.walk(inner))):
        raise ValueError(f"{text!r} has an exponential inside another function, which is out of the range of numbers")
    return 1 + sum(parts)


def _varies(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Name) and n.id in ("k", "w") for n in ast.walk(node))


def _explodes(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(op=ast.Pow(), right=exponent):
            return _varies(exponent)
        case ast.Call(func=ast.Name(id=name)):
            return name in _STEEP
    return False


def _size(number: Any) -> float:
    try:
        return abs(float(abs(number)))
    except (TypeError, OverflowError):  # what has no size in range, or is no number
        return math.inf


def _expression(node: ast.AST, text: str) -> Any:
    names: dict[str, Any] = {"k": symbols()["k"], "w": symbols()["w"], "I": sympy.I, "i": sympy.I}
    names |= {"pi": sympy.pi, "E": sympy.E}
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return sympy.nsimplify(number, rational=True)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_expression(left, text), _expression(right, text))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_expression(operand, text)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _expression(operand, text)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in (*FUNCTIONS, "abs"):
            return getattr(sympy, "Abs" if name == "abs" else name)(_expression(argument, text))
    known = f"numbers, k, w, I, pi, + - * / ** and {', '.join(FUNCTIONS)}"
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} means nothing here; a formula in k is made of {known}")


def solved(relation: sympy.Expr) -> tuple[sympy.Expr, ...]:
    """The branches `w = omega(k)` of `relation = 0`. Raises: ValueError where sympy finds none, or would take long."""
    w = symbols()["w"]
    try:
        polynomial = sympy.Poly(relation, w)
    except sympy.PolynomialError:
        polynomial = sympy.Poly(0, w)
    if polynomial.degree() > _HIGHEST:
        raise ValueError(
            f"{relation} = 0 is of degree {polynomial.degree()} in w, and is solved up to {_HIGHEST}; give the "
            "branches omega(k) themselves"
        )
    roots = sympy.roots(polynomial) if polynomial else {}
    found = tuple(sympy.simplify(root) for root in roots)
    if not found:
        raise ValueError(f"{relation} = 0 cannot be solved for w by formulas; give the branches omega(k) themselves")
    return found


def forgets(branch: sympy.Expr) -> bool | None:
    """Whether `Im omega(k) < Im omega(0)` for all `k > 0`, by algebra; None where sympy cannot tell.

    The half-line is cut where a root in the formula changes from real to imaginary; in each piece the sign of the
    slope of `Im omega` is asked for. Whatever the values of the (positive) parameters: the answer holds for all.
    """
    k, x = symbols()["k"], sympy.Symbol("x", positive=True)
    falling = False
    for low, high in _pieces(branch, k):
        inside = low + x if high is None else low + (high - low) * x / (1 + x)
        imaginary = sympy.im(_settled(branch.subs(k, inside)))
        slope = _sign(sympy.diff(imaginary, x))
        if slope is None or imaginary.has(sympy.im, sympy.re, sympy.arg):
            return None
        if slope > 0 or (slope == 0 and not falling):
            return False
        falling = True
    return falling


def _pieces(branch: sympy.Expr, k: sympy.Symbol) -> list[tuple[Any, Any]]:
    """The intervals of `k` between branch points."""
    radicands = {p.base for p in branch.atoms(sympy.Pow) if p.exp.is_Rational and not p.exp.is_Integer}
    cuts = {r for base in radicands if base.has(k) for r in sympy.solve(base, k) if r.is_positive}
    if len(cuts) > 1 and not all(c.is_number for c in cuts):
        return [(sympy.Integer(0), None)]
    edges = [sympy.Integer(0), *(sorted(cuts, key=float) if len(cuts) > 1 else cuts), None]
    return list(pairwise(edges))


def _settled(expression: sympy.Expr) -> sympy.Expr:
    """With what stands under a root factored, so that its sign is seen."""
    return expression.replace(
        lambda e: isinstance(e, sympy.Pow) and e.exp.is_Rational and not e.exp.is_Integer,
        lambda e: sympy.factor(sympy.together(e.base)) ** e.exp,
    )


def _sign(expression: sympy.Expr) -> int | None:
    for form in (None, sympy.factor, sympy.simplify):
        e = expression if form is None else form(expression)
        if e.is_zero:
            return 0
        if e.is_negative:
            return -1
        if e.is_positive:
            return 1
    return None


def settles(omega: Callable[[Any], Any], upward: bool, first: float, rounding: float) -> bool:
    """Whether `omega` has a finite limit, by its values as the exponent of `k` doubles from `10^first`, or `10^-first`.

    Their differences halve at least, also for a limit reached as slowly as `1 / log k`; to a logarithm of a logarithm
    they stay as they are. In 60-digit arithmetic, with a relative error of `omega` up to `rounding`.
    """
    with mpmath.workdps(_DIGITS):
        exponents = [mpmath.mpf(first) * 2**j * (1 if upward else -1) for j in range(3)]
        early, middle, late = (omega(mpmath.mpf(10) ** e) for e in exponents)
        return bool(abs(late - middle) <= 0.7 * abs(middle - early) + rounding * abs(late))


def forgets_at(omega: Callable[[Any], Any], decades: int = DECADES, points: int = 97) -> bool:
    """Whether `Im omega(k) < Im omega(0)` at `points` wavenumbers, `decades` on either side of 1; 60-digit arithmetic.

    `omega` takes and returns numbers of mpmath.
    """
    with mpmath.workdps(_DIGITS):
        least = mpmath.im(omega(mpmath.mpf(10) ** -_DIGITS))
        for j in range(points):
            k = mpmath.mpf(10) ** (mpmath.mpf(2 * decades * j) / (points - 1) - decades)
            if not mpmath.im(omega(k)) < least:
                return False
    return True


def numerical(branch: sympy.Expr, values: dict[sympy.Symbol, Any]) -> Callable[[Any], Any]:
    """The branch as a function of numbers of mpmath, its parameters as given.

    Raises: ValueError where it divides by 0, also with so many digits that a difference is 0 only if it is none.
    """
    exact = {s: sympy.nsimplify(v, rational=True) for s, v in values.items()}
    made: Callable[[Any], Any] = sympy.lambdify(symbols()["k"], branch.subs(exact), "mpmath")

    def found(k: Any) -> Any:
        try:
            return made(k)
        except ZeroDivisionError:
            with mpmath.workdps(_MOST):
                try:
                    return made(k)
                except ZeroDivisionError:
                    at = f"k = {mpmath.nstr(k, 3)}"
                    raise ValueError(f"the relation {branch} divides by 0 at {at}; it must be finite there") from None

    return found


def bernstein(
    symbol: Callable[[Any], Any], order: int = 10, points: int = 49, rounding: float = 10.0 ** (5 - _DIGITS)
) -> str | None:
    """Why `Omega` as a function of `lambda = k^2` is no Bernstein function, or None where nothing speaks against it.

    A kernel `exp(-t Omega)` is a density at every `t` and in every dimension if and only if it is one: `Omega >= 0`,
    and its derivatives alternate in sign. Divided differences have the signs of derivatives, so a wrong one is a proof
    against; right ones up to `order`, over twelve decades, are strong evidence for. In 60-digit arithmetic.
    `symbol` is `Omega(k)` on numbers of mpmath, with a relative error up to `rounding`.
    Source: Schilling et al. 2012, Thm. 3.2. [schilling2012bernstein]
    """
    with mpmath.workdps(_DIGITS):
        nodes = [mpmath.mpf(10) ** (mpmath.mpf(DECADES * j) / (points - 1) * 2 - DECADES) for j in range(points)]
        with mpmath.workdps(3 * _DIGITS):  # a symbol may be a difference, such as sqrt(k^2 + m^2) - m
            column = [symbol(mpmath.sqrt(node)) for node in nodes]
        if any(abs(mpmath.im(v)) > 100 * rounding * abs(v) for v in column):
            return "Omega is not real"
        column = [mpmath.re(v) for v in column]
        if any(v < 0 for v in column):
            return "Omega is negative somewhere"
        noise = [abs(v) * rounding for v in column]
        for m in range(1, order + 1):
            widths = [nodes[i + m] - nodes[i] for i in range(points - m)]
            column = [(column[i + 1] - column[i]) / w for i, w in enumerate(widths)]
            noise = [(noise[i + 1] + noise[i]) / w for i, w in enumerate(widths)]
            wrong = [i for i, v in enumerate(column) if v * (-1) ** (m - 1) < -noise[i]]
            if wrong:
                at = float(nodes[wrong[0]])
                return f"derivative {m} of Omega in lambda = k^2 has the wrong sign near lambda = {at:.2g}"
    return None
