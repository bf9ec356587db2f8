"""A network as a denoiser: inputs, outputs and noise labels brought to unit scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..linear import expand
from ..names import pick
from ..network.embed import condition
from ..process.base import Isotropic, Process
from ..process.gaussian import VP
from ..process.structured import GaussianProcess
from .learned import Learned

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


def _edm(process: Isotropic, t: Tensor, sigma_data: float) -> Coefficients:
    a, s = process.alpha(t), process.sigma(t)
    total = s.square() + (a * sigma_data).square()
    return a * sigma_data**2 / total, s * sigma_data / total.sqrt(), total.rsqrt(), process.level(t).log() / 4


def _vp(process: Isotropic, t: Tensor, sigma_data: float) -> Coefficients:
    a, s = process.alpha(t), process.sigma(t)
    return 1 / a, -s / a, (s.square() + a.square()).rsqrt(), 999 * VP().time(process.level(t))


def _ve(process: Isotropic, t: Tensor, sigma_data: float) -> Coefficients:
    a, s = process.alpha(t), process.sigma(t)
    return 1 / a, s / a, 1 / a, (process.level(t) / 2).log()


def _recursion(steps: int = 1000) -> tuple[float, ...]:
    signal = [math.sin(math.pi / 2 * j / (steps * 1.008)) ** 2 for j in range(steps + 1)]
    levels = [0.0]
    for j in range(steps, 0, -1):
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / max(signal[j - 1] / signal[j], 0.001) - 1))
    return tuple(levels[:0:-1])


_IDDPM = _recursion()  # numbers, made on import: compiled code takes them as constants


def _table(device: torch.device) -> Tensor:
    return torch.tensor(_IDDPM, dtype=torch.float32, device=device)


_kept = lru_cache(maxsize=4)(_table)  # a copy to an accelerator waits for it, so there is one for each


def iddpm_levels(device: torch.device) -> Tensor:
    """The 1000 noise levels of improved DDPM, from the most to the least. Source: Karras et al. 2022, Table 1.

    [karras2022edm]
    """
    return _table(device) if torch.compiler.is_compiling() else _kept(device)


def _iddpm(process: Isotropic, t: Tensor, sigma_data: float) -> Coefficients:
    a, s = process.alpha(t), process.sigma(t)
    levels = iddpm_levels(t.device)
    step = 999 - (process.level(t)[..., None] - levels).abs().argmin(-1)
    return 1 / a, -s / a, (s.square() + a.square()).rsqrt(), step.to(s)


def _flow(process: Isotropic, t: Tensor, sigma_data: float) -> Coefficients:
    a, s = process.alpha(t), process.sigma(t)
    return 1 / (a + s), -s / (a + s), (s.square() + (a * sigma_data).square()).rsqrt(), 4 * s / (a + s)


def _identity(process: Isotropic, t: Tensor, sigma_data: float) -> Coefficients:
    one = torch.ones_like(t)
    return torch.zeros_like(t), one, one, t


SCALINGS: dict[str, Callable[[Isotropic, Tensor, float], Coefficients]] = {
    "edm": _edm,
    "vp": _vp,
    "ve": _ve,
    "iddpm": _iddpm,
    "flow": _flow,
    "identity": _identity,
}


class Preconditioned(Learned):
    """A network as a denoiser: `y = c_skip x + c_out network(c_in x, c_noise, cond)`.

    With `a = alpha_t`, `s = sigma_t`, `d = sigma_data` and the level `s / a`, the scalings are

    | name     | c_skip              | c_out                | c_in                | c_noise             |
    |----------|---------------------|----------------------|---------------------|---------------------|
    | edm      | a d^2/(s^2+a^2 d^2) | s d/sqrt(s^2+a^2d^2) | 1/sqrt(s^2+a^2 d^2) | ln(level)/4         |
    | vp       | 1/a                 | -s/a                 | 1/sqrt(s^2+a^2)     | 999 t_VP(level)     |
    | ve       | 1/a                 | s/a                  | 1/a                 | ln(level/2)         |
    | iddpm    | 1/a                 | -s/a                 | 1/sqrt(s^2+a^2)     | nearest of 1000     |
    | flow     | 1/(a+s)             | -s/(a+s)             | 1/sqrt(s^2+a^2 d^2) | 4 s/(a+s)           |
    | identity | 0                   | 1                    | 1                   | t                   |

    On `alpha = 1` the first four are those of the source; on other processes they act on `x / a`, which makes one
    network serve every process at equal level. In "flow" the network predicts `eps - x_0`.

    A state of CLD or Blur enters as the observation `w = g modes(x_0) + N(0, I)`, which is all it says of the datum
    (`GaussianProcess.observe`): of the two halves of CLD the one combination that carries it, of Blur every frequency
    at its own noise. There "edm" is the regression of data of variance `d^2` on `w`, mode by mode,

        y = g d^2 / (1 + g^2 d^2) w + d / sqrt(1 + g^2 d^2) network(w / sqrt(1 + g^2 d^2), ln(level)/4, cond)

    of which the table's row is the case `g = a / s`. So a network of CLD at
    the level `1 / g` sees just what one of EDM sees there, and may be one.

    Where noise is so heavy-tailed that its size is not told by the time (PFGM, `PFGMPP` up to D = 4, `Helmholtz`,
    `Fractional`), the table is taken at the time that a state looks like, `process.apparent`: `t` itself for all but
    the longest.

    `network(x, noise, cond)` is called with `noise` of shape `(B,)`. `autocast` is the dtype it runs in
    (`torch.bfloat16`); everything outside it stays in the dtype of `x`.
    Raises: ValueError for a scaling that is undefined where the process keeps no signal.
    Source: Karras et al. 2022, Table 1. [karras2022edm]
    """

    process: Isotropic | GaussianProcess

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        sigma_data: float = 0.5,
        scaling: str | None = None,
        autocast: torch.dtype | None = None,
    ):
        """`scaling` is "edm" unless given, or "flow" where the process keeps no signal at its far end."""
        super().__init__(network, process, sigma_data, autocast)
        if not isinstance(process, Isotropic | GaussianProcess):
            raise TypeError(f"Preconditioned needs an isotropic or Gaussian process, got {type(process).__name__}")
        endless = math.isinf(process.level(torch.tensor(process.span[1], dtype=torch.float64)).item())
        scaling = scaling or ("flow" if endless else "edm")
        self._scale = pick(scaling, SCALINGS, "scaling")
        if not isinstance(process, Isotropic) and scaling != "edm":
            raise ValueError(f"{type(process).__name__} has one scaling, 'edm', got {scaling!r}; leave it out")
        if endless and scaling not in ("flow", "identity"):
            raise ValueError(
                f"scaling {scaling!r} is undefined where {type(process).__name__} keeps no signal; use scaling='flow'"
            )
        self.scaling = scaling

    def coefficients(self, t: Tensor) -> Coefficients:
        """`(c_skip, c_out, c_in, c_noise)` at the times `t`, each of the shape of `t`.

        Raises: TypeError for CLD and Blur, whose coefficients are maps.
        """
        if not isinstance(self.process, Isotropic):
            raise TypeError(f"the scaling of {type(self.process).__name__} is not four numbers a time")
        return self._scale(self.process, t, self.sigma_data)

    def skip(self, x: Tensor, t: Tensor) -> Tensor:
        skip = expand(self.coefficients(self.process.apparent(x, t, self.sigma_data))[0], x) * x
        return self._outward(x, t, skip)

    def _outward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        share = self.process.outward(x, t)
        return y if share is None else x - expand(share, x) * (x - y)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The estimate of `E[x_0 | x_t = x]`, `(B, *data)`: `x` is a state, `t` is `()` or `(B,)`.

        Where `cond` is a `Condition` that knows clean data, the estimate is what is known.
        """
        if isinstance(self.process, Isotropic):
            seen = self.process.apparent(x, t, self.sigma_data)
            c_skip, c_out, c_in, c_noise = self.coefficients(seen)
            y = expand(c_skip, x) * x + expand(c_out, x) * self._call(expand(c_in, x) * x, c_noise, cond)
            y = self._outward(x, t, y)
        else:
            w, g = self.process.observe(x, t)
            unit = (1 + (g * self.sigma_data).square()).rsqrt()
            out = self._call(self.process.from_modes(unit * w), self.process.level(t).log() / 4, cond)
            skip = g * (self.sigma_data * unit).square() * w
            y = self.process.from_modes(skip + self.sigma_data * unit * self.process.modes(out))
        told = condition(cond)
        return y if told.known is None or told.mask is None else torch.where(told.mask > 0, told.known.to(y), y)
