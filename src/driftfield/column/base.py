"""A column of a table as a law of one variable: between its values and their levels, the ranks from 0 to 1.

What a model of tables and a copula both need: a number becomes a level that is uniform on (0, 1) over the training
rows, whatever the column's shape, and a level becomes a value again. A value that many rows share owns an interval of
levels, and a draw from that interval is a uniform dequantisation (the distributional transform).
Source: Rueschendorf 2009, Sec. 2. [rueschendorf2009transform]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..names import unknown

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Column(ABC):
    """One column: its `name`, and the `dtype` it comes back in, as pandas writes it."""

    name: str
    dtype: str

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers a model sees of it."""

    @abstractmethod
    def levels(self, values: Any) -> tuple[Floats, Floats]:
        """The ends `(n,)` of the intervals of levels that a series of values owns, NaN where a value is missing.

        Raises: ValueError for values that the column cannot hold.
        """

    @abstractmethod
    def at(self, level: Floats) -> Any:
        """The values `(n,)` at levels in [0, 1]: the inverse of `levels`."""

    @abstractmethod
    def read(self, values: Any) -> Any:
        """A series of values, perhaps typed by a person, as the column holds them, missing ones as None or NaN.

        Raises: ValueError for a value that the column cannot hold.
        """

    def series(self, values: Any) -> Any:
        """Values `(n,)` as a pandas series with this column's name and dtype."""
        import pandas as pd

        return pd.Series(values, name=self.name).astype(self.dtype)


@dataclass(frozen=True)
class Number(Column):
    """A column of numbers.

    With `decimals`, all of its values are multiples of `10^-decimals` (0: integers), and so are those that come back;
    without, they are any real numbers. Of `rows` training values, `counts` lie below each of the `knots`, which are in
    units of `10^-decimals`, the borders half-way between two such steps; between knots the law is uniform. Kept are up
    to 512 knots, else those of all values with more than 1/256 of the rows and of 256 levels besides. No value outside
    those of training comes back: the law ends there.
    """

    rows: int
    knots: tuple[float, ...]
    counts: tuple[float, ...]
    decimals: int | None

    @property
    def width(self) -> int:
        return 1

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value."""
        ends = self.at(np.array([0.0, 1.0]))
        return float(ends[0]), float(ends[1])

    def read(self, values: Any) -> Any:
        import pandas as pd

        kind = pd.api.types.pandas_dtype(self.dtype)
        kind = np.dtype(getattr(kind, "numpy_dtype", kind))  # the one within pandas' own, such as Int64
        found = pd.Series(numbers(values, self.name), index=values.index)
        if kind.kind == "f":
            least, most = float(np.finfo(kind).min), float(np.finfo(kind).max)
        elif (odd := found[found % 1 != 0].dropna()).size:
            raise ValueError(f"the column {self.name!r} takes whole numbers, got {odd.iloc[0]:g}")
        else:  # from 2^53 on, float64 has not all of them
            least, most = max(np.iinfo(kind).min, 1 - 2**53), min(np.iinfo(kind).max, 2**53 - 1)
        if (odd := found[(found < least) | (found > most)]).size:
            raise ValueError(
                f"the column {self.name!r} takes {self.dtype} numbers from {least:g} to {most:g}, got {odd.iloc[0]:g}"
            )
        return found

    def levels(self, values: Any) -> tuple[Floats, Floats]:
        v = numbers(values, self.name)
        knots, counts = np.array(self.knots), np.array(self.counts)
        if self.decimals is not None:
            v = v * 10.0**self.decimals
            low, high = np.interp(v - 0.5, knots, counts), np.interp(v + 0.5, knots, counts)
        else:
            low, high = np.interp(v, knots, counts), np.interp(v, knots, counts)
            first, last = np.searchsorted(knots, v, "left"), np.searchsorted(knots, v, "right")
            atom = last - first > 1
            low[atom], high[atom] = counts[first[atom]], counts[last[atom] - 1]
        return (low + 0.5) / (self.rows + 1), (high + 0.5) / (self.rows + 1)

    def at(self, level: Floats) -> Any:
        knots, counts = np.array(self.knots), np.array(self.counts)
        v = np.interp(level * (self.rows + 1) - 0.5, counts, knots)
        if self.decimals is None:
            return v
        steps = np.clip(np.floor(v + 0.5), knots[0] + 0.5, knots[-1] - 0.5)  # the upper border of the last step is its
        return steps / 10.0**self.decimals


@dataclass(frozen=True)
class Category(Column):
    """A column of unordered `values`, of which `counts` training rows hold each. `ordered` is pandas' own flag."""

    values: tuple[str | int | float | bool, ...]
    counts: tuple[int, ...]
    ordered: bool = False

    @property
    def width(self) -> int:
        return len(self.values)

    @property
    def shares(self) -> Floats:
        """The share of training rows that hold each value, `(K,)`."""
        return np.array(self.counts) / sum(self.counts)

    def codes(self, values: Any) -> npt.NDArray[np.int64]:
        """The index `(n,)` of each value, -1 where it is missing. Raises: ValueError for an unknown one, naming it."""
        import pandas as pd

        place = {v: i for i, v in enumerate(self.values)}
        written = {str(v): i for i, v in enumerate(self.values)}
        written |= {str(v).lower(): i for i, v in enumerate(self.values) if isinstance(v, bool)}
        index, distinct = pd.factorize(pd.Series(values).astype(object))
        found = np.full(len(distinct) + 1, -1, np.int64)  # the last one is for what is missing, whose index is -1
        for i, v in enumerate(distinct):
            if v not in place and str(v) not in written:
                raise ValueError(unknown(str(v), written, f"value of the column {self.name!r}"))
            found[i] = place[v] if v in place else written[str(v)]
        codes: npt.NDArray[np.int64] = found[index]
        return codes

    def read(self, values: Any) -> Any:
        import pandas as pd

        codes = self.codes(values)
        return pd.Series(np.array([*self.values, None], dtype=object)[codes], index=values.index)

    def levels(self, values: Any) -> tuple[Floats, Floats]:
        codes = self.codes(values)
        edges = np.concatenate(([0.0], np.cumsum(self.counts))) / sum(self.counts)
        low, high = edges[codes], edges[codes + 1]
        return np.where(codes < 0, np.nan, low), np.where(codes < 0, np.nan, high)

    def at(self, level: Floats) -> Any:
        inner = np.cumsum(self.counts)[:-1] / sum(self.counts)
        return self.named(np.searchsorted(inner, level, "right"))

    def named(self, codes: npt.NDArray[np.int64]) -> Any:
        """The values `(n,)` with the indices `codes`."""
        return np.array(self.values, dtype=object)[codes]

    def series(self, values: Any) -> Any:
        import pandas as pd

        if self.dtype == "category":
            return pd.Series(pd.Categorical(values, categories=list(self.values), ordered=self.ordered), name=self.name)
        return super().series(values)


