"""How far the rows of one table are from those of another: by column, in pairs, and as a classifier sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..column.base import Number, numbers
from ..column.infer import column_of
from ..rng import permutation, seeded
from .nearest import nearest_distance
from .scores import Scores, library_version

Floats = npt.NDArray[np.float64]
_FOLDS = 5
_MOST_BINS = 255  # categories that scikit-learn's boosting tells apart


def evaluate_table(
    samples: Any,
    reference: Any,
    *,
    train: Any = None,
    categories: Sequence[str] = (),
    split: str = "held-out",
    seed: int = 0,
    sample_seed: int | None = None,
) -> Scores:
    """The scores of the rows `samples` against the rows `reference`, DataFrames of the same columns.

    marginal[COLUMN]   the Kolmogorov-Smirnov distance of a column of numbers, the total variation of categories;
                       `marginal` and `marginal_max` are the mean and the greatest
    pairs, pairs_max   mean and greatest change of the association of two columns, see `associations`
    auc                of a classifier that tells samples from reference, see `classifier_auc`: 0.5 for the law itself
    nearest, copies    with `train`: the mean distance from a sample to its nearest training row, over the same for the
                       reference; and the share of samples that are training rows (of reference rows: in the record)

    Only `auc` has a standard error, with the classifiers held fixed: over fresh samples it scatters more. Sampling
    noise alone is in all: compare with what training rows score in place of samples. `categories` are columns to take
    as such though they hold numbers. A missing cell is left out of what its column enters; `auc`, `nearest` and
    `copies` are over whole rows.
    Raises: ValueError for columns that differ, too few rows, or text and infinity in a column of numbers; ImportError
    without pandas or scikit-learn.
    """
    kinds = _kinds(samples, reference, categories)
    names = list(kinds)
    samples, reference = _read(samples, kinds, "samples"), _read(reference, kinds, "reference")
    train = None if train is None else _read(train, kinds, "training rows")
    gaps = {name: marginal_gap(samples[name], reference[name], kinds[name]) for name in names}
    values = {"marginal": float(np.mean(list(gaps.values()))), "marginal_max": max(gaps.values())}
    errors = {}
    if len(names) > 1:
        change = np.abs(associations(samples, kinds) - associations(reference, kinds))[np.triu_indices(len(names), 1)]
        values |= {"pairs": float(change.mean()), "pairs_max": float(change.max())}
    values["auc"], errors["auc"] = classifier_auc(samples, reference, kinds, seed)
    copies = None
    if train is not None:
        more, copies = _closeness(samples, reference, train, kinds)
        values |= more
    values |= {f"marginal[{name}]": gap for name, gap in gaps.items()}
    record = {
        "by": "column",
        "n": len(samples),
        "n_reference": len(reference),
        "n_train": None if train is None else len(train),
        "split": split,
        "reference_copies": copies,
        "classifier": f"gradient boosting, {_FOLDS} folds",
        "seed": seed,
        "sample_seed": sample_seed,
        "version": library_version(),
    }
    return Scores(values, errors, record)


def _kinds(samples: Any, reference: Any, categories: Sequence[str]) -> dict[str, bool]:
    """Whether each column that varies is one of categories. Raises: ValueError for columns that differ."""
    try:
        from pandas.api.types import is_bool_dtype, is_numeric_dtype
    except ImportError:
        raise ImportError("tables are scored by pandas: pip install 'driftfield[table]'") from None
    ours, theirs = list(samples.columns), list(reference.columns)
    if set(ours) != set(theirs):
        odd = sorted(set(ours) ^ set(theirs), key=str)
        raise ValueError(f"samples and reference need the same columns, but {', '.join(map(str, odd))} is in one alone")
    if min(len(samples), len(reference)) < 2 * _FOLDS:
        raise ValueError(f"scores need at least {2 * _FOLDS} rows of each, got {len(samples)} and {len(reference)}")
    kinds = {}
    for name in theirs:
        kind = reference[name].dtype
        if not reference[name].notna().any() or not samples[name].notna().any():
            raise ValueError(f"the column {name!r} holds no values on one side; leave it out of both")
        if max(reference[name].nunique(), samples[name].nunique()) > 1:
            kinds[name] = name in categories or is_bool_dtype(kind) or not is_numeric_dtype(kind)
    if not kinds:
        raise ValueError("no column varies, so there is nothing to compare")
    return kinds


def _read(rows: Any, kinds: dict[str, bool], whose: str) -> Any:
    """The columns `kinds`, those of numbers as float64. Raises: ValueError for a cell that is not a finite number."""
    rows = rows[list(kinds)].copy()
    for name in (name for name, category in kinds.items() if not category):
        try:
            rows[name] = numbers(rows[name], name)
        except ValueError as error:
            raise ValueError(f"{whose}: {error}") from None
    return rows


def marginal_gap(a: Any, b: Any, category: bool) -> float:
    """The distance of two columns' laws, from 0 to 1: the greatest difference of the probabilities of an interval up
    to a value (Kolmogorov-Smirnov), or for categories of any set of them (total variation). Missing cells are left out.
    """
    a, b = a.dropna(), b.dropna()
    if category:
        import pandas as pd

        codes = _codes(pd.concat((a, b), ignore_index=True))
        p, q = (np.bincount(part, minlength=codes.max() + 1) / len(part) for part in np.split(codes, [len(a)]))
        return float(np.abs(p - q).sum() / 2)
    a, b = (np.sort(x.to_numpy(np.float64)) for x in (a, b))
    at = np.concatenate((a, b))
    below = [np.searchsorted(x, at, "right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def associations(frame: Any, kinds: dict[str, bool]) -> Floats:
    """How strongly each two columns go together, `(C, C)`: by rank correlation, from -1 to 1, for numbers; by Cramer's
    V for categories; and for one of each by the correlation ratio of the ranks, both from 0 to 1.

    `kinds` says of each column whether it is one of categories. Rows where one of the two is missing are left out; a
    column that does not vary in the rest goes with nothing, 0.
    """
    names = list(kinds)
    found = np.eye(len(names))
    for i, j in combinations(range(len(names)), 2):
        pair = frame[[names[i], names[j]]].dropna()
        columns = [_codes(pair[n]) if kinds[n] else pair[n].rank().to_numpy(np.float64) for n in (names[i], names[j])]
        if not len(pair) or any(c.min() == c.max() for c in columns):
            continue
        a, b = kinds[names[i]], kinds[names[j]]
        if a and b:
            value = _cramer(columns[0], columns[1])
        elif a or b:
            value = _ratio(columns[1], columns[0]) if a else _ratio(columns[0], columns[1])
        else:
            value = float(np.corrcoef(columns[0], columns[1])[0, 1])
        found[i, j] = found[j, i] = value
    return found


def _codes(series: Any) -> npt.NDArray[np.int64]:
    codes: npt.NDArray[np.int64] = series.astype(str).factorize(sort=True)[0]
    return codes


def _cramer(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / len(a)
    return math.sqrt(float(((counts - expected) ** 2 / expected).sum()) / (len(a) * (min(counts.shape) - 1)))


def _ratio(values: Any, groups: npt.NDArray[np.int64]) -> float:
    """The root of the share of the variance of `values` that lies between groups."""
    count = np.bincount(groups)
    means = np.bincount(groups, values) / count
    return math.sqrt(float((count * (means - values.mean()) ** 2).sum() / ((values - values.mean()) ** 2).sum()))


def classifier_auc(samples: Any, reference: Any, kinds: dict[str, bool], seed: int = 0) -> tuple[float, float]:
    """How well gradient boosting tells samples from the reference on rows it has not seen, and its standard error.

    The area under the ROC curve: 0.5 where it can only guess, 1 where it is never wrong. The mean over five folds
    chosen by `seed`. The error is that of the test rows, with the classifiers as they are. Fresh samples also train
    other classifiers, and their area scatters more than it says: 1.2 to 1.4 times as much over 60 fresh pairs of 500 or
    2,000 rows each, at areas from 0.5 to 0.65. Over whole rows, all there are.
    Source: Lopez-Paz and Oquab 2017; DeLong et al. 1988, for the error. [lopezpaz2017twosample] [delong1988auc]
    Raises: ValueError for fewer than 10 whole rows on a side; ImportError without scikit-learn.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError:
        raise ImportError("the classifier comes with scikit-learn: pip install 'driftfield[table]'") from None
    import pandas as pd

    whole = [x[list(kinds)].dropna() for x in (samples, reference)]
    m, n = map(len, whole)
    if min(m, n) < 2 * _FOLDS:
        raise ValueError(
            f"the two-sample test needs {2 * _FOLDS} rows without missing cells on each side, got {m}, {n}"
        )
    both = pd.concat(whole, ignore_index=True)
    x = np.stack([_codes(both[k]) if category else both[k].to_numpy(np.float64) for k, category in kinds.items()], 1)
    split_by = [category and both[k].nunique() <= _MOST_BINS for k, category in kinds.items()]
    fold = np.empty(m + n, np.int64)
    for part, key in ((slice(0, m), 0), (slice(m, None), 1)):
        count = len(fold[part])
        fold[part] = permutation(count, seeded(seed, 0x46, key)).numpy() % _FOLDS
    real = np.arange(m + n) >= m
    found = []
    for k in range(_FOLDS):
        test = fold == k
        model = HistGradientBoostingClassifier(categorical_features=split_by, early_stopping=False, random_state=seed)
        model.fit(x[~test], real[~test])
        score = model.predict_proba(x[test])[:, 1]
        found.append(_auc(score[real[test]], score[~real[test]]))
    return sum(a for a, _ in found) / _FOLDS, math.sqrt(sum(v for _, v in found)) / _FOLDS


