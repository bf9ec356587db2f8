"""What of the samples is given beforehand: values of columns, or rows with cells to fill."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..names import unknown
from .base import Info
from .table_info import TableInfo, column_named


@dataclass(frozen=True, eq=False)
class Given:
    """`values` by column, one for all or one for each of the `n` samples, missing where it is to be drawn.

    `frame` are the rows to fill, of which those at `places` are drawn; None where the samples are the rows.
    """

    values: dict[str, Any]
    n: int
    frame: Any = None
    places: Any = None

    def rows(self, samples: Tensor, info: Info) -> Any:
        """The finished rows: the samples with what was given, or the whole frame with its cells filled."""
        drawn = info.filled(samples, self.values)
        if self.frame is None:
            return drawn
        whole = self.frame.copy()
        for name in drawn.columns:
            old = whole[name].astype(object) if name in whole else np.full(len(whole), None, dtype=object)
            cells = np.array(old, dtype=object)
            cells[self.places] = drawn[name].to_numpy(dtype=object)
            whole[name] = column_named(_table(info).columns, name).series(cells)
        return whole


def given_values(texts: Sequence[str], info: Info, n: int) -> Given:
    """What `column=value` texts say, several of them in one text with commas between.

    Raises: ValueError for a text of another form, an unknown column or a run that is not of a table.
    """
    names = [c.name for c in _table(info).columns]
    following = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    values: dict[str, Any] = {}
    for text in texts:
        for pair in re.split(rf",\s*(?=(?:{following})\s*=)", text):
            name, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not value:
                raise ValueError(f"what is given reads column=value, such as {names[0]}=..., got {pair!r}")
            if name not in names:
                raise ValueError(unknown(name, names, "column"))
            if name in values:
                raise ValueError(f"the column {name!r} is given twice")
            values[name] = value
    return Given(values, n)


def given_label(names: str, info: Info, n: int) -> Given:
    """The values of the column that is a table's label: one or more, comma-separated, cycled through.

    Raises: ValueError for an unknown value, or a table without a label.
    """
    label = _table(info).label
    if label is None:
        raise ValueError(
            f"this table was learned without a label, so --cond {names} means nothing to it; give values of its "
            f"columns with --given, such as --given {_table(info).columns[0].name}=..."
        )
    parts = [p.strip() for p in names.split(",")]
    return Given({label: [parts[i % len(parts)] for i in range(n)]}, n)


def rows_to_fill(frame: Any, info: Info, draws: int = 1, name: str = "the table") -> Given:
    """The rows of a DataFrame whose cells are missing, each `draws` times in succession.

    Columns that it lacks are missing in all rows; columns that the run does not know are kept as they are.
    Raises: ValueError, its sentence with `name`, where there is nothing to fill, or none of the run's columns; or for a
    cell of any row that its column cannot hold.
    """
    if draws < 1:
        raise ValueError(f"the number of draws for each row must be at least 1, got {draws}")
    columns = _table(info).columns
    here = [c.name for c in columns if c.name in frame.columns]
    if not here:
        raise ValueError(f"{name} has none of the run's columns ({', '.join(c.name for c in columns)})")
    frame = frame.iloc[np.repeat(np.arange(len(frame)), draws)].reset_index(drop=True)
    for c in here:
        frame[c] = column_named(columns, c).read(frame[c])
    missing = frame[here].isna().any(axis=1).to_numpy() | (len(here) < len(columns))
    if not missing.any():
        raise ValueError(f"{name} has no missing cell in the columns of this run, so there is nothing to fill")
    places = np.flatnonzero(missing)
    return Given({c: frame[c].iloc[places].reset_index(drop=True) for c in here}, len(places), frame, places)


def _table(info: Info) -> TableInfo:
    if not isinstance(info, TableInfo):
        raise ValueError(f"values can be given for the columns of a table; this run's samples are of kind {info.kind}")
    return info
