"""The baseline that every model of tables must beat: each column's own law, joined by a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from ..column.base import Column, Constant, Floats
from ..column.infer import column_of
from ..rng import normal

_STEPS = 128  # evenly spaced as normal scores, to which the ranks of a column are rounded
_NODE, _WEIGHT = np.polynomial.legendre.leggauss(64)  # within 1e-8 of the integral below, at any correlation


@dataclass(frozen=True, eq=False)
class GaussianCopula:
    """Columns whose laws are those of the data, joined by a normal vector of the `correlation` `(C, C)`.

    Exact where the data are a Gaussian seen through one increasing function for each column, steps included, as of
    integers and categories; any other dependence is lost. Source: Nelsen 2006, Sec. 2.3. [nelsen2006copulas]
    """

    columns: tuple[Column, ...]
    correlation: Floats

    @classmethod
    def fit(cls, frame: Any, *, categories: Sequence[str] = ()) -> Self:
        """The copula of a DataFrame's rows; `categories` are columns to take as such though they hold numbers.

        The law of a column is that of all its cells, the correlation that of rows without a missing one: of each two
        columns the one beneath (`latent_correlation`), of all the nearest matrix that a correlation can be.
        Raises: ValueError for a column that cannot be used (see `column_of`), or fewer whole rows than columns and 2.
        """
        every = np.arange(len(frame))
        columns = tuple(column_of(frame[name], every, category=name in categories) for name in frame.columns)
        varying = [c for c in columns if not isinstance(c, Constant)]
        levels = np.stack([np.stack(c.levels(frame[c.name])).mean(0) for c in varying], 1)
        whole = levels[~np.isnan(levels).any(1)]
        if len(whole) < len(varying) + 2:
            raise ValueError(
                f"only {len(whole)} of {len(frame)} rows have no missing cell, too few for {len(varying)} columns"
            )
        steps = [_steps(x) for x in whole.T]
        found = np.eye(len(steps))
        for i, j in combinations(range(len(steps)), 2):
            found[i, j] = found[j, i] = _beneath(steps[i], steps[j])
        return cls(columns, nearest_correlation(found))

    def sample(self, n: int, rng: torch.Generator) -> Any:
        """A DataFrame of `n` rows, with the columns and dtypes of the one it was fitted to."""
        import pandas as pd

        noise = normal(torch.empty(n, len(self.correlation), dtype=torch.float64), rng).numpy()
        values, vectors = np.linalg.eigh(self.correlation)
        root = vectors * np.sqrt(values.clip(min=0))  # none below 0 but by the 1e-9 of the nearest
        levels = iter(ndtr(noise @ root.T).T)
        rows = {c.name: c.series(c.at(np.zeros(n) if isinstance(c, Constant) else next(levels))) for c in self.columns}
        return pd.DataFrame(rows, index=pd.RangeIndex(n))


def latent_correlation(a: Floats, b: Floats) -> float:
    """The correlation, from -1 to 1, of two standard normals of which increasing functions are `a` and `b`, `(n,)`.

    The functions may have steps: ties, which take away from the correlation of ranks, take nothing from this one. Where
    two normals do not go so far together as the rows do, it is 1 or -1; where `a` or `b` is constant, 0.
    """
    return _beneath(_steps(a), _steps(b))


def nearest_correlation(matrix: Floats) -> Floats:
    """The correlation matrix that is nearest, in the Frobenius norm, to a symmetric one with ones on its diagonal.

    Source: Higham 2002, Algorithm 3.3, until its two projections agree to 1e-9. [higham2002nearest]
    """
    now, correction = matrix, np.zeros_like(matrix)
    while True:
        values, vectors = np.linalg.eigh(now - correction)
        positive: Floats = (vectors * values.clip(min=0)) @ vectors.T
        correction += positive - now
        now = np.array(positive)
        np.fill_diagonal(now, 1.0)
        if np.abs(now - positive).max() < 1e-9:
            return now


def _steps(x: Floats) -> tuple[Floats, Floats, Floats]:
    """A column as steps of a standard normal: their edges `(k - 1,)`, the rise at each, and the height of every row.

    Rows of one value own the interval of the normal that their ranks do, and its mean there is their height; values in
    one of `_STEPS` parts of the line are one.
    """
    n = len(x)
    part = np.floor(_STEPS * (ndtri((rankdata(x) - 0.5) / n) / -ndtri(0.5 / n) + 1) / 2)
    _, step, count = np.unique(part, return_inverse=True, return_counts=True)
    edges = ndtri(np.cumsum(count)[:-1] / n)
    density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
    height = -np.diff(density, prepend=0.0, append=0.0) * n / count
    return edges, np.diff(height), height[step]


def _beneath(a: tuple[Floats, Floats, Floats], b: tuple[Floats, Floats, Floats]) -> float:
    """The correlation of two normals whose steps have the covariance of the rows' heights, found by its arcsine.

    The derivative of the probability beyond two edges by the correlation is the normal density there. Source:
    Plackett 1954. [plackett1954normal]
    """
    (x, up, u), (y, over, v) = a, b
    if not len(x) or not len(y):
        return 0.0
    wanted = float(u @ v) / len(u)

    def excess(angle: float) -> float:
        found = 0.0
        for t, weight in zip(angle * (_NODE + 1) / 2, _WEIGHT, strict=True):
            squares = x[:, None] ** 2 - 2 * math.sin(t) * x[:, None] * y + y**2
            found += weight * float(up @ np.exp(-squares / (2 * math.cos(t) ** 2)) @ over)
        return found * angle / (4 * math.pi) - wanted

    end = math.copysign(math.pi / 2, wanted)
    if excess(end) * end <= 0:
        return math.copysign(1.0, wanted)
    return math.sin(brentq(excess, min(0.0, end), max(0.0, end), xtol=1e-10))
