"""Variance preserving diffusion by a table: the published discrete-time schedules, continuous in between."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..names import pick
from .base import check_span
from .gaussian import ScalarGaussian


def _even(low: float, high: float, steps: int) -> list[float]:
    return torch.linspace(low, high, steps, dtype=torch.float64).tolist()


def _linear(steps: int) -> list[float]:
    return _even(0.1 / steps, 20 / steps, steps)


def _scaled_linear(steps: int) -> list[float]:
    return [root**2 for root in _even((0.85 / steps) ** 0.5, (12 / steps) ** 0.5, steps)]


def _cosine(steps: int) -> list[float]:
    power = [math.cos((k / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(steps + 1)]
    return [min(1 - after / before, 0.999) for before, after in itertools.pairwise(power)]


_BETAS = {"linear": _linear, "scaled-linear": _scaled_linear, "cosine": _cosine}


@dataclass(frozen=True)
class DiscreteVP(ScalarGaussian):
    """Variance preserving, in `steps` steps of listed variances: `alpha_k^2 = prod_(j <= k) (1 - beta_j)`.

    `schedule` is one of

    | name | `beta_k`, at 1000 steps | of |
    |---|---|---|
    | linear | 0.0001 to 0.02, even | DDPM |
    | cosine | so that `alpha^2` falls like a squared cosine, at most 0.999 | improved DDPM |
    | scaled-linear | 0.00085 to 0.012, even in the square root | latent diffusion |

    where a variance at another number of steps is 1000 / steps times as much (not in the cosine, which scales itself).
    With a `table`, the numbers `alpha_k^2` themselves (`alphas_cumprod`), `schedule` and `steps` are what it says:
    `DiscreteVP.of(table)`.

    Units:  `t` counts steps done, from 0, where the data are clean, to `steps`; the `timestep` 0, 1, ... of a published
            network is `t - 1`. Between whole numbers `ln alpha` is linear in `t`, and beyond the last it goes on so.
    Raises: ValueError for an unknown schedule, and for a table that does not fall within (0, 1].
    Source: Ho et al. 2020, Sec. 4; Nichol and Dhariwal 2021, Eq. 17; Rombach et al. 2022, code.
            [ho2020ddpm] [nichol2021improved] [rombach2022latent]
    """

    schedule: str = "linear"
    steps: int = 1000
    table: tuple[float, ...] = ()
    span: tuple[float, float] = (1.0, 1000.0)
    _falls: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = [float(v) for v in self.table]
        if table:
            object.__setattr__(self, "schedule", "table")
            object.__setattr__(self, "steps", len(table))
            object.__setattr__(self, "table", tuple(table))
            if not (table[0] <= 1 and table[-1] > 0 and all(a > b for a, b in itertools.pairwise(table))):
                raise ValueError(
                    "a table of alpha^2 (alphas_cumprod) must fall from step to step and stay within (0, 1]; "
                    f"this one has {len(table)} numbers from {table[0]:g} to {table[-1]:g}"
                )
            falls = [-math.log(v) / 2 for v in table]
        else:
            make = pick(self.schedule, _BETAS, "schedule")
            betas = make(self.steps) if self.steps > 0 else []
            if not betas or max(betas) >= 1:
                raise ValueError(f"the schedule {self.schedule!r} cannot be made of {self.steps} steps; give more")
            falls = list(itertools.accumulate(-math.log1p(-b) / 2 for b in betas))
        self._falls[torch.device("cpu")] = torch.tensor([0.0, *falls], dtype=torch.float64)
        if self.span == (1.0, 1000.0):
            object.__setattr__(self, "span", (1.0, float(self.steps)))
        check_span(self.span)

    @staticmethod
    def of(table: Iterable[float] | Tensor) -> DiscreteVP:
        """The process whose `alpha^2` after each step are the numbers of `table` (`alphas_cumprod`)."""
        numbers = tuple(table.double().tolist() if isinstance(table, Tensor) else table)
        if not numbers:
            raise ValueError("a table of alpha^2 (alphas_cumprod) needs at least two numbers, got none")
        return DiscreteVP(table=numbers)

    def _fall(self, device: torch.device) -> Tensor:
        """`-ln alpha` after 0, 1, ... steps, kept for each device: a copy to an accelerator waits for it."""
        if device not in self._falls:
            self._falls[device] = self._falls[torch.device("cpu")].to(device)
        return self._falls[device]

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`-ln alpha` and its slope, of the step that ends at a whole `t`: float64."""
        fall = self._fall(t.device)
        k = (t.detach().ceil().long() - 1).clamp(0, self.steps - 1)
        rate = fall[k + 1] - fall[k]
        return fall[k] + (t.double() - k) * rate, rate

    def alpha(self, t: Tensor) -> Tensor:
        return (-self._at(t)[0]).exp().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-2 * self._at(t)[0])).sqrt().to(t.dtype)

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        fall, rate = self._at(t)
        alpha = (-fall).exp()
        return (-alpha * rate).to(t.dtype), (alpha.square() * rate / (-torch.expm1(-2 * fall)).sqrt()).to(t.dtype)

    def level(self, t: Tensor) -> Tensor:
        return torch.expm1(2 * self._at(t)[0]).sqrt().to(t.dtype)

    def time(self, level: Tensor) -> Tensor:
        table, fall = self._fall(level.device), (level.double().square().log1p() / 2).contiguous()
        k = (torch.searchsorted(table, fall, right=True) - 1).clamp(0, self.steps - 1)
        return (k + (fall - table[k]) / (table[k + 1] - table[k])).to(level.dtype)
