"""Paths of times made for one denoiser, one solver and one budget, from trajectories alone: nothing is trained.

Teacher trajectories are walked on a fine grid. A first-order step from any of its times to any later one needs no
evaluation but the one the teacher made there, so the deviation of every possible step is known at the price of the
teacher, and dynamic programming finds the times whose deviations add up to the least. Later errors weigh more or less
than earlier ones in different solvers; paths for several such weights, and the named grids, are therefore tried with
the solver itself, and the one that ends nearest to the teacher is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .denoise.base import Denoiser
from .field.reverse import Reverse
from .generation import first_state, plan
from .grid import GRIDS, named_grid
from .linear import flat
from .names import pick
from .process.base import Isotropic, Process
from .rng import rows
from .solve.base import Solver, integrate, sample
from .solve.exponential import held
from .solve.named import SOLVERS
from .solve.rk import Heun

GAMMAS = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)


@dataclass(frozen=True, eq=False)
class Found:
    """A path, its root-mean-square `error` against the teacher, and the errors of all that were tried, by name."""

    path: Tensor
    error: float
    tried: dict[str, float]


@torch.no_grad()
def search_grid(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    nfe: int,
    solver: str | Solver = "deis",
    cond: Any = None,
    seed: int = 0,
    fine: int = 60,
    device: torch.device | str = "cpu",
    watch: Callable[[str, float], None] = lambda name, error: None,
) -> Found:
    """The path for `solver` with `nfe` evaluations, by `shape[0]` trajectories of `shape` `(n, *data)` from `seed`.

    The teacher is Heun's method with `fine` steps. Errors are root mean squares over the values of samples, in the
    data's units. `cond` is as for `generate`. `watch` is told of each path tried and its error.
    Raises: ValueError for a solver that is adaptive or adds noise, a budget below one step, or a `fine` grid of fewer
            than twice as many steps.
    Source: Chen et al. 2024, Alg. 1, for the dynamic programme. [chen2024gits]
    """
    if isinstance(solver, str):
        solver = pick(solver, SOLVERS, "solver")()
    if solver.adaptive or solver.noisy:
        what = "chooses its own steps" if solver.adaptive else "adds noise, so that no path of it can be compared"
        raise ValueError(f"{type(solver).__name__} {what}; search times for another solver, such as deis or heun")
    builders = ["natural", *(name for name in GRIDS if name != "natural")]
    named = {name: plan(process, solver=solver, nfe=nfe, grid=name) for name in builders}
    chosen = named["natural"]
    steps = len(chosen.path) - 1
    if fine < 2 * steps:
        raise ValueError(f"a fine grid of {fine} steps is too coarse to choose {steps} from; take {2 * steps} or more")
    rng = rows(seed, 0, shape[0], torch.device(device))
    field = Reverse(process, denoiser, cond)
    teacher = named_grid("natural")(process, fine)
    x = first_state(process, teacher[0], tuple(shape), rng, torch.float32)
    states = [state for _, state in integrate(field, x, teacher, Heun(), rng)]
    costs = deviations(field, teacher, states)
    candidates: dict[str, Tensor] = {}
    for name, p in named.items():  # a name may be another's second; where a path climbs it adds noise
        if bool((p.path.diff() < 0).all()) and not any(torch.equal(p.path, path) for path in candidates.values()):
            candidates[name] = p.path
    for gamma in GAMMAS:
        candidates[f"gamma {gamma:g}"] = teacher[cheapest(costs, steps, gamma)]
    tried: dict[str, float] = {}
    best = ""
    for name, path in candidates.items():
        fits = plan(process, solver=chosen.solver, nfe=nfe, grid=path)
        tried[name] = _rms(sample(field, x, fits.path, fits.solver, rng), states[-1])
        watch(name, tried[name])
        best = name if not best or tried[name] < tried[best] else best
    return Found(candidates[best], tried[best], tried)


def deviations(field: Reverse, times: Tensor, states: Sequence[Tensor]) -> Tensor:
    """`(T, T)`: how far a first-order step from `states[i]` at `times[i]` misses `states[j]`, for `j > i`; else 0.

    Root mean squares in the data's units.
    """
    costs = torch.zeros(len(times), len(times), dtype=torch.float64)
    for i, t in enumerate(times[:-1]):
        y = field.predict(states[i], t)
        for j in range(i + 1, len(times)):
            scale = field.process.alpha(times[j]).item() if isinstance(field.process, Isotropic) else 1.0
            costs[i, j] = _rms(held(field.process, states[i], y, t, times[j]), states[j]) / scale
    return costs


def cheapest(costs: Tensor, steps: int, gamma: float) -> list[int]:
    """The numbers of `steps + 1` times, the first and the last among them, whose steps cost the least in all.

    The cost of a step counts `gamma` times as much for each step that comes before it: above 1, what is done late is
    the dearer. Raises: ValueError for more steps than there are.
    """
    total = len(costs)
    if not 1 <= steps < total:
        raise ValueError(f"between {total} times there are 1 to {total - 1} steps, got {steps}")
    reach = torch.full((total, total), torch.inf, dtype=torch.float64)
    reach[torch.ones(total, total).triu(1).bool()] = costs[torch.ones(total, total).triu(1).bool()]
    left = reach[:, -1].clone()  # the least cost from each time to the last in the steps so far
    choices: list[Tensor] = []
    for _ in range(steps - 1):
        left, choice = (reach + gamma * left).min(1)
        choices.append(choice)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return [*path, total - 1]


def _rms(a: Tensor, b: Tensor) -> float:
    return flat(a - b).double().square().mean().sqrt().item()