def _auc(above: Floats, below: Floats) -> tuple[float, float]:
    """The probability that one of `above` exceeds one of `below`, ties counting half, and the estimate's variance."""
    from scipy.stats import rankdata

    m, n = len(above), len(below)
    rank = rankdata(np.concatenate((above, below)))
    over = (rank[:m] - rankdata(above)) / n  # the share of `below` that each of `above` exceeds
    under = 1 - (rank[m:] - rankdata(below)) / m
    return float(over.mean()), float(over.var(ddof=1) / m + under.var(ddof=1) / n)


def _closeness(samples: Any, reference: Any, train: Any, kinds: dict[str, bool]) -> tuple[dict[str, float], float]:
    """`nearest` and `copies`, and the share of reference rows that are copies.

    Numbers count by their levels in the training rows, and two categories are 1 apart.
    """
    import pandas as pd

    sides = [x[list(kinds)].dropna() for x in (samples, reference, train)]
    every = pd.concat(sides, ignore_index=True)
    parts = []
    for name, category in kinds.items():
        column = None if category else column_of(train[name], np.arange(len(train)))
        if isinstance(column, Number):
            parts.append(np.stack(column.levels(every[name])).mean(0)[:, None])
        else:  # of all three sides, as the training rows need not hold every category, nor two different numbers
            codes = _codes(every[name])
            parts.append(np.eye(codes.max() + 1)[codes] / math.sqrt(2))
    places = torch.from_numpy(np.concatenate(parts, 1))
    ours, theirs, learned = torch.split(places, [len(x) for x in sides])
    near, held = (nearest_distance(x, learned) for x in (ours, theirs))
    values = {"copies": float((near == 0).double().mean())}
    if (fresh := float(held.mean())) > 0:  # else every reference row is a training row, and there is no scale
        values["nearest"] = float(near.mean()) / fresh
    return values, float((held == 0).double().mean())
