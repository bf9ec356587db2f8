"""What a report measures of a run, a piece at a time; every piece is kept with the run and not measured twice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.base import Info, Source
from ..data.fetch import cache
from ..data.waves import panels
from ..field.reverse import Reverse
from ..generation import plan
from ..metric.features import Features, features
from ..metric.reference import kept
from ..rng import rows, seeded
from ..solve.base import integrate
from .score import auto_features
from .subject import Result, Subject

MOST_CLASSES, IN_PLANE, IN_COLUMNS, _SMALL = 10, 4000, 500, 64
_HELD, _PART = 512, 4096
_CHOSEN = 0x48454C44  # the key of the stream that chooses held-out items
_NEIGHBOURS, _SUBJECTS = 3, 8
_STEPS, _ON_THE_WAY, _PARTICLES, _LINES = 9, 3, 150, 12


def shown(subject: Subject, seed: int) -> tuple[Tensor, Tensor | None]:
    """Samples to look at, `(n, *shape)` in the model's units, and their labels: some of each class, or some of all.

    Points in the plane are as many as make a density visible. Row `i` depends on `(seed, i)` and its class alone.
    """
    labels = _labels(subject.info)
    count = _count(subject.info)

    def make() -> Result:
        cond = None if labels is None else labels.to(subject.device)
        return {"x": drawn(subject, count, seed, cond)}, {}

    tensors, _ = subject.kept("samples", {"seed": seed, "n": count}, make)
    return tensors["x"], labels


def shown_work(subject: Subject) -> int:
    """Evaluations of the network, times samples, that `shown` takes."""
    return _count(subject.info) * subject.nfe


def columns(info: Info) -> int:
    """How many samples stand side by side: fewer where each is larger."""
    return 8 if info.seen.kind == "image" and info.seen.shape[-1] <= _SMALL else 4


def _count(info: Info) -> int:
    if info.seen.kind == "points":
        return IN_PLANE
    if info.classes:
        return columns(info) * min(len(info.classes), MOST_CLASSES)
    return IN_COLUMNS if len(info.shape) == 1 else columns(info) ** 2


def _labels(info: Info) -> Tensor | None:
    """The classes of what is shown: a row of each, or in turn where they are points."""
    if not info.classes:
        return None
    every = torch.arange(_count(info))
    return every % len(info.classes) if info.seen.kind == "points" else every // columns(info)


def _stride(info: Info) -> int:
    """From one of the samples that stand for all to the next: one of each class, where there are classes."""
    return columns(info) if info.classes else 1


def drawn(
    subject: Subject, n: int, seed: int, cond: Tensor | None, solver: str | None = None, nfe: int | None = None
) -> Tensor:
    """`n` samples `(n, *shape)` as the recipe says, unless told otherwise; row `i` is of `(seed, i)` and its class."""
    return subject.recipe.sample(
        subject.denoiser, n, solver=solver, nfe=nfe, seed=seed, cond=cond, device=subject.device
    )


@dataclass(frozen=True, eq=False)
class Near:
    """Samples `(n, *shape)` and, by space, their nearest training items `(n, k, *shape)` with distances `(n, k)`;
    `ours` and `held` are the distances of all samples shown, and of held-out items, to the nearest training item."""

    samples: Tensor
    items: dict[str, Tensor]
    distances: dict[str, Tensor]
    ours: dict[str, Tensor]
    held: dict[str, Tensor]


def near(subject: Subject, seed: int) -> Near:
    """The training items nearest to samples, in raw values and in features, as a person sees both.

    Raises: ValueError or OSError without the data, and for a law that is drawn afresh: it has no training items.
    """
    if not subject.info.count:
        raise ValueError("its training data are drawn afresh at every step, so there is no training item to be near to")
    samples, _ = shown(subject, seed)
    spaces = _spaces(subject)

    def make() -> Result:
        source = subject.source.seen
        ours = as_seen(samples, subject.info)
        chosen, new = ours[:: _stride(subject.info)][:_SUBJECTS], _some_held(source, _HELD)
        points = torch.cat((chosen, ours, new))
        cuts = [len(chosen), len(ours), len(new)]
        found = {"samples": chosen}
        for name, extract in spaces.items():
            items, distances = nearest(extract(points), _pairs(source, extract), _NEIGHBOURS)
            near_chosen, near_ours, near_new = torch.split(distances, cuts)
            found |= {f"items/{name}": items[: len(chosen)], f"distances/{name}": near_chosen}
            found |= {f"ours/{name}": near_ours[:, 0].clone(), f"held/{name}": near_new[:, 0].clone()}
        return found, {}

    t, _ = subject.kept("neighbours", {"seed": seed, "spaces": [f.name for f in spaces.values()]}, make)

    def by(part: str) -> dict[str, Tensor]:
        return {name: t[f"{part}/{name}"] for name in spaces}

    return Near(t["samples"], by("items"), by("distances"), by("ours"), by("held"))


def _pairs(source: Source, extract: Features) -> Iterator[tuple[Tensor, Tensor]]:
    """Complete training items, a part at a time, and their features: those of a network as scores keep them."""
    rows = None if extract.digest is None else kept(cache(), source.train()[0], extract, "train").side.rows
    start = 0
    for part, _ in source.parts(_PART):
        items = complete(part)
        yield items, extract(items) if rows is None else rows[start : start + len(part)]
        start += len(part)


def nearest(points: Tensor, pairs: Iterable[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The `k` items nearest to each of `points` `(n, F)`, by features: `(n, k, *shape)`; and the Euclidean distances
    `(n, k)` in float64, the nearest first. `pairs` are items `(m, *shape)` and their features `(m, F)`, read once.

    Found by a product of centred values; the distance is then taken directly, so that a copy is at 0 exactly. There
    are fewer than `k` only where there are fewer items.
    """
    points = points.double()
    centre = points.mean(0)
    best: Tensor | None = None
    found: Tensor | None = None
    for items, there in pairs:
        there = there.double()
        centred = there - centre
        half = centred.square().sum(1) / 2
        near = torch.addmm(half, points - centre, centred.T, alpha=-1).topk(min(k, len(there)), largest=False).indices
        distance = torch.stack([(there[row] - p).norm(dim=1) for p, row in zip(points, near, strict=True)])
        both = distance if best is None else torch.cat((best, distance), 1)
        mine = items[near] if found is None else torch.cat((found, items[near]), 1)
        best, order = both.topk(min(k, both.shape[1]), largest=False)
        found = torch.stack([row[at] for row, at in zip(mine, order, strict=True)])
    if best is None or found is None:
        raise ValueError("there is no training item to be near to")
    return found, best


