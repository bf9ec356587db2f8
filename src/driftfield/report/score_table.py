"""Scores of a run of a table: its rows against rows it was trained on or kept from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..column.base import Category
from ..data.table import TableSource, read_table
from ..metric.scores import Scores
from ..metric.table import evaluate_table


def score_rows(rows: Any, source: TableSource, split: str, sample_seed: int | None) -> Scores:
    """The scores of a DataFrame of samples against a split of the opened table, see `evaluate_table`.

    Raises: ValueError for columns that differ.
    """
    return evaluate_table(
        rows,
        source.rows(split),
        train=source.rows("train"),
        categories=[c.name for c in source.info.columns if isinstance(c, Category)],
        split=split,
        sample_seed=sample_seed,
    )


def rows_drawn(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """The rows in a file, or in the `samples.csv` of a folder of samples, and the record beside them, if there is one.

    Raises: ValueError or OSError where they cannot be read.
    """
    path = Path(path)
    folder, file = (path, path / "samples.csv") if path.is_dir() else (path.parent, path)
    record = folder / "record.json"
    rows = read_table(file)
    return rows, json.loads(record.read_text()) if record.exists() else {}
