"""What a row of a table is, as the user has it and as a model sees it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..column.base import Category, Column, Number
from ..names import unknown
from ..network.embed import Condition
from .base import Info


@dataclass(frozen=True)
class TableInfo(Info):
    """What the columns of a table are: enough to write samples as rows of it.

    A row is one vector: a number enters by its normal score, the standard normal quantile of its level, a category as
    one coordinate for each value, 1 minus its share where it holds and minus its share where not; NaN where a cell is
    missing. `label` is the column that classes are, `parquet` whether the table was such a file.
    """

    columns: tuple[Column, ...] = ()
    label: str | None = None
    parquet: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(c.width for c in self.columns if c.width)

    def to_user(self, x: Tensor) -> Any:
        """Samples `(n, F)` of the model as a pandas DataFrame with the user's columns, dtypes and values.

        Raises: ValueError for a wrong shape, or samples that are NaN or infinite.
        """
        import pandas as pd

        self._check(x)
        parts = iter(torch.split(x.detach().cpu().double(), list(self.widths), 1))
        columns = {}
        for c in self.columns:
            if isinstance(c, Number):
                values = c.at(torch.special.ndtr(next(parts)[:, 0]).numpy())
            elif isinstance(c, Category):
                values = c.named((next(parts).numpy() + c.shares).argmax(1))
            else:
                values = c.at(np.zeros(len(x)))
            columns[c.name] = c.series(values)
        return pd.DataFrame(columns, index=pd.RangeIndex(len(x)))

    def to_model(self, values: Any) -> Tensor:
        """Rows of a DataFrame as float32 `(n, F)`: of a step of numbers the middle, of a missing cell NaN.

        Raises: ValueError for columns that are lacking, or values that they cannot hold.
        """
        lacking = [c.name for c in self.columns if c.width and c.name not in values]
        if lacking:
            raise ValueError(f"the table lacks the columns {', '.join(lacking)}")
        low, high = self.bounds(values)
        return self.between(low, high, torch.full_like(low, 0.5))

    def bounds(self, frame: Any) -> tuple[Tensor, Tensor]:
        """The two ends `(n, F)`, float64, of what the model may see of each row: levels of numbers, categories as is.

        A column that the frame lacks is missing.
        """
        lows, highs = [], []
        for c in (c for c in self.columns if c.width):
            if c.name not in frame:
                low = high = np.full((len(frame), c.width), np.nan)
            elif isinstance(c, Category):
                codes = c.codes(frame[c.name])
                low = high = np.where(codes[:, None] < 0, np.nan, np.eye(c.width)[codes] - c.shares)
            else:
                ends = c.levels(frame[c.name])
                low, high = ends[0][:, None], ends[1][:, None]
            lows.append(low)
            highs.append(high)
        return torch.from_numpy(np.concatenate(lows, 1)), torch.from_numpy(np.concatenate(highs, 1))

    def between(self, low: Tensor, high: Tensor, u: Tensor) -> Tensor:
        """The model's rows `(n, F)`, float32, a share `u` of the way between `bounds`."""
        numbers = [isinstance(c, Number) for c in self.columns if c.width]
        parts = torch.split(torch.lerp(low, high, u), list(self.widths), 1)
        scores = [torch.special.ndtri(part) if number else part for part, number in zip(parts, numbers, strict=True)]
        return torch.cat(scores, 1).float()

    def known(self, given: Any, n: int) -> Condition:
        """What a network is told when `n` rows are to hold the values of `given`, which is as in `filled`.

        Values beyond those of training are told as the nearest of them, with a warning.
        """
        frame = self._given(given, n)
        for c in self.columns:
            if isinstance(c, Number) and c.name in frame:
                least, most = c.range
                beyond = frame[c.name][(frame[c.name] < least) | (frame[c.name] > most)]
                if len(beyond):
                    warnings.warn(
                        f"{c.name}={beyond.iloc[0]:g} lies outside the training data, {least:g} to {most:g}; "
                        "what goes with it is taken from the nearest end",
                        stacklevel=2,
                    )
        low, high = self.bounds(frame)
        x = self.between(low, high, torch.full_like(low, 0.5))
        missing = x.isnan()
        return Condition(known=torch.where(missing, 0.0, x), mask=(~missing).float())

    def filled(self, x: Tensor, given: Any) -> Any:
        """Samples `(n, F)` as a DataFrame, with the given values exactly as they were given.

        `given` maps names of columns to a value, or to one for each of the `n` rows (a DataFrame does), where a
        missing one is left to the sample.
        Raises: ValueError for unknown columns, a wrong number of values, or values that a column cannot hold.
        """
        frame, given = self.to_user(x), self._given(given, len(x))
        for c in self.columns:
            if c.name in given:
                frame[c.name] = c.series(frame[c.name].astype(object).where(given[c.name].isna(), given[c.name]))
        return frame

    def _given(self, given: Any, n: int) -> Any:
        """Given values as a DataFrame of `n` rows: numbers as float64, categories as the column has them."""
        import pandas as pd

        if not isinstance(given, Mapping | pd.DataFrame):
            raise TypeError(f"given maps columns to values, got {type(given).__name__}")
        frame = pd.DataFrame(index=pd.RangeIndex(n))
        for name in given:
            c, values = column_named(self.columns, name), given[name]
            several = not isinstance(values, str) and np.ndim(values) > 0
            if several and len(values) != n:
                raise ValueError(f"column {name!r} is given {len(values)} values for {n} rows; give one or {n}")
            frame[name] = c.read(pd.Series(np.asarray(values, dtype=object) if several else [values] * n))
        return frame


def column_named(columns: tuple[Column, ...], name: Any) -> Column:
    """The column called `name`. Raises: ValueError for an unknown one, offering the nearest."""
    known = {c.name: c for c in columns}
    if name not in known:
        raise ValueError(unknown(str(name), known, "column"))
    return known[name]
