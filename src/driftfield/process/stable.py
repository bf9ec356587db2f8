"""Fractional diffusion: noise of an isotropic stable law."""

from __future__ import annotations

from dataclasses import dataclass, field

from .smoothing import LEVELS
from .subordinated import Subordination
from .symbols import Power, Symbol


@dataclass(frozen=True)
class Fractional(Subordination):
    """Fractional diffusion `phi_t + (-laplace)^beta phi = 0`, 0 < beta <= 1: isotropic stable noise of index `2 beta`.

    `beta = 1` is diffusion, `beta = 1/2` Poisson's equation, and `beta = 1/3` the decaying branch of the third-order
    equation `phi_ttt = laplace phi`. The noise keeps its shape, of the scale `2 (t / 2)^(1 / (2 beta))`: the deviation
    at `beta = 1`, the Cauchy scale at 1/2. Its tails fall as `d^(-N - 2 beta)`, and what is left of it at the end of a
    path has them too, however many the steps: end paths at time 0. Below `beta` about 0.2 its rarest draws are too
    large for float32.
    Raises: ValueError for another `beta`: above 1 the Green function has negative values.
    Source: Liu et al. 2023; Kanter 1975, for the draws. [liu2023genphys] [kanter1975stable]
    """

    beta: float = 0.5
    levels: tuple[float, float] = LEVELS
    span: tuple[float, float] = field(init=False, repr=False)
    symbol: Symbol = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbol", Power(float(self.beta)))
        self._settle()
