"""A user's table: numbers, truth values and categories by column, with cells that may be missing."""

from __future__ import annotations

import csv
import gzip
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..column.base import Category, Column, Constant
from ..column.infer import column_of
from ..names import pick, unknown
from ..rng import Rng, device_of, integers, seeded, uniform
from .base import Data, Source
from .stored import split
from .table_info import TableInfo, column_named

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_DAMAGE = (ValueError, EOFError, csv.Error, gzip.BadGzipFile, zlib.error)
_NAN = ("NaN", "nan")
_FIXED = 0x5441424C  # the key of the stream that dequantises the splits


@dataclass(frozen=True)
class Table(Data):
    """The rows of a `.csv`, `.tsv` (each also with `.gz`) or `.parquet` file.

    `drop` are columns to leave out, `keep` the only ones to take. Integers, and decimals with few digits, come back as
    such; text is taken for categories if it has at most 50 distinct values, and so are, whatever they hold, the columns
    in `categories`. `label` is the column of categories that `--cond` speaks of. Of text an empty cell is missing and
    nothing else, of numbers also NaN and nan.
    """

    path: str
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    label: str | None = None
    held: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))

    def load(self) -> Source:
        """Raises: ImportError without pandas; FileNotFoundError, or ValueError naming the column, for a bad file."""
        frame = self._chosen(read_table(self.path))
        try:
            train, held = split(len(frame), self.held)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        made = []
        for name in frame.columns:
            try:
                made.append(column_of(frame[name], train.numpy(), category=name in self.categories))
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from None
        columns = tuple(made)
        if constant := [c.name for c in columns if isinstance(c, Constant)]:
            warnings.warn(
                f"{self.path}: constant columns are not learned, but restored in samples ({', '.join(constant)})",
                stacklevel=2,
            )
        if not any(c.width for c in columns):
            raise ValueError(f"{self.path} has no column that varies, so nothing can be learned")
        if self.label is not None and not isinstance(column_named(columns, self.label), Category):
            raise ValueError(f"label={self.label} is a column of numbers; add it to categories to draw by its values")
        return TableSource(frame, columns, train, held, self.label, self.path.lower().endswith(".parquet"))

    def _chosen(self, frame: Any) -> Any:
        names = list(frame.columns)
        for name in (*self.drop, *self.keep, *self.categories, *((self.label,) if self.label is not None else ())):
            if name not in names:
                raise ValueError(unknown(name, names, f"column of {self.path}"))
        left = [n for n in names if n not in self.drop and (not self.keep or n in self.keep)]
        first = names[0] if names else None
        if first in left and not self.keep and str(first).startswith("Unnamed: ") and _counts_rows(frame[first]):
            warnings.warn(
                f"{self.path}: the first column, without a name, counts the rows; it is left out", stacklevel=3
            )
            left.remove(first)
        if not left:
            raise ValueError(f"{self.path} has no columns left to learn from")
        return frame[left]


def _counts_rows(series: Any) -> bool:
    values = series.to_numpy()
    return bool(values.dtype.kind == "i" and np.array_equal(values, np.arange(len(values)) + values[:1].sum()))


