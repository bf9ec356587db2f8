"""A model that somebody else trained, as a denoiser of the process that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..linear import expand
from ..names import pick
from ..process.base import Isotropic
from ..process.gaussian import EDM

Reading = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

PREDICTIONS: dict[str, Reading] = {  # E[x_0 | x] from x, the model's output, alpha and sigma
    "data": lambda x, out, a, s: out,
    "noise": lambda x, out, a, s: (x - s * out) / a,
    "score": lambda x, out, a, s: (x + s * s * out) / a,
    "v": lambda x, out, a, s: (a * x - s * out) / (a * a + s * s),
    "flow": lambda x, out, a, s: (x - s * out) / (a + s),
}


def call(model: Callable[..., Tensor], x: Tensor, label: Tensor, cond: Any) -> Any:
    """The model at `x` and `label`: a mapping is given by name, any other condition as the third argument."""
    if cond is None:
        return model(x, label)
    return model(x, label, **cond) if isinstance(cond, Mapping) else model(x, label, cond)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A model as a denoiser of `process`, the process that it was trained on.

    What the model predicts, of `x_t = alpha_t x_0 + sigma_t eps`, is one of

    | `predicts` | the model returns       | the denoiser                            |
    |------------|-------------------------|-----------------------------------------|
    | noise      | eps                     | (x - sigma out) / alpha                 |
    | data       | x_0                     | out                                     |
    | score      | grad log p_t(x)         | (x + sigma^2 out) / alpha               |
    | v          | alpha eps - sigma x_0   | (alpha x - sigma out) / (alpha^2 + sigma^2) |
    | flow       | eps - x_0               | (x - sigma out) / (alpha + sigma)       |

    The model is called as `model(x, label)`, and as `model(x, label, cond)` where there is a condition, or with its
    entries by name where the condition is a mapping; `ask(model, x, label, cond)` replaces that way of calling it.
    `label` turns times of the process, `()` or `(B,)` in float64, into what the model takes, by default the time
    itself; the model gets it as `(B,)`, whole numbers where `label` makes whole numbers. A module with floating-point
    parameters computes in their dtype, the rest in that of `x`.
    Raises: ValueError for an unknown prediction; for noise or score where the process ends without signal, so that
            they do not tell the data there; for a score under noise that is not Gaussian; and for an output that is
            not shaped like `x`.
    Source: Song et al. 2021; Salimans and Ho 2022, App. D, for v. [song2021score] [salimans2022distillation]
    """

    model: Callable[..., Tensor]
    process: Isotropic
    predicts: str = "noise"
    label: Callable[[Tensor], Tensor] | None = None
    ask: Callable[[Any, Tensor, Tensor, Any], Any] = call

    def __post_init__(self) -> None:
        check_prediction(self.process, self.predicts)

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        label = per_row(t if self.label is None else self.label(t), x)
        out = self.ask(self.model, x.to(_dtype(self.model, x)), label, cond)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise ValueError(f"the model should return a tensor like x, of shape {tuple(x.shape)}; it returned {got}")
        return read(self.process, self.predicts, x, t, out.to(x.dtype))


def read(process: Isotropic, predicts: str, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
    """`E[x_0 | x_t = x]` from the output of a model at `x` and `t`: see `Adapted`."""
    a, s = expand(process.alpha(t), x), expand(process.sigma(t), x)
    return pick(predicts, PREDICTIONS, "prediction")(x, out, a, s)


def check_prediction(process: Isotropic, predicts: str) -> None:
    """Raise a ValueError where `predicts` is unknown, or does not tell the data everywhere on the process's span."""
    pick(predicts, PREDICTIONS, "prediction")
    if predicts == "score" and math.isfinite(process.freedom):
        raise ValueError(f"the score of {type(process).__name__} does not tell the data; adapt a model of another kind")
    level = process.level(torch.tensor(process.span[1], dtype=torch.float64)).item()
    if predicts in ("noise", "score") and not math.isfinite(level):
        raise ValueError(
            f"{type(process).__name__} keeps no signal at time {process.span[1]:g}, where the {predicts} does not tell "
            "the data; give the process a span that ends before it"
        )


def per_row(label: Tensor, x: Tensor) -> Tensor:
    """A label `()` or `(B,)` as `(B,)` on the device of `x`: float32 at least, or int64 where it is whole numbers.

    By a sum, because a 0-dim tensor on the CPU reaches any device in it without waiting.
    """
    dtype = torch.promote_types(x.dtype, torch.float32) if label.is_floating_point() else torch.int64
    return torch.zeros(len(x), dtype=dtype, device=x.device) + label.to(dtype)


def _dtype(model: Any, x: Tensor) -> torch.dtype:
    if not isinstance(model, nn.Module):
        return x.dtype
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype)


@dataclass(frozen=True, eq=False)
class AtLevel:
    """A denoiser of the process `trained`, as a denoiser of `process`: asked at the time of equal level.

    The two states are then the same but for a factor, so nothing is lost, as long as the noise of both follows one
    law. `EDM(span=(low, high))` for `process` gives any model the coordinates in which levels are times.
    Raises: ValueError where the laws differ.
    Source: Karras et al. 2022, App. C.1. [karras2022edm]
    """

    denoiser: Callable[..., Tensor]
    trained: Isotropic
    process: Isotropic

    def __post_init__(self) -> None:
        if self.trained.freedom != self.process.freedom:
            raise ValueError(
                f"the noise of {type(self.trained).__name__} has {self.trained.freedom:g} degrees of freedom, that of "
                f"{type(self.process).__name__} {self.process.freedom:g}: states of equal level are not alike"
            )

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        u = self.trained.time(self.process.level(t))
        return self.denoiser(expand(_size(self.trained, u) / _size(self.process, t), x) * x, u, cond)


def _size(process: Isotropic, t: Tensor) -> Tensor:
    """`sqrt(alpha^2 + sigma^2)`: at equal level it is in the ratio of the states, and never 0."""
    return torch.hypot(process.alpha(t), process.sigma(t))


def from_k_diffusion(model: Callable[..., Tensor], *, low: float, high: float) -> tuple[EDM, Adapted]:
    """A k-diffusion denoiser `model(x, sigma)`, sigma `(B,)`, with the process it belongs to, from `low` to `high`.

    A condition that is a mapping is given to the model by name, as `extra_args` are: see `Adapted`. The levels are
    those it was trained on (its `sigma_min` and `sigma_max`). Raises: ValueError unless `0 <= low < high`.
    """
    process = EDM(span=(float(low), float(high)))
    return process, Adapted(model, process, "data")


def to_k_diffusion(denoiser: Callable[..., Tensor], process: Isotropic) -> AtLevel:
    """A denoiser as k-diffusion calls one: `model(x, sigma)` at `x = x_0 + sigma eps` returns the denoised `x`.

    `sigma` is `()` or `(B,)`, at most the level at the process's far end; a condition goes in by the name
    `cond` (`extra_args={"cond": labels}`). Raises: ValueError for a process whose noise is not Gaussian.
    """
    return AtLevel(denoiser, process, EDM())
