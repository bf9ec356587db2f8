"""Scores of each class by itself, and their mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .halves import Values
from .kid import block_size
from .measures import METRICS, Case, Taken, take
from .sides import Side

LEAST = 4  # rows of a sample, or of a class in it


def by_class(
    metrics: Sequence[str],
    case: Case,
    labels: tuple[Tensor, Tensor],
    classes: Sequence[str],
    subsets: int,
    block: int | None,
) -> Taken:
    """The `metrics` of each class, `metric[class]`, and their mean over classes, `metric[classes]`, with errors.

    `labels` are those of the samples and of the reference, `(n,)` and `(m,)`, -1 for none; classes are those of the
    reference. Where a training set counts, each class is held against the whole of it.
    Raises: ValueError for labels of another number, a class with fewer than 4 rows on a side, or sides not held.
    """
    if case.a.rows is None or case.b.rows is None:
        raise ValueError("scores of each class need the samples of both sides at once; give whole arrays")
    for part, rows, what in zip(labels, (case.a.rows, case.b.rows), ("samples", "reference"), strict=True):
        if part.shape != rows.shape[:1]:
            raise ValueError(f"labels of the {what} should be one for each of {len(rows)}, got {tuple(part.shape)}")
    drawn, known = (part.to(case.a.rows.device) for part in labels)
    present = [int(c) for c in torch.unique(known) if c >= 0]
    names = {c: classes[c] if c < len(classes) else str(c) for c in present}
    values: Values = {}
    errors: Values = {}
    for c, name in names.items():
        a, b = case.a.rows[drawn == c], case.b.rows[known == c]
        if min(len(a), len(b)) < LEAST:
            raise ValueError(
                f"class {name} has {len(a)} samples and {len(b)} reference points, and a score of it needs {LEAST} of "
                "each; give more, or leave classes out"
            )
        settings = replace(case.settings, block=block_size(len(a), len(b), block))
        held = None if case.held is None else b
        own = replace(case, a=Side(a), b=Side(b), held=held, settings=settings, blocks=None)
        try:
            found, spread = take(metrics, own, subsets)
        except ValueError as error:
            raise ValueError(f"class {name}: {error}") from None
        values |= {f"{k}[{name}]": v for k, v in found.items()}
        errors |= {f"{k}[{name}]": v for k, v in spread.items()}
    if "frechet" in metrics:
        least = min(int((part == c).sum()) for part in (drawn, known) for c in present)
        warn_of_rank("smallest class", least, case.a.width)
    for k in metrics:  # not the p-value: a mean of them is none
        values[f"{k}[classes]"] = sum(values[f"{k}[{name}]"] for name in names.values()) / len(names)
        each = [errors[f"{k}[{name}]"] for name in names.values() if f"{k}[{name}]" in errors]
        if len(each) == len(names):  # classes are separate samples, so errors add in squares
            errors[f"{k}[classes]"] = math.sqrt(sum(e**2 for e in each)) / len(names)
    return values, errors


def takes_class(metric: str, same: bool) -> bool:
    """Whether a metric is taken by class: one that needs a training set only where the reference is the held-out data
    (`same`), because the others have no classes here."""
    return same or not METRICS[metric].train


def warn_of_rank(what: str, n: int, width: int) -> None:
    """Warn where a covariance of `n` rows of `width` features is not of full rank."""
    if n <= width:
        warnings.warn(
            f"the {what} has {n} rows for {width} features, so its covariance is not of full rank and the Frechet "
            "distance is far too large to compare with others; use kid, or fewer features",
            stacklevel=4,
        )
