"""The dissipative wave as a process: every coordinate runs at unit speed and turns back at random moments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..linear import expand, flat
from ..rng import Rng, gamma, poisson, uniform
from .base import SCRATCH, Isotropic, check_span
from .smoothing import LEVELS

_FORGOTTEN = 10.0  # damping times the last time, at least: the fronts, which remember the data, then carry exp(-10)
_LEAST = 3.09  # damping times the level there
_NEWTON = 8  # steps that invert the level to rounding
_SMALL, _NEAR = 0.05, 1e-3  # below which a series takes over: of the level, of a ratio of Bessel functions
_ROUNDING = 8  # units of rounding within which a particle is on the front


@dataclass(frozen=True)
class DissipativeWave(Isotropic):
    """`phi_tt + 2 damping phi_t = phi_xx` in every coordinate, `p = phi_t + 2 damping phi`: the telegraph process.

    A particle runs at speed 1 to the left or right and turns back `damping` times per unit of time on average. After
    the time `t` a share `exp(-damping t)` has never turned: these are two fronts at `x_0 +- t`, atoms of the law, ahead
    of which there is nothing. Behind them, with `q^2 = t^2 - (x - x_0)^2`, the density is
    `exp(-damping t) / 2 damping (I_0(damping q) + t I_1(damping q) / q)`. The flow is the mean direction of the
    particles at `x`. The level is the standard deviation of a coordinate; late it is diffusion, `sqrt(t / damping)`, at
    first it grows like `t`, and `1 / damping` is where one becomes the other.

    In `N` dimensions each coordinate has its own process: the wave that is the same in all directions is no density,
    its kernel is negative behind the front. So the noise here is rotation-invariant in one dimension only, and what
    needs a radial profile (`Empirical`) refuses; `perturb`, `target` and `log_kernel` are exact, the fronts included.
    `log_kernel` counts an atom as a density over the rounding of the state.
    Units:  `damping` is in turns per unit of length, as the speed is 1. `levels` are the least and the most noise, and
            `span` their times.
    Raises: ValueError for a damping that is not a finite number above 0, or levels at the upper of which the fronts
            still carry more than `exp(-10)`.
    Source: Goldstein 1951; Liu et al. 2023, Sec. 4, for the equation. [goldstein1951telegraph] [liu2023genphys]
    """

    damping: float = 10.0
    levels: tuple[float, float] = LEVELS
    span: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "damping", float(self.damping))
        if not 0 < self.damping < math.inf:
            raise ValueError(f"the damping of DissipativeWave must be finite and > 0, got {self.damping}")
        check_span(self.levels)
        if self.levels[0] == 0:
            raise ValueError(f"levels are noise above 0, got {self.levels}")
        ends = self.time(torch.tensor(self.levels, dtype=torch.float64)).tolist()
        object.__setattr__(self, "span", (ends[0], ends[1]))
        if self.damping * self.span[1] < _FORGOTTEN:
            raise ValueError(
                f"at the level {self.levels[1]:g} the fronts of DissipativeWave(damping={self.damping:g}) still carry "
                f"{math.exp(-self.damping * self.span[1]):.2g} of the data as they were; raise the damping to "
                f"{_LEAST / self.levels[1]:.3g} or the upper level to {_LEAST / self.damping:.3g}"
            )

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """The standard deviation of a coordinate: `sqrt(u - 1 + exp(-u)) / (sqrt(2) damping)`, `u = 2 damping t`."""
        return _excess(2 * self.damping * t).sqrt() / (math.sqrt(2) * self.damping)

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), -torch.expm1(-2 * self.damping * t) / (2 * self.damping * self.sigma(t))

    def time(self, level: Tensor) -> Tensor:
        """By Newton's method on a convex function, from above, so that it cannot miss."""
        goal = 2 * (self.damping * level).square()
        u = torch.minimum(1 + goal, goal + (2 * goal).sqrt())
        for _ in range(_NEWTON):
            u = u + (_excess(u) - goal) / torch.expm1(-u)
        return torch.where(level > 0, u, 0) / (2 * self.damping)

    def telegraph(self, like: Tensor, t: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Displacements after the time `t`, and the directions +-1 at that moment, both like `like` but in float64.

        After `n` turns, of which the moments are even, the share of the time spent in the first direction is Beta with
        `floor(n / 2) + 1` and `ceil(n / 2)`: all of it at `n = 0`.
        """
        like = like.double()
        time = expand(t.double(), like)
        turns = poisson(self.damping * time + torch.zeros_like(like), rng)
        there, back = (turns / 2).floor() + 1, (turns / 2).ceil()
        a, b = gamma(there, like, rng), gamma(back.clamp(min=1), like, rng)
        b = b.where(turns > 0, 0)
        first = torch.where(uniform(like, rng) < 0.5, -1.0, 1.0).to(like)
        return first * time * ((a - b) / (a + b)), torch.where(turns % 2 == 0, first, -first)

    def perturb(self, x0: Tensor, t: Tensor, rng: Rng) -> Tensor:
        return (x0.double() + self.telegraph(x0, t, rng)[0]).to(x0.dtype)

    def noise(self, like: Tensor, rng: Rng) -> Tensor:
        """Draw the noise of level 1, shaped like the batch `like`."""
        return self.perturb(torch.zeros_like(like), self.time(torch.ones((), dtype=torch.float64)), rng)

    def direction(self, gap: Tensor, t: Tensor, width: Tensor | float = 0.0) -> Tensor:
        """The mean direction, in [-1, 1], of what moved by `gap`, entry by entry; `t` broadcasts to it.

        Its sign on the front, from `width` behind it; behind that
        `damping gap (I_1 / z) / (I_0 + damping t I_1 / z)` at `z = damping q`.
        """
        share = self._share(gap, t)
        inside = self.damping * gap * share / (1 + self.damping * t * share)
        return torch.where(gap.abs() >= t - width, gap.sign(), inside)

    def _share(self, gap: Tensor, t: Tensor) -> Tensor:
        """`I_1(z) / (z I_0(z))`."""
        z = self.damping * ((t - gap) * (t + gap)).clamp(min=0).sqrt()
        ratio = torch.special.i1e(z) / (z * torch.special.i0e(z))
        return torch.where(z > _NEAR, ratio, 0.5 - z.square() / 16)

    def density(self, gap: Tensor, t: Tensor) -> Tensor:
        """Of one coordinate's displacement between the fronts, where `|gap| < t`, and 0 elsewhere; `t` broadcasts.

        Its mass is `1 - exp(-damping t)`; each front has half of the rest.
        """
        q = ((t - gap) * (t + gap)).clamp(min=0).sqrt()
        fall = -self.damping * gap.square() / (t + q)  # of damping (q - t), without cancellation
        inside = self.damping / 2 * fall.exp() * torch.special.i0e(self.damping * q)
        return torch.where(gap.abs() < t, inside * (1 + self.damping * t * self._share(gap, t)), 0)

    def target(self, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """`x - (level / level') E[direction | x_t = x, x_0]`, entry by entry."""
        gap, time = x.double() - x0.double(), expand(t.double(), x.double())
        pace = self.sigma(time) / self.slopes(time)[1]
        return (x.double() - pace * self.direction(gap, time, self._width(x, time, x0))).to(x.dtype)

    def _width(self, x: Tensor, time: Tensor, x0: Tensor) -> Tensor:
        """What rounding may move a particle away from the front."""
        return _ROUNDING * torch.finfo(x.dtype).eps * (x.abs() + x0.abs() + time)

    def log_kernel(self, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        return self._log_kernel(x, t, x0).to(x.dtype)

    def _log_kernel(self, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        rows, time = flat(x)[:, None], expand(t.double(), flat(x).double())
        time = time[:, None] if time.ndim else time
        size = max(1, SCRATCH // max(1, x.numel()))
        parts = []
        for part in torch.split(flat(x0), size):
            gap, width = rows.double() - part.double(), self._width(rows, time, part).double()
            front = torch.exp(-self.damping * time) / (4 * width)
            at = self.density(gap, time) + torch.where((gap.abs() - time).abs() <= width, front, 0)
            parts.append(at.log().sum(2))
        return torch.cat(parts, 1)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """In float64; the fronts are as wide as the rounding of `x` in its own dtype."""
        t = torch.tensor(self.span[1], dtype=torch.float64)
        return self._log_kernel(x, t, torch.zeros_like(x[:1]))[:, 0]

    def _refuse(self) -> TypeError:
        return TypeError(
            "the noise of DissipativeWave is not the same in all directions, and its fronts are atoms, so it has no "
            "radial profile; train a network on it, or use log_kernel and target"
        )

    def pull(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        raise self._refuse()

    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        raise self._refuse()

    def log_peak(self, t: Tensor, n: int) -> Tensor:
        raise self._refuse()


def _excess(u: Tensor) -> Tensor:
    """`u - 1 + exp(-u)`, without the cancellation at small `u`."""
    series = u.square() / 2 * (1 - u / 3 * (1 - u / 4 * (1 - u / 5 * (1 - u / 6 * (1 - u / 7 * (1 - u / 8))))))
    return torch.where(u < _SMALL, series, u + torch.expm1(-u))
