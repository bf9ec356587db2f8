"""Work on many rows, a batch at a time: the rows of a condition, and a bar that shows how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from torch import Tensor


def rows_of(cond: Any, i: int, j: int, n: int) -> Any:
    """The rows `i` to `j` of a condition: of every tensor in it that has one entry for each of `n` samples.

    A condition is a tensor, or a named tuple or mapping of conditions; anything else is for all rows.
    """
    if isinstance(cond, Tensor):
        return cond[i:j] if cond.ndim and len(cond) == n else cond
    if isinstance(cond, tuple) and hasattr(cond, "_fields"):
        return type(cond)(*(rows_of(c, i, j, n) for c in cond))
    if isinstance(cond, Mapping):
        return {k: rows_of(c, i, j, n) for k, c in cond.items()}
    return cond


def bar(what: str, n: int, steps: int, show: bool) -> Any:
    """A context that gives a function to call with the rows of `n` just moved one of `steps`; it shows `what` is done.

    Nothing is shown unless `show`.
    """
    if not show:
        return nullcontext(lambda rows: None)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Bar(Progress):
        def __enter__(self) -> Any:
            super().__enter__()
            task = self.add_task(what, total=n)
            return lambda rows: self.advance(task, rows / steps)

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
