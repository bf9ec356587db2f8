"""The library's own choice of a solver and a grid, by the process and the number of evaluations."""

from __future__ import annotations

from collections.abc import Callable

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


def auto(process: Process, nfe: int) -> tuple[Solver, Callable[..., Tensor]]:
    """The solver and the builder of the grid for `nfe` evaluations, at least 1.

    One level for all directions: `DEIS` in the clock of rectified flow on the grid `logistic`, order 3 for fewer than
    12 evaluations and 4 from there on. Other Gaussian processes: order 3 on the grid `power`, through estimates of the
    data, or of the noise where the root of the covariance does not follow the flow. Any other process: Heun's method.
    Found by measurement: see `benchmarks/solvers.py`.
    """
    if isinstance(process, Isotropic):
        return DEIS(3 if nfe < _FEW else 4, "flow"), logistic
    if isinstance(process, GaussianProcess):
        return (Exponential(3, "data", "t") if process.flowing else GDDIM(3)), power
    return Heun(), natural


def named_solver(name: str, process: Process, nfe: int) -> tuple[Solver, Callable[..., Tensor]]:
    """The solver of that name, and the grid that goes with it where none is asked for: `natural`, if not "auto".

    Raises: ValueError for an unknown name.
    """
    if name == "auto":
        return auto(process, nfe)
    return pick(name, {**SOLVERS, "auto": Heun}, "solver")(), natural
