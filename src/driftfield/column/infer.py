"""From a series of values to the column it is."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from .base import Category, Column, Constant, Floats, Number

MOST_CATEGORIES = 50  # distinct texts that are taken for categories unasked
_KNOTS = 256  # levels, evenly spaced as normal scores, at which a number's law is kept; and 1 / the mass of an atom
_DECIMALS = 6
_EXACT = 2**52  # steps of a grid up to here have exact halves between them in float64


def column_of(series: Any, train: npt.NDArray[np.int64], *, category: bool = False) -> Column:
    """The column that a pandas series is, its law taken from the rows `train`.

    Booleans, pandas' categories and text of up to 50 distinct values are a `Category`, and anything is with
    `category`; numbers are a `Number`; one value alone is a `Constant`.
    Raises: ValueError naming the column: no values, infinite ones, numbers mixed with text, too many texts, dates.
    """
    import pandas as pd

    name, dtype = str(series.name), str(series.dtype)
    kind = series.dtype
    present, learned = series.dropna(), series.iloc[train].dropna()
    if not len(learned):
        raise ValueError(f"the column {name!r} holds no values; leave it out with --set data.drop={name}")
    if kind.kind == "O" and (odd := next((v for v in present if not isinstance(v, Hashable)), None)) is not None:
        raise ValueError(
            f"the column {name!r} holds {type(odd).__name__} values, which are neither numbers nor text; make columns "
            f"of what is in them, or leave it out with --set data.drop={name}"
        )
    known = [_plain(v) for v in sorted(present.unique(), key=lambda v: (str(type(v)), v))]
    if isinstance(kind, pd.CategoricalDtype):
        known, dtype = [_plain(v) for v in kind.categories if v in set(present)], "category"
    if learned.nunique() == 1:
        return Constant(name, dtype, _plain(learned.iloc[0]))
    number = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
    if number and not category:
        return _number(learned, present, name, dtype)
    text = all(isinstance(v, str) for v in known)
    if not (category or text or all(isinstance(v, bool) for v in known) or dtype == "category"):
        raise ValueError(
            f"the column {name!r} holds {type(known[0]).__name__} values, which are neither numbers nor text; turn it "
            f"into numbers, leave it out with --set data.drop={name}, or encode it with --set data.categories={name}"
        )
    if not category and dtype != "category" and text:
        _check_text(present, known, name)
    counts = learned.astype(object).value_counts()
    ordered = isinstance(kind, pd.CategoricalDtype) and bool(kind.ordered)
    return Category(name, dtype, tuple(known), tuple(int(counts.get(v, 0)) for v in known), ordered)


def _check_text(present: Any, known: list[Any], name: str) -> None:
    import pandas as pd

    strange = pd.to_numeric(pd.Series(known, dtype=object), errors="coerce").isna()
    if strange.any() and not strange.all():
        odd = next(v for v, bad in zip(known, strange, strict=True) if bad)
        row = int(np.flatnonzero((present == odd).to_numpy())[0])
        raise ValueError(
            f"the column {name!r} mixes numbers and text (row {present.index[row] + 1} holds {odd!r}); correct it (a "
            f"missing number is an empty cell or NaN), leave it out with --set data.drop={name}, or encode it with "
            f"--set data.categories={name}"
        )
    if len(known) > MOST_CATEGORIES:
        raise ValueError(
            f"the text column {name!r} has {len(known)} distinct values, too many to be categories unasked; leave it "
            f"out with --set data.drop={name}, or encode it with --set data.categories={name}"
        )


def _number(learned: Any, present: Any, name: str, dtype: str) -> Number:
    values, every = learned.to_numpy(), present.to_numpy()
    infinite = int(np.isinf(every.astype(np.float64)).sum())
    if infinite:
        raise ValueError(f"the column {name!r} holds {infinite} infinite values; remove or replace them")
    decimals = next((d for d in range(_DECIMALS + 1) if np.array_equal(np.round(every, d), every)), None)
    values = values.astype(np.float64)
    if decimals is not None:
        steps = np.rint(values * 10.0**decimals)
        if np.abs(steps).max() < _EXACT:
            return Number(name, dtype, len(values), *_grid_knots(steps), decimals)
        if every.dtype.kind in "iu":
            raise ValueError(
                f"the column {name!r} holds integers beyond 2^52, such as identifiers are; leave it out with "
                f"--set data.drop={name}"
            )
    return Number(name, dtype, len(values), *_knots(values), None)


def _grid_knots(steps: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The borders of the steps that values lie on, and how many values are below each."""
    v, c = np.unique(steps, return_counts=True)
    upto = np.cumsum(c)
    knots = np.stack((v - 0.5, v + 0.5), 1).ravel()
    counts = np.stack((upto - c, upto), 1).ravel().astype(np.float64)
    new = np.concatenate(([True], np.diff(knots) > 0))  # neighbours share a border
    heavy = np.repeat(c > max(1, len(steps) / _KNOTS), 2)
    heavy[:-1] |= ~new[1:] & heavy[1:]
    return _thinned(knots[new], counts[new], heavy[new])


def _knots(values: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Real values, each at half of its own rows; one that many rows share twice, before and after them."""
    v, c = np.unique(values, return_counts=True)
    upto = np.cumsum(c)
    heavy = c > max(1, len(values) / _KNOTS)
    low, high = np.where(heavy, upto - c, upto - c / 2), np.where(heavy, upto, upto - c / 2)
    knots, counts = np.repeat(v, 2), np.stack((low, high), 1).ravel()
    keep = np.concatenate(([True], (np.diff(knots) > 0) | (np.diff(counts) > 0)))
    return _thinned(knots[keep], counts[keep], np.repeat(heavy, 2)[keep])


def _thinned(knots: Floats, counts: Floats, keep: npt.NDArray[np.bool_]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if len(knots) > 2 * _KNOTS:
        keep = keep.copy()
        far = -ndtri(0.5 / counts[-1])
        wanted = ndtr(np.linspace(-far, far, _KNOTS)) * counts[-1]
        keep[np.searchsorted(counts, wanted).clip(0, len(counts) - 1)] = True
        keep[[0, -1]] = True
        knots, counts = knots[keep], counts[keep]
    return tuple(knots.tolist()), tuple(counts.tolist())


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
