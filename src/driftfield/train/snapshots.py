"""Snapshots of a run's averages, `RUN/ema/STEP.safetensors`, and any other average rebuilt from them.

Weights are kept in float16: each entry to a 2048th of the largest of its tensor, or exactly where that would not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..plain import to_plain
from ..recipe import WIDEST, Recipe
from .checkpoint import pack, save, unpack, weights_and_recipe
from .ema import Profile, combination

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


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """Weights rebuilt from snapshots: the average of relative width `sigma_rel` as it was at step `step`.

    `error` is that of the profile (see `combination`); the weights are closer, as neighbouring steps are alike.
    """

    sigma_rel: float
    step: int
    error: float
    tensors: dict[str, Tensor]
    recipe: Recipe

    def save(self, path: Path) -> None:
        """Write a weights file, whole or not at all."""
        notes = {"recipe": to_plain(self.recipe), "step": self.step, "sigma_rel": self.sigma_rel}
        save(path, self.tensors, {**notes, "profile_error": self.error})


def planned(
    run: str | Path, sigma_rel: float, step: int | None = None, trust: Sequence[str] = ()
) -> tuple[dict[int, list[float]], float]:
    """What `rebuild` will sum: for the step of each snapshot the weights of its averages; and the profile's error.

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
    widths = weights_and_recipe(taken[step], trust)[1].training.ema
    steps = [s for s in taken if s <= step]
    stored = [Profile(width, s) for s in steps for width in widths]
    weights, error = combination(stored, Profile(sigma_rel, step))
    _check_reach(run, stored, sigma_rel, step, error)
    return dict(zip(steps, weights.reshape(len(steps), -1).tolist(), strict=True)), error


def rebuild(run: str | Path, sigma_rel: float, step: int | None = None, trust: Sequence[str] = ()) -> Rebuilt:
    """The average of relative width `sigma_rel` at a snapshot's `step` (the newest by default), from it and those
    before it, summed in float64.

    Raises: ValueError where the run has no snapshots or none at `step`, or where they do not reach `sigma_rel`,
    naming the widths they do; FileNotFoundError where there is no run.
    Source: Karras et al. 2024, Sec. 3.2. [karras2024edm]
    """
    weights, error = planned(run, sigma_rel, step, trust)
    paths = snapshots(Path(run))
    total: dict[str, Tensor] = {}
    for s, row in weights.items():
        tensors, recipe = weights_and_recipe(paths[s], trust)
        for i, weight in enumerate(row):
            for name, p in unpack(tensors, f"average{i}").items():
                total[name] = total.get(name, 0) + weight * p.double()
    tensors = {name: p.float() for name, p in total.items()} | unpack(tensors, "buffer")  # those of the newest
    return Rebuilt(sigma_rel, max(weights), error, tensors, recipe)


def _check_reach(run: str | Path, stored: Sequence[Profile], sigma_rel: float, step: int, error: float) -> None:
    """Raises: ValueError naming the reach of the snapshots where the profile asked for is beyond it."""
    widths = sorted({p.sigma_rel for p in stored})
    if len({p.step for p in stored}) == 1 and sigma_rel not in widths:
        raise ValueError(
            f"{run} has one snapshot up to step {step}, which gives back the averages stored in it "
            f"({' and '.join(f'{w:g}' for w in widths)}) and no other; rebuilding needs two or more"
        )
    if error > _FURTHEST:
        low, high = _reach(stored, step, widths[0], _NARROWEST), _reach(stored, step, widths[-1], WIDEST)
        raise ValueError(
            f"the snapshots of {run} up to step {step} do not reach sigma_rel={sigma_rel:g}: the closest is "
            f"{error:.0%} off; they reach from {low:.3g} to {high:.3g} (more snapshots reach further)"
        )


def _reach(stored: Sequence[Profile], step: int, within: float, beyond: float) -> float:
    """The width between a stored one and the limit `beyond` at which the error becomes too large, by bisection."""

    def fine(width: float) -> bool:
        return combination(stored, Profile(width, step))[1] <= _FURTHEST

    if fine(beyond):
        return beyond
    while abs(beyond - within) > 1e-3 * within:
        middle = (within + beyond) / 2
        within, beyond = (middle, beyond) if fine(middle) else (within, middle)
    return within
