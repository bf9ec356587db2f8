"""Snapshots of a run's averages, `RUN/ema/STEP.safetensors`, and any other average rebuilt from them.

Weights are kept in float16: each entry to a 2048th of the largest of its tensor, or exactly where that would not do.
With 16 snapshots of two widths it is the profile, not this rounding, that limits which widths are reached. With many
more it is the rounding; then another width in `training.ema` costs less than float32 for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..plain import to_plain
from ..recipe import WIDEST, Recipe
from .checkpoint import pack, save, unpack, weights_and_recipe
from .ema import Profile, combination, inner, norm, spread_of

ROUNDING = torch.finfo(torch.float16).eps / math.sqrt(12)  # of float16 at most: root mean square, share of the weights
_FURTHEST = 0.25  # an error of the profile beyond which what is rebuilt is another average than the one asked for
_NARROWEST = 1e-4


def due(step: int, steps: int, count: int) -> bool:
    """Whether a snapshot is due after `step` of `steps`: `count` of them, evenly spaced, the last at the end."""
    return step * count // steps > (step - 1) * count // steps


def snapshots(run: Path) -> dict[int, Path]:
    """The snapshots of a run by their step, the oldest first."""
    return {int(p.stem): p for p in sorted((run / "ema").glob("*.safetensors")) if p.stem.isdecimal()}


def keep(run: Path, step: int, averages: Mapping[float, nn.Module], recipe: Recipe) -> None:
    """Write the snapshot of a step, whole or not at all. `averages` are by their `sigma_rel`, as in the recipe."""
    parts: dict[str, dict[str, Tensor]] = {}
    for i, average in enumerate(averages.values()):
        copied = {name for name, _ in average.named_buffers()}
        tensors = average.state_dict()
        parts["buffer"] = {name: tensor for name, tensor in tensors.items() if name in copied}
        parts[f"average{i}"] = {name: _halved(p) for name, p in tensors.items() if name not in copied}
    path = run / "ema" / f"{step:08d}.safetensors"
    save(path, pack(parts), {"recipe": to_plain(recipe), "step": step})


def forget(run: Path, step: int) -> None:
    """Remove the snapshots after `step`, which the run will take again, or which were another run's."""
    for taken, path in snapshots(run).items():
        if taken > step:
            path.unlink()


def _halved(p: Tensor) -> Tensor:
    """A tensor in float16, where each of its entries keeps 11 bits of the largest; else as it is."""
    largest = p.abs().amax().item() if p.numel() else 0.0
    fits = largest == 0 or 2.0**-14 <= largest <= torch.finfo(torch.float16).max
    return p.half() if p.is_floating_point() and fits else p


@dataclass(frozen=True)
class Plan:
    """What `rebuild` will sum, and how far that is expected to be from the average that was asked for.

    `weights` are those of the averages in each snapshot, by its step, and `profile_error` is that of `combination`.
    What that error makes of the network's weights is `missed`, estimated from two averages (`spread_of`; mostly too
    large where weights drift); `rounded` is what float16 adds at most. Both are root mean squares, as shares of the
    weights' size, and `moved` is what a profile error of 100 % would make.
    """

    weights: dict[int, list[float]]
    profile_error: float
    moved: float

    @property
    def missed(self) -> float:
        """The part of the error that is the profile's."""
        return self.moved * self.profile_error

    @property
    def rounded(self) -> float:
        """The part of the error that is the rounding's."""
        return ROUNDING * math.hypot(*(w for row in self.weights.values() for w in row))

    @property
    def weights_error(self) -> float:
        """Both parts together."""
        return math.hypot(self.missed, self.rounded)

    @property
    def reaches(self) -> bool:
        """Whether it is off by no more than a profile may be and a stored average is by its own rounding."""
        return self.weights_error <= math.hypot(ROUNDING, _FURTHEST * self.moved)


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """Weights rebuilt from snapshots: the average of relative width `sigma_rel` as it was at step `step`.

    `profile_error` and `weights_error` are those of `Plan`: found, and expected.
    """

    sigma_rel: float
    step: int
    profile_error: float
    weights_error: float
    tensors: dict[str, Tensor]
    recipe: Recipe

    def save(self, path: Path) -> None:
        """Write a weights file, whole or not at all."""
        notes = {"recipe": to_plain(self.recipe), "step": self.step, "sigma_rel": self.sigma_rel}
        save(path, self.tensors, {**notes, "profile_error": self.profile_error, "weights_error": self.weights_error})


