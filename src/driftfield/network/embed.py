"""What every network shares: the vector that conditions it, and a few decisions about sizes and starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Condition(NamedTuple):
    """What a batch is conditioned on; opaque to everyone but the network.

    `label` is `(B,)` int64, -1 for a row without a label; `augment` is `(B, K)`, 0 for what was left alone.
    `known` and `mask` go together, `(B, *shape)` both: where `mask` is 1 the clean data are `known`, where it is 0
    they are to be found, and where it is -1 nothing is told of them, not even the noisy state.
    """

    label: Tensor | None = None
    augment: Tensor | None = None
    known: Tensor | None = None
    mask: Tensor | None = None

    def to(self, device: torch.device | str) -> Condition:
        """The same on a device."""
        return Condition(*(None if part is None else part.to(device) for part in self))


def condition(cond: Tensor | Condition | None) -> Condition:
    """Read a condition: a plain tensor is class labels."""
    if cond is None or isinstance(cond, Tensor):
        return Condition(cond)
    return cond


def zeroed(module: M) -> M:
    """Set every parameter of `module` to 0 and return it: how a branch starts as nothing, and a network at 0."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def divisor(n: int, most: int) -> int:
    """The largest divisor of `n` that is at most `most`, or 1: how many groups or heads `n` channels make."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raise a ValueError that names the first of the `sizes` which is not a whole number >= 1."""
    for name, size in sizes.items():
        if size < 1 or size != int(size):
            raise ValueError(f"{name} must be a whole number of at least 1, got {size}")


def check_dropout(dropout: float) -> None:
    """Raise a ValueError unless `dropout` is a probability below 1."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is the share of values set to 0, so it must be in [0, 1), got {dropout}")


class Conditioning(nn.Module):
    """A vector for each row from its noise label, its class label and its augmentation.

    A missing class label (-1, or none given) adds nothing, and so does a missing augmentation: the zero vector is the
    learned "unconditional", which is what label dropout trains.
    """

    def __init__(self, width: int, classes: int = 0, augments: int = 0, features: int = 64, known: bool = False):
        """`width` of the vector, numbers of classes and augmentation channels, sinusoidal `features` (even).

        Wavelengths run from 1 to 4000 units of the noise label: enough for `log(level) / 4`, which spans about 3,
        and for the step counts of discrete-time models, which span 1000. `known` says that the network takes known
        clean values by itself; otherwise they are refused here, for all.
        """
        super().__init__()
        check_sizes({"width": width, "features": features})
        if features % 2:
            raise ValueError(f"sinusoidal features come in pairs, so their number must be even, got {features}")
        if classes < 0 or augments < 0:
            raise ValueError(f"classes and augments must be at least 0, got {classes} and {augments}")
        frequency = 2 * math.pi / torch.logspace(0, math.log10(4000), features // 2)
        self.register_buffer("frequency", frequency, persistent=False)
        self.noise = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        self.known = known
        self.label = nn.Embedding(classes, width) if classes else None
        self.augment = nn.Linear(augments, width, bias=False) if augments else None

    frequency: Tensor

    def forward(self, noise: Tensor, cond: Tensor | Condition | None = None) -> Tensor:
        """`noise` is `(B,)`; the result is `(B, width)`.

        Raises: ValueError for noise labels of another shape, and for a condition the network was built without.
        """
        if noise.ndim != 1:
            raise ValueError(f"noise labels have shape (B,), got {tuple(noise.shape)}; give one number per row")
        angle = noise[:, None] * self.frequency
        waves = torch.cat((angle.cos(), angle.sin()), 1)
        vector: Tensor = self.noise(waves.to(self.frequency.dtype))
        label, augment, known, _ = condition(cond)
        if known is not None and not self.known:
            raise ValueError("this network was built without known, so it takes no known values (MLP(known=True) does)")
        if label is not None:
            if self.label is None:
                raise ValueError("this network was built without classes, so it takes no class label")
            vector = vector + self.label(label.expand(len(noise)).clamp(min=0)) * (label >= 0)[..., None]
        if augment is not None:
            if self.augment is None:
                raise ValueError("this network was built without augments, so it takes no record of an augmentation")
            vector = vector + self.augment(augment.to(vector.dtype))
        return vector