@dataclass(frozen=True)
class Constant(Column):
    """A column with one `value`: nothing to learn, so a model does not see it, and every sample holds it."""

    value: str | int | float | bool

    @property
    def width(self) -> int:
        return 0

    def read(self, values: Any) -> Any:
        other = values.dropna().astype(object)
        other = other[(other != self.value) & (other.astype(str) != str(self.value))]
        if len(other):
            raise ValueError(
                f"the column {self.name!r} held nothing but {self.value!r} in training, so nothing is known of "
                f"{other.iloc[0]!r}"
            )
        return values.where(values.isna(), self.value)

    def levels(self, values: Any) -> tuple[Floats, Floats]:
        return np.zeros(len(values)), np.ones(len(values))

    def at(self, level: Floats) -> Any:
        return np.full(len(level), self.value, dtype=object)


def numbers(values: Any, name: str) -> Floats:
    """The values `(n,)` of the column `name` as float64, NaN where one is missing.

    Raises: ValueError for a value that is not a finite number.
    """
    import pandas as pd

    found: Floats = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    strange = np.isnan(found) & ~pd.isna(pd.Series(values)).to_numpy()
    if strange.any():
        odd = pd.Series(values).iloc[int(np.flatnonzero(strange)[0])]
        raise ValueError(f"the column {name!r} takes numbers, got {odd!r}")
    if (infinite := found[np.isinf(found)]).size:
        raise ValueError(f"the column {name!r} takes finite numbers, got {infinite[0]:g}; remove or replace it")
    return found
