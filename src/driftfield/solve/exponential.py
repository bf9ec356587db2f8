"""One exponential integrator for all processes: DDIM, DEIS, DPM-Solver++, UniPC and gDDIM are its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..field.base import Field
from ..linear import Linear
from ..names import pick
from ..process.base import Isotropic
from ..rng import Rng
from .base import Solver, reversal
from .coefficients import CLOCKS, FORMS, coefficients

CORRECTORS = ("", "reuse", "evaluate")


@dataclass(frozen=True, eq=False)
class Memory:
    """Earlier evaluations, the newest first; and the state at the newest, if a corrector will return to it."""

    times: tuple[float, ...] = ()
    values: tuple[Tensor, ...] = ()
    x: Tensor | None = None


@dataclass(frozen=True)
class Exponential(Solver):
    """The linear part exactly, the rest by a polynomial through the last `order` evaluations of the noise or the data.

    `order` (1 to 4) is the number of evaluations remembered, hence one more than the polynomial's degree, and the order
    of convergence. A path begins, and goes on after a climb, with the few that it has. `form` is what the polynomial is
    through, "noise" or "data"; `clock` is its variable: the process's time "t", the level "rho", its logarithm "log",
    or the time of rectified flow at the same level, "flow". `corrector` "reuse" mends each state with the evaluation
    that the next step needs anyway, which makes the order one higher; "evaluate" then evaluates the mended state again,
    two evaluations a step. One evaluation a step otherwise.

    Only processes with one level for all directions have clocks other than "t". A step to time 0 in the logarithm is of
    first order.
    Raises: ValueError for an order, form, clock or corrector that there is not; TypeError for a field that is not the
            reversal of a process, or a process that does not move by linear maps.
    Source: Zhang and Chen 2023, Alg. 1; Zhang et al. 2023, Eq. 19 and App.; Zhao et al. 2023, for "reuse".
            [zhang2023deis] [zhang2023gddim] [zhao2023unipc]
    """

    order: int = 3
    form: str = "noise"
    clock: str = "t"
    corrector: str = ""

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order is the number of evaluations remembered, 1 to 4, got {self.order}")
        for name, known in (("form", FORMS), ("clock", CLOCKS), ("corrector", CORRECTORS)):
            pick(getattr(self, name), {k: k for k in known}, name)

    @property
    def remembered(self) -> int:  # type: ignore[override]
        """`order`."""
        return self.order

    def init(self) -> Memory:
        return Memory()

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 2 if self.corrector == "evaluate" and not fresh else 1

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        process, at = reversal(field).process, t.item()
        y, value = self._evaluated(field, x, t)
        if self.corrector and state.times:
            kept = self.order if self.corrector == "reuse" else self.order - 1
            nodes, values = (at, *state.times[:kept]), (value, *state.values[:kept])
            x = combined(coefficients(process, self.form, self.clock, nodes, state.times[0], at), state.x, values)
            if self.corrector == "evaluate":
                y, value = self._evaluated(field, x, t)
        nodes, values = (at, *state.times[: self.order - 1]), (value, *state.values[: self.order - 1])
        if len(nodes) == 1:
            ahead = held(process, x, y, t, s)
        else:
            ahead = combined(coefficients(process, self.form, self.clock, nodes, at, s.item()), x, values)
        return ahead, Memory(nodes, values, x if self.corrector else None)

    def _evaluated(self, field: Field, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The denoiser's estimate, and what is remembered of it."""
        process, y = reversal(field).process, reversal(field).predict(x, t)
        if self.form == "noise":
            return y, process.eps(x, t, y)
        return y, y if isinstance(process, Isotropic) else process.lift(y)


def combined(maps: tuple[Linear, tuple[Linear, ...]], x: Tensor, values: tuple[Tensor, ...]) -> Tensor:
    """The step that `coefficients` describe; of `values` the newest count where there are fewer maps."""
    a, c = maps
    out = a(x)
    for map_, value in zip(c, values, strict=False):
        out = out + map_(value)
    return out


def held(process: Any, x: Tensor, y: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The step from `t` to `s` with the estimate `y` held, the first-order one of every form and clock.

    On scalar processes it is written in the data, and so also begins where no signal is left.
    """
    at = t.item()
    if isinstance(process, Isotropic):
        return combined(coefficients(process, "data", "t", (at,), at, s.item()), x, (y,))
    return combined(coefficients(process, "noise", "t", (at,), at, s.item()), x, (process.eps(x, t, y),))


def DDIM() -> Exponential:
    """The noise estimate held over each step: first order. Source: Song et al. 2021. [song2021ddim]"""
    return Exponential(order=1)


def DEIS(order: int = 3, clock: str = "t") -> Exponential:
    """A polynomial through `order` noise estimates: the paper's tAB with degree `order - 1`, or "rho" for its rhoAB.

    In the clock "flow" of rectified flow it is tAB for that process, on any process with one level.

    Source: Zhang and Chen 2023. [zhang2023deis]
    """
    return Exponential(order, "noise", clock)


def DPMSolverPP(order: int = 2) -> Exponential:
    """Multistep DPM-Solver++ with the integrals of its polynomial in the log-level taken exactly.

    Source: Lu et al. 2023. [lu2023dpmpp]
    """
    return Exponential(order, "data", "log")


def UniPC(order: int = 2) -> Exponential:
    """The same with each state mended by the evaluation of the next step; converges at order `order + 1`.

    Source: Zhao et al. 2023, in the form B(h) of the exact integrals. [zhao2023unipc]
    """
    return Exponential(order, "data", "log", "reuse")


def GDDIM(order: int = 3, corrector: bool = False) -> Exponential:
    """Deterministic gDDIM: a polynomial in time through `order` noise estimates, whose coefficients are linear maps.

    With `corrector` two evaluations a step. Source: Zhang et al. 2023. [zhang2023gddim]
    """
    return Exponential(order, "noise", "t", "evaluate" if corrector else "")


_WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class IPNDM(Solver):
    """DDIM on a noise estimate extrapolated with the fixed Adams-Bashforth weights of evenly spaced evaluations.

    One evaluation a step; of order `order` (1 to 4) only where the levels are evenly spaced.
    Raises: ValueError for another order; otherwise as `Exponential`.
    Source: Liu et al. 2022; Zhang and Chen 2023, for the beginning with fewer. [liu2022pndm] [zhang2023deis]
    """

    order: int = 4

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order is the number of evaluations remembered, 1 to 4, got {self.order}")

    @property
    def remembered(self) -> int:  # type: ignore[override]
        """`order`."""
        return self.order

    def init(self) -> tuple[Tensor, ...]:
        return ()

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        process, y = reversal(field).process, reversal(field).predict(x, t)
        known = (process.eps(x, t, y), *state[: self.order - 1])
        if len(known) == 1:
            return held(process, x, y, t, s), known
        mean = sum(w * e for w, e in zip(_WEIGHTS[len(known) - 1], known, strict=True))
        return combined(coefficients(process, "noise", "t", (t.item(),), t.item(), s.item()), x, (mean,)), known
