"""One loop that drives every solver along a path of times.

A grid is a path: where it falls the solver integrates the field, where it climbs the field adds exactly the noise of
its process. Churn and Restart are therefore paths, and every solver can be restarted.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..field.base import Field
from ..rng import Rng


class Solver(ABC):
    """One move of a state along a field. A frozen value: what it remembers between moves is its `state`."""

    order: int
    adaptive: bool = False  # whether it chooses its own steps within a move
    noisy: bool = False  # whether it adds noise of its own
    remembered: int = 1  # evaluations in its memory, this step's among them, once that is full

    def init(self) -> Any:
        """The memory with which a path begins; None for one-step methods."""
        return None

    @abstractmethod
    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        """Move `x` from time `t` to time `s` (both `()`); return it with the new memory."""

    @abstractmethod
    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        """How often `step` evaluates the field between `t` and `s`; `fresh`: with the memory of `init`.

        At most so often, if the solver is adaptive.
        """

    def within(self, nfe: int) -> Solver:
        """An adaptive solver with `nfe` as its ceiling for one move; any other solver as it is."""
        return self


class Reversal(Protocol):
    """What a solver needs that knows more of the flow than its velocity: see `Reverse`."""

    process: Any
    s_noise: float

    def predict(self, x: Tensor, t: Tensor) -> Tensor:
        """The denoiser's estimate at the state `x`."""


def reversal(field: Field) -> Reversal:
    """The field as the reversal of a process. Raises: TypeError for any other, such as one of particles."""
    if hasattr(field, "process") and hasattr(field, "predict") and hasattr(field, "s_noise"):
        found: Reversal = field
        return found
    raise TypeError(
        f"this solver needs a process and its denoiser, which {type(field).__name__} is not made of; use a Runge-Kutta "
        "solver (df.Heun(), df.RK4())"
    )


class Move(NamedTuple):
    """From the time `t` to `s` by a solver, whose memory is `fresh` or not; by the process's own noise where None."""

    t: Tensor
    s: Tensor
    by: Solver | None
    fresh: bool

    @property
    def evaluations(self) -> int:
        """How often it evaluates the field."""
        return 0 if self.by is None else self.by.evaluations(self.t, self.s, self.fresh)


Path = Tensor | Sequence[float]  # times, `()` float64 on the CPU; numbers are what compiled code can decide on


def moves(grid: Path, solver: Solver, again: Solver | None = None) -> Iterator[Move]:
    """The moves of a path; the solver is None where the path climbs.

    A path that ends above its start encodes data: it never adds noise; one that ends at or below it adds noise on every
    climb. `again` solves between a climb and the return
    to the level the climb began at. Raises: ValueError for a path of fewer than two times, or with a repeated time.
    """
    shape = tuple(grid.shape) if isinstance(grid, Tensor) else (len(grid),)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"a path is a 1-d tensor of two times or more, got shape {shape}")
    known = grid.tolist() if isinstance(grid, Tensor) else grid
    if not all(0 <= t < math.inf for t in known) or known[0] == 0:
        raise ValueError(f"a path holds finite times >= 0 and begins above 0, got {', '.join(f'{t:g}' for t in known)}")
    if any(a == b for a, b in pairwise(known)):
        raise ValueError("a path repeats a time; neighbouring times must differ")
    downhill = known[-1] <= known[0]
    base: float | None = None
    used: set[int] = set()  # since the last climb
    for (t, s), (begin, end) in zip(pairwise(map(_time, grid)), pairwise(known), strict=True):
        if downhill and end > begin:
            base = begin if base is None else min(base, begin)
            used.clear()
            yield Move(t, s, None, True)
        else:
            by = again if again is not None and base is not None else solver
            yield Move(t, s, by, id(by) not in used)
            used.add(id(by))
            if base is not None and end <= base:
                base = None


def _time(t: Tensor | float) -> Tensor:
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


def longest(grid: Path, solver: Solver, again: Solver | None = None) -> int:
    """The most steps that `solver` makes on a path without forgetting."""
    best = run = 0
    for move in moves(grid, solver, again):
        if move.by is solver:
            run = 1 if move.fresh else run + 1
            best = max(best, run)
    return best


def cost(grid: Path, solver: Solver, again: Solver | None = None) -> int:
    """The number of evaluations that `integrate` spends on a path."""
    return sum(move.evaluations for move in moves(grid, solver, again))


def integrate(
    field: Field, x: Tensor, grid: Path, solver: Solver, rng: Rng, again: Solver | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `(t, x_t)` at every point of the path `grid`, its start included.

    `x` is the state at `grid[0]`, `(B, ...)`; `grid` a 1-d float64 CPU tensor of the process's times. A multistep
    solver forgets its history at a climb. Gradients flow if they are enabled. See `moves` for `again`.
    """
    state: dict[int, Any] = {}
    yield _time(grid[0]), x
    for t, s, by, fresh in moves(grid, solver, again):
        if by is None:
            x = field.diffuse(x, t, s, rng)
        else:
            x, state[id(by)] = by.step(field, x, t, s, by.init() if fresh else state[id(by)], rng)
        yield s, x


@torch.no_grad()
def sample(field: Field, x: Tensor, grid: Path, solver: Solver, rng: Rng, again: Solver | None = None) -> Tensor:
    """The last state of `integrate`, without gradients.

    With the times as numbers, `tuple(grid.tolist())`, a path on which nothing is drawn compiles to one graph, by
    `torch.compile(..., fullgraph=True)` of a function of the state that calls this, with any solver of steps given and
    any process of one noise level.
    """
    for _, last in integrate(field, x, grid, solver, rng, again):
        x = last
    return x