class TableSource(Source):
    """The opened rows of a table: draws dequantise afresh, splits always alike; cells that are missing are NaN.

    `frame` holds all rows as the user has them, `columns` in their order; `train` and `held` index the rows.
    """

    info: TableInfo

    def __init__(
        self, frame: Any, columns: tuple[Column, ...], train: Tensor, held: Tensor, label: str | None, parquet: bool
    ):
        self.frame, self._train, self._held = frame, train, held
        info = TableInfo("table", (sum(c.width for c in columns),), columns=columns, label=label, parquet=parquet)
        self._low, self._high = info.bounds(frame)
        self._copies: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}
        self.info = replace(info, count=len(train), incomplete=bool(self._low.isnan().any()))
        x = self._part(train).double()
        self.info = replace(self.info, std=float(x[~x.isnan()].std(correction=0)))

    def draw(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        device = device_of(rng)
        if device not in self._copies:
            self._copies[device] = self._low.to(device), self._high.to(device), self._train.to(device)
        low, high, train = self._copies[device]
        index = train[integers(torch.empty(n, device=device), len(train), rng)]
        return self._between(low[index], high[index], rng), None

    def _between(self, low: Tensor, high: Tensor, rng: Rng) -> Tensor:
        return self.info.between(low, high, uniform(low, rng))

    def _part(self, index: Tensor) -> Tensor:
        return self._between(self._low[index], self._high[index], seeded(0, _FIXED))

    def held(self) -> tuple[Tensor, Tensor | None]:
        return self._part(self._held), None

    def train(self) -> tuple[Tensor, Tensor | None]:
        return self._part(self._train), None

    def rows(self, split: str) -> Any:
        """The rows of the "train" or "held-out" split as the user has them, a DataFrame."""
        return self.frame.iloc[pick(split, {"train": self._train, "held-out": self._held}, "split").numpy()]


def read_table(path: str | os.PathLike[str]) -> Any:
    """The pandas DataFrame in a `.csv`, `.tsv` (each also with `.gz`) or `.parquet` file, its rows counted from 0.

    In text, an empty cell is missing, and NaN or nan too in a column of numbers; whole numbers with gaps are `Int64`.
    Raises: ImportError without pandas (or pyarrow, for Parquet); FileNotFoundError, or ValueError for a file that is
    empty, damaged, names two columns alike, or has a line with more fields than columns.
    """
    path = Path(path)
    parquet = path.suffix.lower() == ".parquet"
    try:
        import pandas as pd

        if parquet:
            import pyarrow.parquet as pq
    except ImportError:
        raise ImportError("tables are read by pandas and pyarrow: pip install 'driftfield[table]'") from None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    separator = "\t" if ".tsv" in (s.lower() for s in path.suffixes) else ","
    try:
        names = pq.read_schema(path).names if parquet else next(_lines(path, separator), (1, []))[1]
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read as a table ({error})") from None
    if not names:
        raise ValueError(f"{path} is empty; expected a line with the names of the columns, and rows")
    twice = sorted({repr(n) for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"{path} has more than one column named {', '.join(twice)}; give each a name of its own")
    try:
        frame = pd.read_parquet(path) if parquet else _parsed(path, separator)
    except _DAMAGE as error:
        said = "" if parquet else _overlong(path, separator, len(names))
        raise ValueError(said or f"{path} cannot be read as a table ({error})") from None
    if not len(frame):
        raise ValueError(f"{path} has columns but no rows")
    return frame.reset_index(drop=frame.index.names == [None])


def _lines(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of a text's rows, each with the number of the line that it ends on."""
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        yield from ((rows.line_num, row) for row in rows)


def _overlong(path: Path, separator: str, columns: int) -> str:
    """One sentence about the first line with more fields than the header, empty where there is none."""
    with suppress(*_DAMAGE):
        for at, row in _lines(path, separator):
            if len(row) > columns:
                return (
                    f"line {at} of {path} has {len(row)} fields, separated by {separator!r}, but its header has "
                    f"{columns}; correct the line, or separate fields by commas in a .csv, by tabs in a .tsv, and "
                    "write decimal points"
                )
    return ""


def _parsed(path: Path, separator: str) -> Any:
    """A text as a DataFrame. Raises: ValueError for what pandas cannot read, or would read in part alone."""
    import pandas as pd

    read = partial(pd.read_csv, path, sep=separator, low_memory=False, index_col=False, keep_default_na=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of fields that it would drop
            frame = read(na_values=[""])
            again = [name for name in frame if _perhaps_whole(frame[name])]
            better = read(na_values=["", *_NAN], usecols=again, dtype_backend="numpy_nullable") if again else {}
    except pd.errors.ParserWarning as warning:
        raise ValueError(str(warning)) from None
    for name in again:
        whole = pd.api.types.is_integer_dtype(better[name].dtype)
        frame[name] = better[name] if whole else better[name].astype(np.float64)
    return frame


def _perhaps_whole(column: Any) -> bool:
    """Whether a column that pandas took for text or for real numbers holds numbers with gaps, perhaps whole ones."""
    import pandas as pd

    if pd.api.types.is_float_dtype(column.dtype):
        return bool(column.isna().any() and (column.dropna() % 1 == 0).all())
    gaps = column.isin(_NAN)
    return bool(gaps.any() and pd.to_numeric(column[~gaps].dropna(), errors="coerce").notna().all())
