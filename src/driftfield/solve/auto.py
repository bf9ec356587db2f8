"""The library's own choice of a solver and a grid, by the process and the number of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ..grid import logistic, natural, power
from ..names import pick
from ..process.base import Isotropic, Process
from ..process.gaussian import GaussianProcess
from .base import Solver
from .exponential import DEIS, GDDIM, Exponential
from .named import SOLVERS
from .rk import Heun

_FEW = 12  # evaluations, below which one more remembered gains little where it helps, and loses much where not


def auto(process: Process, nfe: int, shape: Sequence[int] = ()) -> tuple[Solver, Callable[..., Tensor]]:
    """The solver and the builder of the grid for `nfe` evaluations, at least 1, and data of a `shape`, if it is known.

    One level for all directions: the clock of rectified flow on the grid `logistic`. From 12 evaluations on `DEIS` of
    order 4; for fewer of order 3, but for pictures `(C, H, W)` order 2 through estimates of the data: a little further
    from the flow, and far nearer to the data, as its errors are those of a picture and not noise that was left over.
    Other Gaussian processes: order 3 on the grid `power`, through estimates of the data, or of the noise where the root
    of the covariance does not follow the flow. Any other process: Heun's method.
    Found by measurement: see `benchmarks/solvers.py` and `benchmarks/solver_quality.py`.
    """
    if isinstance(process, Isotropic):
        if nfe >= _FEW:
            return DEIS(4, "flow"), logistic
        return (Exponential(2, "data", "flow") if len(shape) == 3 else DEIS(3, "flow")), logistic
    if isinstance(process, GaussianProcess):
        return (Exponential(3, "data", "t") if process.flowing else GDDIM(3)), power
    return Heun(), natural


def named_solver(
    name: str, process: Process, nfe: int, shape: Sequence[int] = ()
) -> tuple[Solver, Callable[..., Tensor]]:
    """The solver of that name, and the grid that goes with it where none is asked for: `natural`, if not "auto".

    Raises: ValueError for an unknown name.
    """
    if name == "auto":
        return auto(process, nfe, shape)
    return pick(name, {**SOLVERS, "auto": Heun}, "solver")(), natural
