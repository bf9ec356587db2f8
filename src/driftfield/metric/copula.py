"""The baseline that every model of tables must beat: each column's own law, joined by a Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from ..column.base import Column, Constant, Floats
from ..column.infer import column_of
from ..rng import normal, uniform


@dataclass(frozen=True, eq=False)
class GaussianCopula:
    """Columns whose laws are those of the data, and whose normal scores have the `correlation` `(C, C)` of the data's.

    Exact where the data are a Gaussian seen through one increasing function for each column; any other dependence is
    lost. A value that many rows share, such as a category, is spread evenly over the levels that it owns.
    Source: Nelsen 2006, Sec. 2.3. [nelsen2006copulas]
    """

    columns: tuple[Column, ...]
    correlation: Floats

    @classmethod
    def fit(cls, frame: Any, rng: torch.Generator, *, categories: Sequence[str] = ()) -> Self:
        """The copula of a DataFrame's rows; `categories` are columns to take as such though they hold numbers.

        The law of a column is that of all its cells, the correlation that of rows without a missing one.
        Raises: ValueError for a column that cannot be used (see `column_of`), or fewer whole rows than columns and 2.
        """
        every = np.arange(len(frame))
        columns = tuple(column_of(frame[name], every, category=name in categories) for name in frame.columns)
        scores = np.stack([_scores(c, frame[c.name], rng) for c in columns if not isinstance(c, Constant)], 1)
        whole = scores[~np.isnan(scores).any(1)]
        if len(whole) < scores.shape[1] + 2:
            raise ValueError(
                f"only {len(whole)} of {len(frame)} rows have no missing cell, too few for {scores.shape[1]} columns"
            )
        return cls(columns, np.atleast_2d(np.corrcoef(whole, rowvar=False)))

    def sample(self, n: int, rng: torch.Generator) -> Any:
        """A DataFrame of `n` rows, with the columns and dtypes of the one it was fitted to."""
        import pandas as pd

        noise = normal(torch.empty(n, len(self.correlation), dtype=torch.float64), rng).numpy()
        values, vectors = np.linalg.eigh(self.correlation)
        root = vectors * np.sqrt(values.clip(min=0))  # a correlation of whole rows has none below 0 but by rounding
        levels = iter(ndtr(noise @ root.T).T)
        rows = {c.name: c.series(c.at(np.zeros(n) if isinstance(c, Constant) else next(levels))) for c in self.columns}
        return pd.DataFrame(rows, index=pd.RangeIndex(n))


def _scores(column: Column, values: Any, rng: torch.Generator) -> Floats:
    low, high = column.levels(values)
    u = uniform(torch.empty(len(low), dtype=torch.float64), rng).numpy()
    scores: Floats = ndtri(low + u * (high - low))
    return scores
