"""What samples are compared by: their own values, or what a network makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..names import pick

WEIGHTS = "digits_features.safetensors"


class DigitsNet(nn.Module):
    """A small classifier of 8 x 8 digits; its last hidden layer is what scores of digits are measured on.

    Trained and shipped by the project (`benchmarks/train_digits_features.py`). Images are `(B, 1, 8, 8)` in [-1, 1].
    """

    def __init__(self, width: int = 24, hidden: int = 64, classes: int = 10):
        """`width` of the first convolution, doubled by the second; `hidden` is the number of features."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, stride=2),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(8 * width, hidden),
            nn.SiLU(),
        )
        self.head = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, `(B, hidden)`. Raises: ValueError unless `x` is `(B, 1, 8, 8)`."""
        if x.shape[1:] != (1, 8, 8):
            raise ValueError(
                f"digits features need images (n, 1, 8, 8), got {tuple(x.shape)}; other data have features='raw'"
            )
        out: Tensor = self.body(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """The logits, `(B, classes)`."""
        out: Tensor = self.head(self.features(x))
        return out


@dataclass(frozen=True)
class Features:
    """A named map from samples `(n, *shape)` to features `(n, F)`. The name goes into the record of every score."""

    name: str
    extract: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, batch: int = 1024) -> Tensor:
        """The features of `x`, `(n, *shape)`, without gradient, `batch` samples at a time.

        Raises: ValueError where `extract` does not return a row per sample, and what it raises.
        """
        with torch.no_grad():
            parts = [self.extract(part) for part in torch.split(x, batch)]
        out = torch.cat(parts)
        if out.ndim != 2 or len(out) != len(x):
            raise ValueError(
                f"features {self.name!r} should turn samples {tuple(x.shape)} into shape ({len(x)}, F), "
                f"got {tuple(out.shape)}; flatten what they return"
            )
        return out


def features(which: str | Features | Callable[[Tensor], Tensor]) -> Features:
    """The features called `which`: "raw" (the values themselves), "digits" (the shipped classifier), or a callable.

    A callable takes `(b, *shape)` and returns `(b, F)`; it is recorded under its import path, and must treat each row
    by itself (a network in evaluation mode). To choose the name, give `Features(name, callable)`.
    Raises: ValueError for an unknown name, offering the nearest one; TypeError for anything else.
    """
    if isinstance(which, Features):
        return which
    if isinstance(which, str):
        return Features(which, pick(which, _KNOWN, "features"))
    if not callable(which):
        raise TypeError(f"features should be a name or a callable, got {which!r}; known names: {', '.join(_KNOWN)}")
    kind = which if hasattr(which, "__qualname__") else type(which)
    return Features(f"{kind.__module__}:{kind.__qualname__}", which)


def raw(x: Tensor) -> Tensor:
    """The values themselves: `(n, *shape)` to `(n, F)`."""
    return x.reshape(len(x), -1)


def digits(x: Tensor) -> Tensor:
    """The last hidden layer of the shipped classifier: `(n, 1, 8, 8)` in [-1, 1] to `(n, 64)`, in float32.

    Raises: ValueError for another shape.
    """
    return digits_network(x.device).features(x.float())


@lru_cache(maxsize=4)
def digits_network(device: torch.device | str = "cpu") -> DigitsNet:
    """The shipped classifier, in evaluation mode and without gradients. Shared: do not train it."""
    with torch.device("meta"):  # nothing is drawn, so no global generator moves
        network = DigitsNet()
    data = files("driftfield").joinpath("weights", WEIGHTS).read_bytes()
    network.load_state_dict(safetensors.torch.load(data), assign=True)
    return network.to(device).eval().requires_grad_(False)


def digits_record() -> dict[str, Any]:
    """How the shipped classifier was made: command, seed, split, sizes, accuracy on held-out digits."""
    data = files("driftfield").joinpath("weights", WEIGHTS).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    record: dict[str, Any] = json.loads(header["__metadata__"]["record"])
    return record


_KNOWN: Mapping[str, Callable[[Tensor], Tensor]] = {"raw": raw, "digits": digits}
