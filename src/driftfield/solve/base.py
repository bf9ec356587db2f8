"""One loop that drives every solver along a path of times.

A grid is a path: where it falls the solver integrates the field, where it climbs the field adds exactly the noise of
its process. Churn and Restart are therefore paths, and every solver can be restarted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..field.base import Field
from ..rng import Rng


class Solver(ABC):
    """One move of a state along a field. A frozen value: what it remembers between moves is its `state`."""

    order: ClassVar[int]

    def init(self) -> Any:
        """The memory with which a path begins; None for one-step methods."""
        return None

    @abstractmethod
    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        """Move `x` from time `t` to time `s` (both `()`); return it with the new memory."""

    @abstractmethod
    def evaluations(self, t: Tensor, s: Tensor) -> int:
        """How often `step` evaluates the field between `t` and `s`."""


def moves(grid: Tensor, solver: Solver, again: Solver | None = None) -> Iterator[tuple[Tensor, Tensor, Solver | None]]:
    """Yield `(t, s, solver)` for each move of a path; the solver is None where the path climbs.

    A path that ends above its start encodes data: it never adds noise; one that ends at or below it adds noise on every
    climb. `again` solves between a climb and the return
    to the level the climb began at. Raises: ValueError for a path of fewer than two times, or with a repeated time.
    """
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"a path is a 1-d tensor of two times or more, got shape {tuple(grid.shape)}")
    if bool((grid[1:] == grid[:-1]).any()):
        raise ValueError("a path repeats a time; neighbouring times must differ")
    downhill = bool(grid[-1] <= grid[0])
    base: Tensor | None = None
    for t, s in pairwise(grid):
        if downhill and s > t:
            base = t if base is None else torch.minimum(base, t)
            yield t, s, None
        else:
            yield t, s, again if again is not None and base is not None else solver
            if base is not None and s <= base:
                base = None


def cost(grid: Tensor, solver: Solver, again: Solver | None = None) -> int:
    """The number of evaluations that `integrate` spends on a path."""
    return sum(by.evaluations(t, s) for t, s, by in moves(grid, solver, again) if by is not None)


def integrate(
    field: Field, x: Tensor, grid: Tensor, solver: Solver, rng: Rng, again: Solver | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `(t, x_t)` at every point of the path `grid`, its start included.

    `x` is the state at `grid[0]`, `(B, ...)`; `grid` a 1-d float64 CPU tensor of the process's times. A multistep
    solver forgets its history at a climb. Gradients flow if they are enabled. See `moves` for `again`.
    """
    state = {id(by): by.init() for by in (solver, again) if by is not None}
    yield grid[0], x
    for t, s, by in moves(grid, solver, again):
        if by is None:
            x = field.diffuse(x, t, s, rng)
            state = {id(by): by.init() for by in (solver, again) if by is not None}
        else:
            x, state[id(by)] = by.step(field, x, t, s, state[id(by)], rng)
        yield s, x


@torch.no_grad()
def sample(field: Field, x: Tensor, grid: Tensor, solver: Solver, rng: Rng, again: Solver | None = None) -> Tensor:
    """The last state of `integrate`, without gradients."""
    for _, last in integrate(field, x, grid, solver, rng, again):
        x = last
    return x
