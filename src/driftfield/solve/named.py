"""Solvers by the short names that the command line and `generate` know them by."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..names import pick
from .adaptive import DormandPrince
from .base import Solver
from .exponential import DDIM, DEIS, GDDIM, IPNDM, DPMSolverPP, UniPC
from .rho import DPMSolver, RhoRK
from .rk import RK4, Euler, Heun
from .stochastic import Ancestral, ReverseSDE

SOLVERS: dict[str, Callable[[], Solver]] = {
    "euler": Euler,
    "heun": Heun,
    "rk4": RK4,
    "rho1": partial(RhoRK, 1),
    "rho2": partial(RhoRK, 2),
    "rho3": partial(RhoRK, 3),
    "rho4": partial(RhoRK, 4),
    "ddim": DDIM,
    "deis": DEIS,
    "rho-deis": partial(DEIS, clock="rho"),
    "log-deis": partial(DEIS, clock="log"),
    "dpm2": partial(DPMSolver, 2),
    "dpm3": partial(DPMSolver, 3),
    "dpm++2m": partial(DPMSolverPP, 2),
    "dpm++3m": partial(DPMSolverPP, 3),
    "ipndm": IPNDM,
    "unipc": UniPC,
    "gddim": GDDIM,
    "gddim-pc": partial(GDDIM, corrector=True),
    "dormand-prince": DormandPrince,
    "log-dormand-prince": partial(DormandPrince, clock="log"),
    "reverse-sde": ReverseSDE,
    "ancestral": Ancestral,
}


def adaptive(solver: str | Solver) -> bool:
    """Whether the solver, or that of this name, chooses its own steps. Raises: ValueError for an unknown name."""
    return (pick(solver, {**SOLVERS, "auto": Heun}, "solver")() if isinstance(solver, str) else solver).adaptive
