"""The small classifiers that the project trains and ships: scores of a data set are measured on their last layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..names import pick


class Classifier(nn.Module):
    """A network of images of one `shape`, in [-1, 1]; the layer below its logits is what scores are measured on."""

    def __init__(self, name: str, shape: tuple[int, ...], body: nn.Module, hidden: int, classes: int = 10):
        """`body` turns `(B, *shape)` into `(B, hidden)`; `name` is that of the data, for messages."""
        super().__init__()
        self.name, self.shape = name, shape
        self.body = body
        self.head = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        """The layer below the logits, `(B, hidden)`. Raises: ValueError unless `x` is `(B, *shape)`."""
        if tuple(x.shape[1:]) != self.shape:
            inner = ", ".join(map(str, self.shape))
            raise ValueError(
                f"{self.name} features need images (n, {inner}), got {tuple(x.shape)}; other data have features='raw'"
            )
        out: Tensor = self.body(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """The logits, `(B, classes)`."""
        out: Tensor = self.head(self.features(x))
        return out


class Residual(nn.Module):
    """`x + f(x)`."""

    def __init__(self, f: nn.Module):
        """`f` keeps the shape."""
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        out: Tensor = x + self.f(x)
        return out


def _digits() -> Classifier:
    width, hidden = 24, 64
    body = nn.Sequential(
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
    return Classifier("digits", (1, 8, 8), body, hidden)


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, stride=stride, bias=False), nn.BatchNorm2d(after), nn.SiLU()
    )


def _pictures(name: str, shape: tuple[int, int, int], width: int) -> Classifier:
    """Three scales, the two smaller ones with a residual, then the mean over the picture."""
    body = nn.Sequential(
        _convolution(shape[0], width),
        _convolution(width, 2 * width, 2),
        Residual(_convolution(2 * width, 2 * width)),
        _convolution(2 * width, 4 * width, 2),
        Residual(_convolution(4 * width, 4 * width)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Classifier(name, shape, body, 4 * width)


CLASSIFIERS: Mapping[str, Callable[[], Classifier]] = {
    "digits": _digits,
    "mnist": lambda: _pictures("mnist", (1, 28, 28), 16),
    "fashion": lambda: _pictures("fashion", (1, 28, 28), 24),
    "cifar10": lambda: _pictures("cifar10", (3, 32, 32), 32),
}


def untrained(name: str) -> Classifier:
    """The network of the classifier called `name`, on no device: nothing is drawn, so no global generator moves.

    Raises: ValueError for an unknown name, offering the nearest one.
    """
    with torch.device("meta"):
        return pick(name, CLASSIFIERS, "classifier")()


@lru_cache(maxsize=8)
def classifier(name: str, device: torch.device | str = "cpu") -> Classifier:
    """The shipped classifier of the data set `name`, in float32 and evaluation mode. Shared: do not train it.

    Raises: ValueError for an unknown name, offering the nearest one.
    """
    network = untrained(name)
    kept = safetensors.torch.load(weights(name))
    whole = {key: value.float() if value.is_floating_point() else value for key, value in kept.items()}
    network.load_state_dict(whole, assign=True)
    return network.to(device).eval().requires_grad_(False)


def record(name: str) -> dict[str, Any]:
    """How a shipped classifier was made: command, seed, split, sizes, accuracy on images it was not trained on."""
    pick(name, CLASSIFIERS, "classifier")
    data = weights(name)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, Any] = json.loads(header["__metadata__"]["record"])
    return found


def weights_name(name: str) -> str:
    """The name of the file that holds a classifier's weights, in the package's folder `weights`."""
    return f"{name}_features.safetensors"


def weights(name: str) -> bytes:
    """The file of a classifier's weights, whole."""
    return files("driftfield").joinpath("weights", weights_name(name)).read_bytes()
