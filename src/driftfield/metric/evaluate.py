"""The scores of samples against a reference: the features of both, the metrics asked for, one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..rng import seeded
from .check import array, same_shape
from .classes import LEAST, by_class, takes_class, warn_of_rank
from .features import Features, features
from .kid import Blocks, block_size
from .measures import METRICS, Case, Settings, chosen, take
from .mmd import median_distance
from .reference import Reference
from .scores import Scores, library_version
from .sides import Side, Tally

Array = Tensor | np.ndarray


def evaluate(
    samples: Array | Iterable[Array],
    reference: Array | Reference,
    *,
    metrics: str | Sequence[str] | None = None,
    features: str | Features | Callable[[Tensor], Tensor] = "raw",
    train: Array | Reference | None = None,
    held: Array | None = None,
    labels: tuple[Array, Array] | None = None,
    classes: Sequence[str] = (),
    split: str = "held-out",
    subsets: int = 10,
    seed: int = 0,
    projections: int = 256,
    neighbours: int = 5,
    block: int | None = None,
    sample_seed: int | None = None,
) -> Scores:
    """The scores of `samples` against `reference`, on the same features of both.

    Shapes: all sets are `(n, *shape)`, of floating type, in the same units, at least 4 rows each (1 for `train`).
            They are compared on the device of `samples`, in float64 (features in their network's own type).
            `samples` may be batches instead, in no special order, read once: then features are held only for metrics
            other than "frechet" and "kid", never the samples. `reference` may be a `Reference` measured before.
    `metrics`: names, comma-separated or in a sequence: frechet, kid, mmd, precision, recall, density, coverage, sliced,
             wasserstein, nearest, copying; or "all". Without: frechet, kid, sliced, and with `train` nearest.
    `train`: the training set, for nearest and copying, and `held`, data kept from training to compare with; the
             reference itself where it is held out and `held` is not given.
    `labels`: of the samples and of the reference, int64 `(n,)` (-1: none), for scores of each class as well and their
             mean; `classes` are the names of the labels 0, 1, ...
    `subsets`: random halves from which standard errors come, where a metric has none of its own; 0 for none. Halves of
             fewer than 3 rows a neighbour give none of precision, recall, density and coverage.
    `seed`: of halves, blocks and directions; `projections`: directions of the sliced distance; `neighbours`: of
             precision, recall, density and coverage; `block`: rows of a block of KID, all pairs without, except that
             where there are more than 10^8 pairs, or samples come in batches, it is 1,000, or half of fewer.
    `split`: what the reference is, in words; `sample_seed`: what the samples were drawn with. Both only recorded.
    Warns:  where the Frechet distance is asked of fewer rows than features.
    Raises: ValueError for shapes that differ, too few rows, values that are not finite (naming how many), unknown
            features or metrics, a metric that needs what is not given; TypeError for what is not an array of floats;
            ImportError for a metric or features whose package is not here.
    """
    extract = _named(features)
    if not isinstance(samples, Tensor | np.ndarray | Iterable):
        raise TypeError(f"samples should be a tensor, an array or batches of them, got {type(samples).__name__}")
    x = array(samples, "samples", LEAST) if isinstance(samples, Tensor | np.ndarray) else None
    known = reference if isinstance(reference, Reference) else None
    y = None if isinstance(reference, Reference) else array(reference, "reference", LEAST)
    z = train if isinstance(train, Reference) or train is None else array(train, "train", 1)
    h = None if held is None else array(held, "held", 1)
    device = next(s.device for s in (x, y, None if known is None else known.side) if s is not None)
    for name, other in (("reference", y), ("train", z), ("held", h)):
        if isinstance(other, Tensor) and x is not None:
            same_shape(x, other, name)
    names = chosen(metrics, train is not None, known is None or known.side.rows is not None)
    if known is None:
        assert y is not None
        known = Reference.of(y.to(device), extract, split)
    known.check(extract)
    b = known.side.to(device)
    settings = Settings(seed, projections, neighbours, block)
    if "mmd" in names:
        assert b.rows is not None
        settings = replace(settings, bandwidth=median_distance(b.rows, seeded(seed, _MEDIAN)))
    trained = _features_of(z, extract, device) if any(METRICS[n].train for n in names) else None
    kept = b.rows if h is None or trained is None else extract(h.to(device))
    if x is not None:
        a, count, blocks = Side(extract(x)), len(x), None
        same_width(a, b)
        if "kid" in names and b.rows is not None:
            settings = replace(settings, block=block_size(count, len(b.rows), block))
    else:
        if "kid" in names and b.rows is not None:
            settings = replace(settings, block=block_size(None, len(b.rows), block))
        assert not isinstance(samples, np.ndarray)
        a, count, blocks = _streamed(samples, y, extract, names, b, settings, device)
    if "frechet" in names:
        sizes = {"sample": count, "reference": known.record.get("n_reference") or count}
        smaller = min(sizes, key=lambda what: sizes[what])
        warn_of_rank(smaller, sizes[smaller], b.width)
    case = Case(a, b, trained, kept, settings, blocks)
    values, errors = take(names, case, subsets)
    known.keep()
    if labels is not None:
        pair = torch.as_tensor(labels[0]), torch.as_tensor(labels[1])
        own = [m for m in names if takes_class(m, h is None)]
        more, more_errors = by_class(own, case, pair, classes, subsets, block)
        values, errors = values | more, errors | more_errors
    return Scores(values, errors, _record(names, known, extract, count, case, z, split, subsets, sample_seed))


_named = features  # the keyword of `evaluate` hides the function
_MEDIAN = 0x4D454449  # the key of the stream that chooses rows for the median distance


def same_width(a: Side, b: Side) -> None:
    """Raise a ValueError unless both sides have as many features."""
    if a.width != b.width:
        raise ValueError(
            f"the samples have {a.width} features and the reference {b.width}; measure both with the same features"
        )


def _features_of(z: Tensor | Reference | None, extract: Features, device: torch.device) -> Tensor | None:
    if isinstance(z, Reference):
        z.check(extract)
        if z.side.rows is None:
            raise ValueError("the training set is known only by mean and covariance; give its samples")
        return z.side.rows.to(device)
    return None if z is None else extract(z.to(device))


def _streamed(
    batches: Iterable[Array],
    like: Tensor | None,
    extract: Features,
    names: Sequence[str],
    b: Side,
    settings: Settings,
    device: torch.device,
) -> tuple[Side, int, Blocks | None]:
    """Read batches once: the features' side, the number of samples, and KID's blocks where it is taken by them."""

    def checked() -> Iterator[Tensor]:
        for batch in batches:
            x = array(batch, "a batch of samples", 1)
            if like is not None:
                same_shape(x, like, "reference")
            yield x.to(device)

    tally, rows, blocks, count = Tally(), [], None, 0
    hold = not all(METRICS[n].streams for n in names)
    if "kid" in names:
        assert b.rows is not None
        assert settings.block is not None
        blocks = Blocks(b.rows, settings.block, seeded(settings.seed))
    for out in extract.stream(checked()):
        same_width(Side(out), b)
        count += len(out)
        if blocks is not None:
            blocks.add(out)
        if hold:
            rows.append(out)
        elif "frechet" in names:
            tally.add(out)
    if count < LEAST:
        raise ValueError(f"samples should be at least {LEAST}, but the batches held {count}")
    side = Side(torch.cat(rows)) if hold else tally.side() if "frechet" in names else Side()
    return side, count, blocks


def _record(
    names: Sequence[str],
    known: Reference,
    extract: Features,
    count: int,
    case: Case,
    z: Tensor | Reference | None,
    split: str,
    subsets: int,
    sample_seed: int | None,
) -> dict[str, object]:
    """All that the numbers depend on; of the metrics' settings those that were used."""
    used = {
        "projections": ("sliced", case.settings.projections),
        "neighbours": ("precision recall density coverage", case.settings.neighbours),
        "kid_block": ("kid", case.settings.block),
        "bandwidth": ("mmd", case.settings.bandwidth),
    }
    return {
        "metrics": ",".join(names),
        "features": extract.name,
        "resize": extract.resize,
        "n": count,
        "n_reference": known.record.get("n_reference"),
        "n_train": None if case.train is None else len(case.train),
        "split": known.record.get("split", split),
        "seed": case.settings.seed,
        "sample_seed": sample_seed,
        "subsets": subsets,
        **{key: value for key, (by, value) in used.items() if set(by.split()) & set(names)},
        "version": library_version(),
    }