@dataclass(frozen=True, eq=False)
class Way:
    """States and estimates `(steps, n, *shape)` at falling noise `levels`; states are scaled to the data's spread."""

    states: Tensor
    estimates: Tensor
    levels: list[float]


def way(subject: Subject, seed: int) -> Way:
    """The first samples shown, on their way: the state and the denoiser's estimate at times from first to last."""
    info, recipe = subject.info, subject.recipe
    labels = _labels(info)
    small = info.seen.kind not in ("image", "audio")  # many are drawn in one figure, at every step
    every = range(0, _count(info), 1 if small else _stride(info))
    chosen = list(every)[: _PARTICLES if info.seen.kind == "points" else _LINES if small else _ON_THE_WAY]

    def make() -> Result:
        process, sampling = recipe.objective.process, recipe.sampling
        route = plan(process, solver=sampling.solver, nfe=sampling.nfe, grid=sampling.grid, shape=info.shape)
        steps = len(route.path)
        count = steps if small else min(_STEPS, steps)
        wanted = {round(i * (steps - 1) / (count - 1)) for i in range(count)} if count > 1 else {steps - 1}
        rng = [g for i in chosen for g in rows(seed, i, i + 1, subject.device)]
        cond = None if labels is None else labels[chosen].to(subject.device)
        field = Reverse(process, subject.denoiser, cond)
        states, estimates, levels = [], [], []
        with torch.no_grad():
            x = process.prior((len(chosen), *info.shape), rng)
            walk: Iterator[tuple[Tensor, Tensor]] = integrate(field, x, route.path, route.solver, rng)
            for k, (t, x) in enumerate(walk):
                if k not in wanted:
                    continue
                level = float(process.level(t))
                seen = process.data(x)
                y = seen if level == 0 else field.predict(x, t)
                states.append((seen / _spread(seen, y, recipe.sigma_data or info.std)).cpu())
                estimates.append(y.cpu())
                levels.append(level)
        return {"states": torch.stack(states), "estimates": torch.stack(estimates)}, {"levels": levels}

    tensors, notes = subject.kept("way", {"seed": seed, "rows": len(chosen)}, make)
    return Way(tensors["states"], tensors["estimates"], list(notes["levels"]))


def _spread(x: Tensor, y: Tensor, sigma_data: float) -> float:
    """How much wider a state is than data: from the noise in it, its typical root mean square."""
    noise = float((x - y).flatten(1).square().mean(1).median())
    return math.sqrt(1 + noise / sigma_data**2)


def as_seen(x: Tensor, info: Info) -> Tensor:
    """Samples of a model as samples of what a person is shown, in its model's units: decoded; a picture has 8 bits."""
    x, seen = info.decode(x), info.seen
    return seen.to_model(seen.to_user(x)) if seen.kind == "image" else x


def complete(x: Tensor) -> Tensor:
    """Items `(n, *shape)` without those that miss a value."""
    return x[x.flatten(1).isfinite().all(1)]


def _some_held(source: Source, n: int) -> Tensor:
    """Up to `n` held-out items, at random: data are often sorted."""
    return complete(source.some_held(n, seeded(0, _CHOSEN))[0])


def features_of(subject: Subject) -> Features:
    """What samples are compared by: the shipped classifier of the data where there is one, else raw values."""
    return features(auto_features(subject.recipe.data))


def _spaces(subject: Subject) -> dict[str, Features]:
    raw, extract = {"raw values": features("raw")}, features_of(subject)
    return raw if extract.name == "raw" else {**raw, "features": extract}


def held(subject: Subject, n: int) -> Any:
    """Up to `n` complete held-out items, as `user` shows them. Raises: ValueError or OSError without the data."""
    source = subject.source.seen
    return user(_some_held(source, n), source.info)[1]


def user(x: Tensor, info: Info) -> tuple[str, Any]:
    """Samples as they are best shown, and how: "images" `(n, H, W[, 3])`, "plane" `(n, 2)`, or "columns" by name."""
    kind, values = info.seen.kind, info.to_user(x)
    if kind == "table":
        return "columns", {str(c): values[c].to_numpy() for c in values.columns}
    if kind == "image":
        return "images", values
    if kind == "audio":
        return "images", panels(values)
    if kind == "points":
        return "plane", values
    flat = values.reshape(len(values), -1)
    return "columns", {f"coordinate {i}": flat[:, i] for i in range(flat.shape[1])}
