"""Scores of a run, or of samples drawn before: against the data they were learned from, or kept from learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .. import ranks
from ..data.base import Data, Info, Source, alike
from ..data.fetch import cache
from ..data.latent import Latent
from ..data.recognise import NAMES, find
from ..data.table import TableSource
from ..metric.classes import LEAST
from ..metric.classifier import CLASSIFIERS
from ..metric.evaluate import evaluate
from ..metric.features import features as named_features
from ..metric.measures import METRICS, chosen
from ..metric.reference import Reference, kept
from ..metric.scores import Scores
from ..names import pick
from ..recipe import Recipe
from ..rng import permutation, seeded
from ..train.checkpoint import weights_and_recipe
from ..train.load import find as weights_of
from ..train.load import load
from .device import device_named
from .drawn import Drawn, read_drawn
from .paths import grid_of
from .score_table import rows_drawn, score_rows
from .shard import shared


@ranks.joined()
def score(
    run: str | Path,
    *,
    n: int = 1000,
    metrics: str | Sequence[str] | None = None,
    features: str = "auto",
    samples: str | Path | None = None,
    reference: str | Path | None = None,
    split: str = "held-out",
    per_class: bool = False,
    subsets: int = 10,
    seed: int = 0,
    nfe: int | None = None,
    solver: str | None = None,
    grid: str | None = None,
    data: str | None = None,
    batch: int = 256,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = False,
) -> tuple[Scores, int]:
    """Draw `n` samples of `run` and score them against a split of its data; the scores, and evaluations per sample.

    `metrics` and `subsets` are those of `evaluate`, `features` those of `features`, or "auto": the shipped classifier
    of the data set where it has one, else "raw". `split` is "held-out" or "train"; `reference`, a file that
    `Reference.read` takes, stands in its place. Where the model has classes they are drawn in the proportions of the
    reference; `per_class` scores each by itself too. `data` is where the same data are now, if they have moved.
    With `samples`, a folder or file of samples drawn before, none are drawn: the evaluations are those on their record,
    0 without one, and `run` may be a data set's name or path instead.
    A table has scores of its own (`evaluate_table`), and none of `metrics`, `features`, `reference` and `per_class`.
    Features of data are kept in the cache folder and found there again. Started by `torchrun`, the processes share the
    drawing, rank 0 scores, and all get the scores. Raises: ValueError or OSError.
    """
    source, description = _opened(run, data, trust, samples is not None)
    source = source.seen  # codes are scored by what they stand for
    info, where = source.info, device_named(device)
    if isinstance(source, TableSource):
        if metrics is not None or features != "auto" or reference is not None or per_class:
            raise ValueError(
                "a table has scores of its own: leave --metrics, --features, --reference and --per-class out"
            )
        if samples is not None:
            rows, notes = rows_drawn(samples)
            return score_rows(rows, source, split, notes.get("seed")), int(notes.get("nfe", 0))
        found, spent = _drawn(run, None, _How(n, seed, nfe, solver, grid, batch, where, trust, progress))

        def scored_rows() -> Scores:
            assert found.x is not None
            return score_rows(info.to_user(found.x), source, split, seed)

        return ranks.first(scored_rows), spent
    extract = named_features(auto_features(description) if features == "auto" else features)
    x, labels = pick(split, {"held-out": source.held, "train": source.train}, "split")()
    known = None if reference is None else Reference.read(reference)
    names = chosen(metrics, bool(info.count), known is None or known.side.rows is not None)
    if per_class and (known is not None or labels is None or not info.classes):
        raise ValueError(
            "scores of each class need classes in the data and a split of them as the reference; leave --per-class out"
        )
    if subsets < 0 or subsets == 1 or (samples is None and n < LEAST):
        raise ValueError(f"scores need at least {LEAST} samples, and 2 subsets or 0; got n={n} and subsets={subsets}")
    extract(x[:1].to(where))  # what cannot be measured is refused before anything is drawn
    if samples is not None:
        found, spent = _recorded(samples, info)
    else:
        how = _How(n, seed, nfe, solver, grid, batch, where, trust, progress)
        found, spent = _drawn(run, labels, how)
    if per_class and found.labels is None:
        raise ValueError(f"{samples} does not say the classes of its samples; give a .npz with labels, or draw anew")

    def scored() -> Scores:
        folder = cache()
        against = kept(folder, x.to(where), extract, split) if known is None else known
        train, held = None, None
        if any(METRICS[m].train for m in names):
            train = kept(folder, source.train()[0].to(where), extract, "train")
            held = None if split == "held-out" and reference is None else source.held()[0]
        return evaluate(
            found.batches() if found.x is None else found.x.to(where),
            against,
            metrics=names,
            features=extract,
            train=train,
            held=held,
            labels=(found.labels, labels) if per_class and found.labels is not None and labels is not None else None,
            classes=info.classes,
            split=split,
            subsets=subsets,
            sample_seed=found.notes.get("seed"),
        )

    return ranks.first(scored), spent


def auto_features(data: Data) -> str:
    """The features that "auto" means: the shipped classifier of a data set that has one, else "raw"."""
    data = data.data if isinstance(data, Latent) else data
    return next((name for name, kind in NAMES.items() if type(data) is kind and name in CLASSIFIERS), "raw")


def opened(recipe: Recipe, run: str | Path, data: str | None = None) -> Source:
    """The data that `run` with this `recipe` was trained on, or the same at `data`, where they have moved.

    Raises: ValueError where they are not the same, ValueError or OSError where they cannot be read.
    """
    source = (recipe.data if data is None else _moved(recipe.data, data)).load()
    if not alike(source.info, recipe.info):
        raise ValueError(
            f"these are not the data that {run} was trained on, so their splits would not match; "
            "train anew, or give the data as they were with --data"
        )
    return source


@dataclass(frozen=True)
class _How:
    """How samples are drawn: as `score` was told."""

    n: int
    seed: int
    nfe: int | None
    solver: str | None
    grid: str | None
    batch: int
    device: torch.device
    trust: Sequence[str]
    progress: bool


def _opened(run: str | Path, data: str | None, trust: Sequence[str], samples: bool) -> tuple[Source, Data]:
    """The opened data of a run and the value that says where they are; with `samples` given, `run` may be data."""
    try:
        path = weights_of(run)
    except FileNotFoundError:
        if not samples or data is not None:
            raise
        value = find(str(run))
        return value.load(), value
    if samples and path.suffix != ".safetensors":  # a file, but of data
        value = find(str(run))
        return value.load(), value
    _, recipe = weights_and_recipe(path, trust)
    return opened(recipe, run, data), recipe.data


def _drawn(run: str | Path, labels: Tensor | None, how: _How) -> tuple[Drawn, int]:
    """Fresh samples, classes in the proportions of `labels`, and the evaluations each took."""
    _, denoiser, recipe = load(run, how.trust)
    info = recipe.info
    assert info is not None
    cond = None if labels is None or not info.classes else in_proportion(labels, how.n, how.seed)
    one = partial(
        recipe.sample,
        denoiser.to(how.device),
        how.n,
        solver=how.solver,
        nfe=how.nfe,
        grid=grid_of(
            run,
            how.grid or recipe.sampling.grid,
            how.solver or recipe.sampling.solver,
            recipe.sampling.budget(how.solver, how.nfe),
        ),
        seed=how.seed,
        cond=None if cond is None else cond.to(how.device),
        device=how.device,
        progress=how.progress,
    )
    samples, spent = shared(one, (how.n, *info.shape), batch=how.batch)
    if samples is None:  # they are on rank 0
        return Drawn(None, lambda: iter(()), how.n, cond, {"seed": how.seed}), spent
    samples, info = info.decode(samples), info.seen
    if info.kind == "image":  # a picture has 8 bits: score what a person would be shown
        samples = info.to_model(info.to_user(samples))
    whole = samples
    return Drawn(whole, lambda: iter((whole,)), how.n, cond, {"seed": how.seed}), spent


_LABELS = 0x4C41424C  # the key of the stream that shuffles them


def in_proportion(labels: Tensor, n: int, seed: int) -> Tensor:
    """`n` of the `labels` `(m,)`, in an order that `seed` shuffles and again from its start where they run out.

    Data are often sorted by class, so that their first labels would be of the first class alone.
    """
    order = permutation(len(labels), seeded(seed, _LABELS))
    return labels[order[torch.arange(n) % len(labels)]]


def _recorded(samples: str | Path, info: Info) -> tuple[Drawn, int]:
    """Samples drawn before, and the evaluations that their record says each took."""
    found = read_drawn(samples, info)
    return found, int(found.notes.get("nfe", 0))


def _moved(data: Data, path: str) -> Data:
    """The same data at another path, read with the same settings."""
    if isinstance(data, Latent):
        return replace(data, data=_moved(data.data, path))
    found = find(path)
    if type(found) is type(data) and any(f.name == "path" for f in fields(data)):  # type: ignore[arg-type]
        return replace(data, path=found.path)  # type: ignore[type-var, attr-defined]
    return found