def planned(run: str | Path, sigma_rel: float, step: int | None = None, trust: Sequence[str] = ()) -> Plan:
    """What `rebuild` will do: the closest to what is asked for that is expected, in profile and rounding together.

    Raises: as `rebuild`, before any work.
    """
    taken = snapshots(Path(run))
    if not Path(run).exists():
        raise FileNotFoundError(f"there is no run at {run}")
    if not taken:
        raise ValueError(
            f"{run} holds no snapshots of its averages (the folder ema in it), so no other average can be rebuilt; "
            "train with training.snapshots above 0, and give the folder of the run"
        )
    step = max(taken) if step is None else step
    if step not in taken:
        near = sorted(sorted(taken, key=lambda s: abs(s - step))[:2])
        raise ValueError(f"{run} has no snapshot at step {step}; the nearest are at {' and '.join(map(str, near))}")
    newest, recipe = weights_and_recipe(taken[step], trust)
    widths = recipe.training.ema
    stored = [Profile(width, s) for s in taken if s <= step for width in widths]

    def average(p: Profile) -> list[Tensor]:
        tensors = newest if p.step == step else weights_and_recipe(taken[p.step], trust)[0]
        return [tensor for _, tensor in sorted(unpack(tensors, f"average{widths.index(p.sigma_rel)}").items())]

    return _within_reach(run, stored, Profile(sigma_rel, step), average)


def rebuild(run: str | Path, sigma_rel: float, step: int | None = None, trust: Sequence[str] = ()) -> Rebuilt:
    """The average of relative width `sigma_rel` at a snapshot's `step` (the newest by default), from it and those
    before it, summed in float64 as `planned`.

    Raises: ValueError where the run has no snapshots or none at `step`, or where they do not reach `sigma_rel`,
    naming the widths they do; FileNotFoundError where there is no run.
    Source: Karras et al. 2024, Sec. 3.2. [karras2024edm]
    """
    plan = planned(run, sigma_rel, step, trust)
    paths = snapshots(Path(run))
    total: dict[str, Tensor] = {}
    for s, row in plan.weights.items():
        tensors, recipe = weights_and_recipe(paths[s], trust)
        for i, weight in enumerate(row):
            for name, p in unpack(tensors, f"average{i}").items():
                total[name] = total.get(name, 0) + weight * p.double()
    tensors = {name: p.float() for name, p in total.items()} | unpack(tensors, "buffer")  # those of the newest
    return Rebuilt(sigma_rel, max(plan.weights), plan.profile_error, plan.weights_error, tensors, recipe)


def _within_reach(
    run: str | Path, stored: Sequence[Profile], wanted: Profile, average: Callable[[Profile], Sequence[Tensor]]
) -> Plan:
    """The plan. Raises: ValueError naming the reach of the snapshots where what is asked for is beyond it."""
    widths = sorted({p.sigma_rel for p in stored})
    if len({p.step for p in stored}) == 1 and wanted not in stored:
        raise ValueError(
            f"{run} has one snapshot up to step {wanted.step}, which gives back the averages stored in it "
            f"({' and '.join(f'{w:g}' for w in widths)}) and no other; rebuilding needs two or more"
        )
    plan = _plan(stored, wanted, 0.0 if wanted in stored else _spread(stored, wanted, average))
    if plan.reaches:
        return plan
    ends = []
    for within, beyond in ((widths[0], _NARROWEST), (widths[-1], WIDEST)):
        limit = Profile(beyond, wanted.step)
        ends.append(_reach(stored, within, limit, _spread(stored, limit, average)))
    raise ValueError(
        f"the snapshots of {run} up to step {wanted.step} do not reach sigma_rel={wanted.sigma_rel:g}: the closest "
        f"misses its profile by {plan.profile_error:.0%}, which is about {plan.missed:.2%} of the weights, and "
        f"rounding of the snapshots adds {plan.rounded:.2%}; they reach from {ends[0]:.3g} to {ends[1]:.3g} "
        "(more snapshots reach further, and a width in training.ema is stored itself)"
    )


def _plan(stored: Sequence[Profile], wanted: Profile, spread: float) -> Plan:
    weights, error = combination(stored, wanted, spread, ROUNDING)
    rows: dict[int, list[float]] = {}
    for p, weight in zip(stored, weights.tolist(), strict=True):
        rows.setdefault(p.step, []).append(weight)
    return Plan(rows, error, spread * norm(wanted))


def _spread(stored: Sequence[Profile], wanted: Profile, average: Callable[[Profile], Sequence[Tensor]]) -> float:
    """How far the weights scatter, by the newest averages of the two widths that are most like the one wanted, or of
    one width in two snapshots: the newest two, or for a wider average, which reaches further back, those at the ends.
    """
    last = [p for p in stored if p.step == wanted.step]
    widest = max(last, key=lambda p: p.sigma_rel)
    if wanted.sigma_rel > widest.sigma_rel:
        p, q = widest, next(p for p in stored if p.sigma_rel == widest.sigma_rel)
    elif len(last) > 1:
        p, q = sorted(last, key=lambda p: -inner([p], [wanted])[0, 0] / norm(p))[:2]
    else:
        p, q = stored[-2:]
    return spread_of(p, average(p), q, average(q))


def _reach(stored: Sequence[Profile], within: float, limit: Profile, spread: float) -> float:
    """The width between a stored one and that of `limit` at which the error becomes too large, by bisection."""

    def fine(width: float) -> bool:
        return _plan(stored, Profile(width, limit.step), spread).reaches

    beyond = limit.sigma_rel
    if fine(beyond):
        return beyond
    while abs(beyond - within) > 1e-3 * within:
        middle = (within + beyond) / 2
        within, beyond = (middle, beyond) if fine(middle) else (within, middle)
    return within
