"""What a report measures against data: scores, and quality for what it costs, with standard errors."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..data.fetch import cache
from ..generation import plan
from ..metric.evaluate import evaluate
from ..metric.reference import Reference, kept
from ..names import pick
from ..rng import seeded
from .figures import Curve
from .measure import as_seen, complete, drawn, features_of
from .score import in_proportion, score
from .subject import Result, Subject

SOLVERS = ("euler", "heun", "deis", "auto")  # that run on every process
NFES = (5, 9, 17, 35)
METRICS = {"frechet": "squared units of a feature", "sliced": "units of a feature"}
SECONDS = 75.0  # what the curves and the scores of one run may take, where the number of samples is left to us
LEAST, _FEW, _MANY = 16, 64, 1000
_DRAWN = 0x464C4F52  # the key of the stream that draws training items

T = TypeVar("T")


def choose(subject: Subject) -> int:
    """How many samples the curves and scores can have in the time allowed: timed once for these weights, then kept."""

    def make() -> Result:
        process = subject.recipe.objective.process
        x = process.lift(torch.zeros(_FEW, *subject.info.shape, device=subject.device))
        t = torch.tensor(process.span[1] / 10, dtype=torch.float64)
        with torch.no_grad():
            subject.denoiser(x, t, None)
            begun = time.perf_counter()
            for _ in range(3):
                y = subject.denoiser(x, t, None)
            float(y.sum())
        each = (time.perf_counter() - begun) / (3 * _FEW)
        fits = SECONDS / (each * work(subject, 1))
        sizes = [n for n in (64, 96, 128, 192, 256, 384, 512, 768, _MANY) if n <= fits]
        return {}, {"n": sizes[-1] if sizes else _FEW}

    return int(subject.kept("size", {"seconds": SECONDS}, make)[1]["n"])


def work(subject: Subject, n: int) -> int:
    """Evaluations of the network, times samples, that curves and scores of `n` samples take."""
    return n * (sum(p[2] for p in points(subject)) + subject.nfe)


def points(subject: Subject) -> list[tuple[str, int, int]]:
    """The solver, the budget and the evaluations spent of each point of the quality curves."""
    found = []
    for solver in SOLVERS:
        for nfe in NFES:
            try:
                spent = plan(
                    subject.recipe.objective.process, solver=solver, nfe=nfe, grid=subject.recipe.sampling.grid
                ).nfe
            except ValueError:  # a budget below one step of this solver: the curve begins at the next one
                continue
            found.append((solver, nfe, spent))
    return found


@dataclass(frozen=True, eq=False)
class Quality:
    """Curves of each metric by solver against evaluations, what as many training items score, and what to beware of."""

    curves: dict[str, dict[str, Curve]]
    floors: dict[str, tuple[float, float]]
    warnings: list[str]


def quality(subject: Subject, n: int, seed: int, advance: Callable[[str, int], None]) -> Quality:
    """`n` samples by every solver at every budget against the held-out data, with classes in their proportions.

    `advance` hears of each point before it is measured, and of the work done after it.
    """
    info, judge = subject.info, Judge(subject, seed)
    settings = {"n": n, "seed": seed, "features": judge.extract.name, "grid": subject.recipe.sampling.grid}
    found: dict[str, dict[str, list[tuple[int, float, float]]]] = {m: {} for m in METRICS}
    said: dict[str, None] = {}
    for solver, nfe, spent in points(subject):
        advance(f"{solver}, {spent} evaluations", 0)

        def make(solver: str = solver, nfe: int = nfe) -> Result:
            return {}, judge(as_seen(drawn(subject, n, seed, judge.cond(n), solver, nfe), info))

        _, notes = subject.kept(f"quality-{solver}-{nfe}", settings, make)
        said |= dict.fromkeys(notes["warnings"])
        for metric in METRICS:
            point = spent, notes["values"][metric], notes["errors"][metric]
            found[metric].setdefault(solver, []).append(point)
        advance("", n * spent)
    _, floor = subject.kept(
        "quality-floor", settings, lambda: ({}, judge(complete(subject.source.seen.draw(n, seeded(seed, _DRAWN))[0])))
    )
    return Quality(
        {m: {s: Curve(*zip(*p, strict=True)) for s, p in by.items()} for m, by in found.items()},
        {m: (floor["values"][m], floor["errors"][m]) for m in METRICS},
        list(said),
    )


class Judge:
    """`metrics` of samples against a split of the data; what they need of the data is opened with the first sample.

    `split` is "held-out" or "train". Raises: ValueError for another one.
    """

    def __init__(self, subject: Subject, seed: int, split: str = "held-out", metrics: Sequence[str] = tuple(METRICS)):
        self.subject, self.seed, self.extract = subject, seed, features_of(subject)
        self.split, self.metrics = pick(split, {"held-out": "held-out", "train": "train"}, "split"), list(metrics)
        self._reference: Reference | None = None

    def _there(self) -> tuple[Tensor, Tensor | None]:
        source = self.subject.source.seen
        return source.held() if self.split == "held-out" else source.train()

    def cond(self, n: int) -> Tensor | None:
        """Classes for `n` samples, as the split has them."""
        labels = self._there()[1]
        if labels is None or not self.subject.info.classes:
            return None
        return in_proportion(labels, n, self.seed).to(self.subject.device)

    def __call__(self, x: Tensor) -> dict[str, Any]:
        """Of samples `(n, *shape)`: their values and standard errors by metric, and what was warned of."""
        if self._reference is None:
            self._reference = kept(cache(), complete(self._there()[0]), self.extract, self.split)
        reference = self._reference
        found, said = _heard(
            lambda: evaluate(x, reference, metrics=self.metrics, features=self.extract, seed=self.seed, projections=128)
        )
        return {"values": found.values, "errors": found.errors, "warnings": said}


def _heard(make: Callable[[], T]) -> tuple[T, list[str]]:
    """What `make` returns, and its warnings, which belong on the page."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = make()
    return made, list(dict.fromkeys(str(w.message) for w in said))


def scores(subject: Subject, n: int, seed: int, trust: Sequence[str]) -> Mapping[str, Any]:
    """All scores of `n` samples drawn as the recipe says, as `driftfield evaluate` gives them: their values, standard
    errors, record and warnings."""
    name = features_of(subject).name

    def make() -> Result:
        device = str(subject.device)
        (found, spent), said = _heard(
            lambda: score(subject.run, n=n, seed=seed, data=subject.data, device=device, trust=trust)
        )
        record = {**found.record, "nfe": spent}
        return {}, {"values": found.values, "errors": found.errors, "record": record, "warnings": said}

    return subject.kept("scores", {"n": n, "seed": seed, "features": name}, make)[1]
