"""How likely data are under a run: the negative log-density of a split, and for images bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import ranks
from ..data.base import Info, Source
from ..generation import plan
from ..likelihood import PIXEL, SMALL, dequantized, log_prob
from ..metric.scores import Scores, library_version
from ..names import pick
from ..rng import permutation, seeded
from ..solve.adaptive import DormandPrince
from ..train.load import load
from .device import device_named
from .score import opened

_CHOSEN = 0x4E4C4C  # the key of the stream that chooses items


@ranks.joined()
def nll(
    run: str | Path,
    *,
    n: int = 100,
    split: str = "held-out",
    probes: int | None = None,
    exact: bool = False,
    noise: str = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    grid: str | None = None,
    nfe: int | None = None,
    per_class: bool = False,
    seed: int = 0,
    data: str | None = None,
    batch: int = 256,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = False,
) -> Scores:
    """The mean of `-log p` over up to `n` items of a split of the run's data, with standard errors, as scores.

    `nll` is in nats an item, in the units that the record names: an image's 8-bit values, spread evenly over their
    cells, an upper bound on what coding it takes, and so `bits_per_dim`; the user's own values for points, arrays and
    audio; the model's for tables and codes. Where the model has classes, it is that of an item given its class, and
    `per_class` gives the mean of each by itself too. Standard errors are over items, probes included; `probe_error` in
    the record is the part of it that more probes would take away.

    The divergence is exact with `exact`, or for up to 64 numbers where no `probes` are given; else estimated, by 1
    probe unless said. The path is adaptive, with `nfe` as its ceiling, unless a `grid` is named, which is walked by RK4
    within `nfe` evaluations (100). `data` is where the same data are now. Started by `torchrun`, the processes share
    the items and all get the scores. Raises: ValueError or OSError.
    """
    where = device_named(device)
    process, denoiser, recipe = load(run, trust)
    info = recipe.info
    assert info is not None
    if n < 2:
        raise ValueError(f"a mean with a standard error needs at least 2 items, got n={n}")
    if probes is not None and probes < 1:
        raise ValueError(f"probes counts random directions and must be at least 1, got {probes}")
    if exact and probes is not None:
        raise ValueError("an exact divergence takes no probes: leave out --exact or --probes")
    if per_class and not info.classes:
        raise ValueError("this run has no classes; leave --per-class out")
    x, labels = items(opened(recipe, run, data), split, n, seed)
    denoiser.autocast = None  # half precision would drown the differences that a step is judged by
    route = None if grid is None else plan(process, solver="rk4", nfe=100 if nfe is None else nfe, grid=grid)
    adaptive = DormandPrince(rtol, atol, clock="log")
    adaptive = adaptive if nfe is None else adaptive.within(nfe)
    cells = dequantized(x, seed=seed) if info.kind == "image" else x.double()
    mine = ranks.rows(len(x), batch)
    part = slice(mine.start, mine.stop)
    found = log_prob(
        process,
        denoiser.to(where),
        cells[part],
        cond=None if labels is None or not info.classes else labels[part].to(where),
        divergence="exact" if exact else "auto" if probes is None else "hutchinson",
        probes=probes or 1,
        noise=noise,
        seed=seed,
        first=mine.start,
        grid=None if route is None else route.path,
        solver=adaptive if route is None else None,
        batch=batch,
        device=where,
        progress=progress,
    )
    spent = max(ranks.gathered(found.nfe))  # type: ignore[attr-defined]
    both = ranks.collected(torch.stack((found, found.error), 1), len(x), batch)  # type: ignore[attr-defined]

    def scored() -> Scores:
        assert both is not None
        values, errors = _means(-_in_units(both[:, 0], info), info, labels if per_class else None)
        estimated = not exact and (probes is not None or x[0].numel() > SMALL)
        scatter = both[:, 1].square().sum().sqrt().item() / len(x)
        record = {
            "split": split,
            "n": len(x),
            "units": _UNITS.get(info.kind, "the user's"),
            "given": "the class" if labels is not None and info.classes else None,
            "level": process.level(torch.tensor(process.span[0], dtype=torch.float64)).item(),
            "divergence": "estimated" if estimated else "exact",
            "probes": (probes or 1) if estimated else None,
            "probe_error": scatter if estimated and math.isfinite(scatter) else None,
            "nfe": spent,
            "grid": grid,
            "rtol": rtol if grid is None else None,
            "atol": atol if grid is None else None,
            "seed": seed,
            "version": library_version(),
        }
        return Scores(values, errors, {k: v for k, v in record.items() if v is not None})

    return ranks.first(scored)


_UNITS = {"image": "8-bit values", "table": "the model's", "latent": "the model's"}


def items(source: Source, split: str, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """Up to `n` complete items of a split, chosen at random, since data are often sorted; and their labels."""
    x, labels = pick(split, {"held-out": source.held, "train": source.train}, "split")()
    whole = x.flatten(1).isfinite().all(1).nonzero()[:, 0]
    if len(whole) < 2:
        raise ValueError(f"the split {split!r} has {len(whole)} items without missing values; a mean needs 2")
    chosen = whole[permutation(len(whole), seeded(seed, _CHOSEN))[:n]]
    return x[chosen], None if labels is None else labels[chosen]


def _in_units(log_density: Tensor, info: Info) -> Tensor:
    """A log-density over the model's values as one over what a person has."""
    count = math.prod(info.shape)
    if info.kind == "image":
        return log_density + count * math.log(PIXEL)
    return log_density if info.kind in _UNITS else log_density - count * math.log(info.scale)


def _means(cost: Tensor, info: Info, labels: Tensor | None) -> tuple[dict[str, float], dict[str, float]]:
    """The mean of what items cost in nats, and in bits per dimension, with standard errors; of each class too."""
    parts = {"": cost}
    if labels is not None:
        parts |= {f"[{name}]": cost[labels == i] for i, name in enumerate(info.classes)}
    units = {"nll": 1.0}
    if info.kind == "image":
        units["bits_per_dim"] = 1 / (math.prod(info.shape) * math.log(2))
    values, errors = {}, {}
    for name, unit in units.items():
        for which, part in parts.items():
            if len(part):
                values[name + which] = part.mean().item() * unit
            if len(part) > 1:
                errors[name + which] = part.std().item() / math.sqrt(len(part)) * unit
    return values, errors
