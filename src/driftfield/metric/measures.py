"""The metrics by name: what each needs, what it gives, and where its standard error comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..names import unknown
from ..rng import seeded
from .copying import copying
from .frechet import frechet
from .halves import Values, half, halves_error
from .kid import Blocks, kid, kid_by_blocks
from .manifold import fidelity, recall
from .mmd import mmd
from .nearest import nearest_ratio
from .sides import Side
from .wasserstein import sliced_wasserstein, wasserstein

Taken = tuple[Values, Values]  # values, and the standard errors of those that have one of their own


@dataclass(frozen=True)
class Settings:
    """What metrics are told besides the features: see `evaluate`. `bandwidth` is MMD's, in units of a feature."""

    seed: int = 0
    projections: int = 256
    neighbours: int = 5
    block: int | None = None
    bandwidth: float | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """Features of samples `a` against a reference `b`; of training and held-out data where they are at hand."""

    a: Side
    b: Side
    train: Tensor | None
    held: Tensor | None
    settings: Settings
    blocks: Blocks | None = None

    @property
    def known(self) -> tuple[Tensor, Tensor]:
        """The training and the held-out features, where a metric has been promised them."""
        assert self.train is not None
        assert self.held is not None
        return self.train, self.held

    def half(self, rng: torch.Generator) -> Case:
        """A random half of everything but the training set, which is what the samples were learned from."""
        a, b = self.a.half(rng), self.b.half(rng)
        held = self.held
        if held is not None:
            held = b.rows if held is self.b.rows else held[half(len(held), rng).to(held.device)]
        return replace(self, a=a, b=b, held=held)


@dataclass(frozen=True)
class Measure:
    """How a metric is taken. `take` draws with its generator alone.

    `halves`: its standard error comes from random halves, or for `balls` of neighbours only from halves of three times
    as many rows: in smaller ones a ball holds most of the rows, and the spread comes out too small, down to none.
    `train`: it needs a training set; `streams`: it can be taken of samples that are not held; `moments`: it needs no
    more of the reference than mean and covariance.
    """

    take: Callable[[Case, torch.Generator], Taken]
    halves: bool = True
    balls: bool = False
    train: bool = False
    streams: bool = False
    moments: bool = False


def _held(side: Side) -> Tensor:
    assert side.rows is not None  # `evaluate` asks only for what is held
    return side.rows


def _frechet(case: Case, rng: torch.Generator) -> Taken:
    return {"frechet": frechet(case.a.moments, case.b.moments)}, {}


def _kid(case: Case, rng: torch.Generator) -> Taken:
    if case.blocks is not None:
        value, error = case.blocks.result()
    elif case.settings.block is not None:
        value, error = kid_by_blocks(_held(case.a), _held(case.b), case.settings.block, rng)
    else:
        value, error = kid(_held(case.a), _held(case.b), case.b.kernel_sums())
    return {"kid": value}, {"kid": error}


def _mmd(case: Case, rng: torch.Generator) -> Taken:
    assert case.settings.bandwidth is not None
    value, error = mmd(_held(case.a), _held(case.b), (case.settings.bandwidth,))
    return {"mmd": value}, {"mmd": error}


def _fidelity(case: Case, rng: torch.Generator) -> Taken:
    return fidelity(_held(case.a), _held(case.b), case.settings.neighbours)._asdict(), {}


def _recall(case: Case, rng: torch.Generator) -> Taken:
    return {"recall": recall(_held(case.a), _held(case.b), case.settings.neighbours)}, {}


def _sliced(case: Case, rng: torch.Generator) -> Taken:
    value, _ = sliced_wasserstein(_held(case.a), _held(case.b), rng, case.settings.projections)
    return {"sliced": value}, {}


def _wasserstein(case: Case, rng: torch.Generator) -> Taken:
    return {"wasserstein": wasserstein(_held(case.a), _held(case.b))}, {}


def _nearest(case: Case, rng: torch.Generator) -> Taken:
    return {"nearest": nearest_ratio(_held(case.a), *case.known)}, {}


def _copying(case: Case, rng: torch.Generator) -> Taken:
    share, p = copying(_held(case.a), *case.known)
    return {"copying": share, "copying_p": p}, {}


_BALLS = Measure(_fidelity, balls=True)
METRICS: dict[str, Measure] = {
    "frechet": Measure(_frechet, streams=True, moments=True),
    "kid": Measure(_kid, halves=False, streams=True),
    "mmd": Measure(_mmd, halves=False),
    "precision": _BALLS,
    "recall": Measure(_recall, balls=True),
    "density": _BALLS,
    "coverage": _BALLS,
    "sliced": Measure(_sliced),
    "wasserstein": Measure(_wasserstein),
    "nearest": Measure(_nearest, train=True),
    "copying": Measure(_copying, train=True),
}
DEFAULT = ("frechet", "kid", "sliced", "nearest")


def chosen(metrics: str | Sequence[str] | None, train: bool, whole: bool) -> tuple[str, ...]:
    """The metrics that were asked for, in the table's order.

    `metrics` are names, in one string with commas between them or in a sequence; None is `DEFAULT` and "all" is all,
    each without those that need what is not at hand: `train` says whether a training set is, `whole` whether the
    reference is there in samples, not only in mean and covariance.
    Raises: ValueError for an unknown name, offering the nearest one; or for a name that needs what is not at hand.
    """
    if metrics is None or metrics == "all":
        names = DEFAULT if metrics is None else tuple(METRICS)
        return tuple(n for n in names if (train or not METRICS[n].train) and (whole or METRICS[n].moments))
    asked = [n.strip() for n in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    for name in asked:
        if name not in METRICS:
            raise ValueError(unknown(name, METRICS, "metric"))
        if METRICS[name].train and not train:
            raise ValueError(f"{name} compares samples with the training set, which is not at hand; give train=")
        if not (whole or METRICS[name].moments):
            raise ValueError(
                f"{name} needs the samples of the reference, but this one holds only mean and covariance; "
                "take metrics='frechet', or give a reference of samples"
            )
    if not asked:
        raise ValueError(f"no metric was asked for; known: {', '.join(METRICS)}, all")
    return tuple(n for n in METRICS if n in asked)


def _halves(measure: Measure, case: Case) -> bool:
    """Whether halves of this case say how far the measure spreads."""
    if not measure.balls:
        return measure.halves
    return min(len(_held(case.a)), len(_held(case.b))) // 2 >= 3 * case.settings.neighbours


def _of_half(measure: Measure, case: Case, rng: torch.Generator) -> Values:
    return measure.take(case.half(rng), rng)[0]


def take(names: Sequence[str], case: Case, subsets: int) -> Taken:
    """The values and standard errors of the metrics called `names`; those by halves, from `subsets` of them (0: none).

    Raises: ValueError, as the metrics do.
    """
    values: Values = {}
    errors: Values = {}
    for name in names:
        if name in values:
            continue
        measure, seed = METRICS[name], case.settings.seed
        shared = [n for n in names if METRICS[n] is measure]
        found, own = measure.take(case, seeded(seed))
        values |= {k: v for k, v in found.items() if k in shared or k not in METRICS}
        errors |= own
        if subsets and _halves(measure, case):
            spread = halves_error(partial(_of_half, measure, case), subsets, seed)
            errors |= {k: v for k, v in spread.items() if k in shared}
    order = [k for n in METRICS for k in values if k == n or k.startswith(f"{n}_")]
    return {k: values[k] for k in order}, {k: errors[k] for k in order if k in errors}
