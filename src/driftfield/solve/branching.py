"""Particles that are born and die along a flow: weights, and populations that copy the heavy and drop the light."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..field.births import Births, WithWeight
from ..rng import uniform
from .base import Path, Solver, moves
from .rk import Heun

_MOST = 10_000_000  # particles in a population whose number is free


@dataclass(frozen=True, eq=False)
class Weighted:
    """Particles `x`, `(B, *data)`, each standing for `exp(log_w)` of those there were, `(B,)` in float64."""

    x: Tensor
    log_w: Tensor

    @property
    def share(self) -> Tensor:
        """The weights, normalised: `(B,)`."""
        return self.log_w.softmax(0)

    @property
    def ess(self) -> Tensor:
        """The effective number of particles, from 1 to B: that of even weights with the same variance of a mean."""
        return 1 / self.share.square().sum()

    @property
    def log_total(self) -> Tensor:
        """The logarithm of the sum of the weights: over the number of particles at the start, the growth of mass."""
        return self.log_w.logsumexp(0)


def systematic(population: Weighted, rng: torch.Generator) -> Weighted:
    """As many particles, each `floor` or `ceil` of its share of them often, all of the mean weight: unbiased.

    One draw serves all. Source: Kitagawa 1996, App. [kitagawa1996monte]
    """
    w, n = population.share, len(population.x)
    u = uniform(w[:1], rng)
    at = (torch.arange(n, dtype=w.dtype, device=w.device) + u) / n
    which = torch.searchsorted(w.cumsum(0), at).clamp(max=n - 1)
    mean = (population.log_total - math.log(n)).expand(n)
    return Weighted(population.x[which], mean)


def copied(population: Weighted, rng: torch.Generator) -> Weighted:
    """Each particle `floor(w + U)` times, `U` uniform, all of weight 1: the number of particles follows the mass.

    Raises: ValueError where none is left, or more than 10 million are to be expected.
    Source: the branching of diffusion Monte Carlo, Umrigar et al. 1993. [umrigar1993diffusion]
    """
    w = population.log_w.exp()
    if not w.sum() <= _MOST:
        raise ValueError(
            f"about {w.sum():.3g} particles are to be made of {len(w)}, more than {_MOST:,}; give weights of mean 1 or "
            "fewer particles, or keep their number (free=False)"
        )
    count = (w + uniform(w, rng)).floor().long()
    x = population.x.repeat_interleave(count, 0)
    if not len(x):
        raise ValueError("every particle has died; begin with more, or keep their number (free=False)")
    return Weighted(x, w.new_zeros(len(x)))


def branching(
    field: Births,
    x: Tensor | Weighted,
    grid: Path,
    solver: Solver | None = None,
    *,
    rng: torch.Generator,
    threshold: float = 1.0,
    free: bool = False,
) -> Iterator[tuple[Tensor, Weighted]]:
    """Yield `(t, particles)` at every time of a path: particles follow the flow and their weights its births.

    The velocity and the rate are integrated together, by any Runge-Kutta `solver` (Heun unless given). After each move
    the particles are resampled (`systematic`, their number constant) if their effective number has fallen below
    `threshold` times it: 1 is branching at every move, 0 never, so that the weights stay. With `free` each is copied by
    its weight after every move, and the number follows the mass. Both keep the mean of every weighted sum.

    Copies follow the same flow and stay one point; where the path climbs, the noise of the process parts them.
    Raises: ValueError for a threshold outside [0, 1], or one beside `free`, and for weights that are not `(B,)`, NaN,
            infinite or all 0; TypeError where the path climbs and the process has no upward move.
    Source: Liu et al. 2023, Sec. 3, for births and deaths. [liu2023genphys]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a share of the number of particles, from 0 to 1, got {threshold}")
    if free and threshold != 1:
        raise ValueError("a population that is free is not resampled; leave the threshold out")
    if not len(x.x if isinstance(x, Weighted) else x):
        raise ValueError("there are no particles to follow; give at least one")
    start = x if isinstance(x, Weighted) else Weighted(x, torch.zeros(len(x), dtype=torch.float64, device=x.device))
    if start.log_w.shape != start.x.shape[:1]:
        raise ValueError(
            f"log_w is the logarithm of one weight a particle, ({len(start.x)},), got {tuple(start.log_w.shape)}"
        )
    if not bool((start.log_w < math.inf).all() & (start.log_w > -math.inf).any()):
        raise ValueError(
            f"log_w of {len(start.x)} particles should be numbers below infinity, not all of them -inf (weight 0), got "
            f"{int(start.log_w.isnan().sum())} NaN, {int(start.log_w.isposinf().sum())} inf and "
            f"{int(start.log_w.isneginf().sum())} -inf"
        )
    return _walk(field, start, grid, solver or Heun(), rng, threshold, free)


@torch.no_grad()
def _walk(
    field: Births, now: Weighted, grid: Path, solver: Solver, rng: torch.Generator, threshold: float, free: bool
) -> Iterator[tuple[Tensor, Weighted]]:
    path = list(moves(grid, solver))
    yield path[0].t, now
    for move in path:
        both = WithWeight(field, tuple(now.x.shape[1:]))
        # From weight 1: the growth of one move is small, and stays exact beside a state in float32.
        z = both.pack(now.x, torch.zeros_like(now.log_w))
        if move.by is None:
            z = both.diffuse(z, move.t, move.s, rng)
        else:
            z, _ = solver.step(both, z, move.t, move.s, solver.init(), rng)
        x, grown = both.unpack(z)
        now = Weighted(x, now.log_w + grown.double())
        if free:
            now = copied(now, rng)
        elif now.ess < threshold * len(now.x):
            now = systematic(now, rng)
        yield move.s, now
