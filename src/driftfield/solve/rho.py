"""Runge-Kutta methods on the flow without its linear part: `dy / d rho = eps`, `y = x / alpha`, `rho` the level.

Whatever the process, the solver sees the same plain equation; on EDM these are the ordinary methods. Single-step
DPM-Solvers are the exponential ones of the same equation in the logarithm of the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..field.base import Field
from ..process.base import Isotropic
from ..rng import Rng
from .base import Solver, reversal
from .coefficients import coefficients

_STAGES: dict[int, tuple[tuple[float, ...], ...]] = {  # each row: the weights of the earlier slopes; the last: of all
    1: ((), (1.0,)),
    2: ((), (1.0,), (1 / 2, 1 / 2)),
    3: ((), (1 / 2,), (-1.0, 2.0), (1 / 6, 4 / 6, 1 / 6)),
    4: ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0), (1 / 6, 2 / 6, 2 / 6, 1 / 6)),
}


@dataclass(frozen=True)
class RhoRK(Solver):
    """Euler, Heun, Kutta's third-order or the classical fourth-order method in the level, for `order` 1 to 4.

    `order` evaluations a step, and one for the step to time 0, which ends on the denoiser's estimate. On EDM, order 2
    is Heun's method of the source.
    Raises: ValueError for another order; TypeError for a process without one level for all directions.
    Source: Zhang and Chen 2023, Prop. 3; Karras et al. 2022, Alg. 1. [zhang2023deis] [karras2022edm]
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in _STAGES:
            raise ValueError(f"order must be 1, 2, 3 or 4, got {self.order}")

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1 if s.item() == 0 else self.order

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        if s.item() == 0:
            return field.arrive(x, t), None
        process = _leveled(field, t, s)
        begin, end = process.level(t), process.level(s)
        y = x / process.alpha(t)
        slopes: list[Tensor] = []
        *stages, last = _STAGES[self.order]
        for weights in stages:
            share = sum(weights)
            at = t if share == 0 else s if share == 1 else process.time(begin + share * (end - begin))
            inner = y
            for w, slope in zip(weights, slopes, strict=True):
                inner = inner + (end - begin) * w * slope if w else inner
            here = process.alpha(at) * inner
            slopes.append(process.eps(here, at, reversal(field).predict(here, at)))
        for w, slope in zip(last, slopes, strict=True):
            y = y + (end - begin) * w * slope
        return process.alpha(s) * y, None


def _leveled(field: Field, *times: Tensor) -> Isotropic:
    """The process. Raises: TypeError without one level for all directions, ValueError where it is infinite."""
    process = reversal(field).process
    if not isinstance(process, Isotropic):
        raise TypeError(
            f"this solver moves in the noise level, which {type(process).__name__} has not one of for all directions; "
            "use df.DEIS() or df.Heun()"
        )
    for t in times:
        if not math.isfinite(process.level(t).item()):
            raise ValueError(
                f"{type(process).__name__} keeps no signal at time {t:g}, so its level is infinite there; choose a "
                "path below it, or use df.DEIS() or df.Heun()"
            )
    return process


@dataclass(frozen=True)
class DPMSolver(Solver):
    """Single-step DPM-Solver in the logarithm of the level: `order` (1, 2, 3) evaluations a step.

    The second is at the share `r1` of the step (1/2 at order 2, 1/3 at order 3), the third at `2 r1`. One evaluation
    for the step to time 0, which ends on the denoiser's estimate. With order 2 and `r1 = 1` it is Heun's method in the
    level.
    Raises: ValueError for another order, or an `r1` that leaves the step; otherwise as `RhoRK`.
    Source: Lu et al. 2022, Algs. 4 and 5. [lu2022dpm]
    """

    order: int = 2
    r1: float | None = None

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}")
        if self.r1 is not None and not 0 < self.r1 <= (1 if self.order == 2 else 0.5):
            raise ValueError(f"r1 is a share of the step, above 0 and at most 1 (order 2) or 1/2, got {self.r1}")

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1 if s.item() == 0 else self.order

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        if s.item() == 0:
            return field.arrive(x, t), None
        process, predict = _leveled(field, t, s), reversal(field).predict
        begin, end = process.level(t).log(), process.level(s).log()
        r1 = self.r1 or 1 / max(2, self.order)

        def to(at: Tensor, *known: tuple[Tensor, Tensor]) -> Tensor:
            """The state at a time, by the line through the evaluations `(time, noise)`."""
            nodes = tuple(time.item() for time, _ in known)
            a, c = coefficients(process, "noise", "log", nodes, t.item(), at.item())
            return sum((map_(noise) for map_, (_, noise) in zip(c, known, strict=True)), a(x))

        first = process.eps(x, t, predict(x, t))
        if self.order == 1:
            return to(s, (t, first)), None
        middle = process.time((begin + r1 * (end - begin)).exp())
        here = to(middle, (t, first))
        second = process.eps(here, middle, predict(here, middle))
        if self.order == 2:
            return to(s, (t, first + (second - first) / (2 * r1))), None
        last = process.time((begin + 2 * r1 * (end - begin)).exp())
        here = to(last, (middle, second), (t, first))
        third = process.eps(here, last, predict(here, last))
        return to(s, (last, third), (t, first)), None
