"""Runge-Kutta with steps of its own choosing: every row has its own time, its own step and its own error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..field.base import Field
from ..linear import expand
from ..names import pick
from ..rng import Rng
from .base import Solver, reversal

# The stages, the last of which is the new state (first same as last), and that state less the fourth-order one.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_FIRST = 8  # evaluations of the first step
_SAFETY, _LEAST, _GREATEST = 0.9, 0.2, 10.0  # of the factor from one step to the next
_ROUNDING = 10  # units of it: no relative tolerance is finer


class Pace(NamedTuple):
    """What a row goes on with: the length `(B,)` of its next step, float64, and the velocity where it is."""

    length: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class DormandPrince(Solver):
    """Fifth order, with steps chosen so that each row's error in a step is at most `atol + rtol |x|`.

    The error is the difference from the embedded fourth-order method, as a root mean square over a row, of values
    divided by that bound (`Field.size`). Rows have their own times and steps, so what comes out for a row does not
    depend on the rows beside it; all are evaluated together, `(B,)` times at once, until the last has arrived. The
    first step costs 8 evaluations, each other 6, tried in vain or not. A step to 0 goes to the least noise of the
    process, and then by one evaluation to 0, as with the other Runge-Kutta methods.

    The steps are in the time itself or, with `clock="log"`, in its logarithm, in which the flow of noise that grows in
    proportion to the time (EDM, PFGM++) bends far less: `dx / dlog t = t dx / dt`.

    `most` is a ceiling on the evaluations of one move along a grid; `plan` and `generate` put their `nfe` in its place,
    and take a grid for its ends. On an accelerator the host waits once a step, to see whether all rows have arrived.
    Raises: ValueError for tolerances or a ceiling that no step can meet, an unknown clock, and where the ceiling is
            reached, naming rows and times; FloatingPointError where the field is not finite, or changes too fast for
            any step.
    Source: Dormand and Prince 1980, Table 2; Hairer, Norsett and Wanner 1993, Sec. II.4, for the steps.
            [dormand1980family] [hairer1993solving]
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    most: int = 1000
    clock: str = "t"

    order = 5
    adaptive = True

    def __post_init__(self) -> None:
        if not (0 <= self.rtol < math.inf and 0 < self.atol < math.inf):
            raise ValueError(f"tolerances are finite, rtol >= 0 and atol > 0; got rtol={self.rtol}, atol={self.atol}")
        pick(self.clock, {name: name for name in ("t", "log")}, "clock")
        if self.most < _FIRST + 1:
            raise ValueError(
                f"DormandPrince needs {_FIRST} evaluations for its first step and 1 to arrive at time 0, "
                f"but may spend only {self.most}"
            )

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return self.most

    def within(self, nfe: int) -> DormandPrince:
        return replace(self, most=nfe)

    def step(
        self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Pace | None, rng: Rng
    ) -> tuple[Tensor, Pace | None]:
        finest = _ROUNDING * torch.finfo(x.dtype).eps
        if 0 < self.rtol < finest:
            raise ValueError(
                f"rtol={self.rtol:g} is finer than {x.dtype} can tell; use at least {finest:.1e}, or compute in float64"
            )
        if s != 0:
            return self._move(field, x, t, s, state, self.most)
        low = torch.tensor(reversal(field).process.span[0], dtype=torch.float64)
        if low < t:
            x, _ = self._move(field, x, t, low, state, self.most - 1)
        return field.arrive(x, torch.minimum(t, low)), None

    def _move(
        self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Pace | None, most: int
    ) -> tuple[Tensor, Pace]:
        begin, end = (math.log(u.item()) if self.clock == "log" else u.item() for u in (t, s))
        way = math.copysign(1.0, end - begin)
        time = torch.full((len(x),), begin, dtype=torch.float64, device=x.device)
        failed = torch.zeros_like(time, dtype=torch.bool)  # the last attempt of a row
        spent = 0
        if state is None:
            state, spent = self._start(field, x, time, end), 2
        length, k = state
        while True:
            last = length >= (end - time).abs() / 1.01  # no crumb is left for a step of its own
            ahead = torch.where(last, end, time + way * length)
            h = ahead - time
            away = time != end
            moving, stuck = torch.stack((away.any(), (away & (h == 0)).any())).tolist()
            if not moving:
                return x, Pace(length, k)
            if stuck:
                row = int((away & (h == 0)).nonzero()[0])
                raise FloatingPointError(
                    f"no step is short enough for row {row} at time {self._told(time[row]):.6g}: the field is not "
                    "finite there, or not smooth; check the denoiser"
                )
            if spent + 6 > most:
                raise ValueError(self._short(time, end, most))
            slopes = [k]
            for node, weights in zip(_NODES, _STAGES, strict=True):
                trial = x + expand(h, x) * _sum(weights, slopes)
                slopes.append(self._slope(field, trial, ahead if node == 1 else time + node * h))
            spent += 6
            with torch.no_grad():
                size = field.size(expand(h, x) * _sum(_ERROR, slopes) / self._bound(x, trial)).double()
                good = size <= 1  # not so where it is not a number
                factor = (_SAFETY * size ** (-1 / self.order)).clamp(_LEAST, _GREATEST)
                factor = torch.where(size.isfinite(), torch.where(failed, factor.clamp(max=1), factor), _LEAST)
                length = torch.where(last & good, torch.maximum(length, h.abs() * factor), h.abs() * factor)
                failed = ~good
            x, k = (torch.where(expand(good, x), new, old) for new, old in ((trial, x), (slopes[-1], k)))
            time = torch.where(good, ahead, time)

    def _start(self, field: Field, x: Tensor, time: Tensor, end: float) -> Pace:
        """The velocity at `x`, and a first step: from how fast it changes along an Euler step."""
        k = self._slope(field, x, time)
        with torch.no_grad():
            bound, left = self._bound(x, x), (end - time).abs()
            speed = field.size(k / bound).double()
            if not bool(speed.isfinite().all()):
                row = int((~speed.isfinite()).nonzero()[0])
                raise FloatingPointError(
                    f"the field is not finite in row {row} at time {self._told(time[row]):.6g}; "
                    "check the denoiser there"
                )
            moved = field.size(x / bound).double()
            guess = torch.where((moved > 1e-5) & (speed > 1e-5), 0.01 * moved / speed, 1e-6 * left).minimum(left)
            h = guess.copysign(end - time)
            bend = field.size((self._slope(field, x + expand(h, x) * k, time + h) - k) / bound).double() / guess
            steep = torch.maximum(speed, bend)
            flat = torch.maximum(1e-6 * left, 1e-3 * guess)
            length = torch.where(steep > 1e-15, (0.01 / steep) ** (1 / self.order), flat)
            length = torch.where(length.isfinite(), length, guess)
            return Pace(length.minimum(100 * guess), k)

    def _slope(self, field: Field, x: Tensor, time: Tensor) -> Tensor:
        """The velocity at `time` `(B,)` of this clock, per unit of it."""
        if self.clock == "t":
            return field.velocity(x, time)
        t = time.exp()
        return expand(t, x) * field.velocity(x, t)

    def _told(self, time: Tensor | float) -> float:
        """A time of this clock as the process's own."""
        return math.exp(time) if self.clock == "log" else float(time)

    def _bound(self, x: Tensor, y: Tensor) -> Tensor:
        return self.atol + self.rtol * torch.maximum(x.abs(), y.abs())

    def _short(self, time: Tensor, end: float, most: int) -> str:
        away = (time != end).nonzero()[:, 0]
        return (
            f"{most} evaluations do not reach time {self._told(end):.6g} at rtol={self.rtol:g} and atol={self.atol:g}: "
            f"{len(away)} of {len(time)} rows are on their way, row {int(away[0])} at time "
            f"{self._told(time[away[0]]):.6g}; allow more (nfe, or most=), or coarser tolerances"
        )


def _sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for w, v in zip(weights[1:], slopes[1:], strict=True):
        total = total + w * v if w else total
    return total
