"""What a data set is: it says what its samples are, and draws batches of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..rng import Rng

KINDS = ("image", "points", "array")


@dataclass(frozen=True)
class Info:
    """What one sample is, in the user's own terms; kept with the weights, so that samples come back in them.

    A user's value is `shift + scale * x`, with `x` what the model sees. `kind` is "image" (channels first, model
    values in [-1, 1], written as 8-bit pictures, so `shift = scale = 127.5`), "points" (2-D toys, drawn as scatter
    plots) or "array". `classes` are the names of the classes, none for a set without labels; `count` is the size of
    the training split, 0 for a law that is drawn afresh; `std` is the natural `sigma_data` of the model's values: the
    root-mean-square deviation of all of them from their one common mean, as in EDM, where channels and pixels are not
    told apart.

    Raises: ValueError for an unknown `kind` or a `scale` or `std` that is not a finite number above 0.
    """

    kind: str
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    shift: float = 0.0
    scale: float = 1.0
    count: int = 0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name, value in (("scale", self.scale), ("std", self.std)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value}")

    def to_user(self, x: Tensor) -> npt.NDArray[Any]:
        """Samples `(n, *shape)` of the model in the user's units.

        Images become uint8, `(n, H, W)` if grey and `(n, H, W, C)` if not: limited to [-1, 1], because 8 bits hold no
        more, and rounded half up. Everything else becomes float32 `(n, *shape)`.
        Raises: ValueError for a wrong shape, or samples that are NaN or infinite.
        """
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"samples have shape {tuple(self.shape)}, got a batch of shape {tuple(x.shape)}")
        broken = int((~x.isfinite()).flatten(1).any(1).sum())
        if broken:
            raise ValueError(f"{broken} of {len(x)} samples hold NaN or infinity, which no user's value stands for")
        x = x.detach().cpu().double()
        if self.kind != "image":
            return (self.shift + self.scale * x).float().numpy()
        bytes_ = (self.shift + self.scale * x.clamp(-1, 1) + 0.5).floor().to(torch.uint8)
        return (bytes_[:, 0] if self.shape[0] == 1 else bytes_.movedim(1, -1).contiguous()).numpy()

    def to_model(self, values: npt.ArrayLike) -> Tensor:
        """The inverse of `to_user`: a user's values as float32 `(n, *shape)` in the model's units.

        Raises: ValueError for a wrong shape.
        """
        x = torch.as_tensor(np.asarray(values, dtype=np.float64))
        if self.kind == "image":
            x = x[:, None] if x.ndim == len(self.shape) else x.movedim(-1, 1)
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"expected items that fit the shape {tuple(self.shape)}, got {np.shape(values)}")
        return ((x - self.shift) / self.scale).float()


class Source(ABC):
    """An opened data set. Tensors are float32 in the model's units, labels int64 (-1: no label) or None."""

    info: Info

    @abstractmethod
    def draw(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        """`n` training samples `(n, *shape)` and their labels `(n,)`, on the generator's device; drawn with `rng`."""

    @abstractmethod
    def held(self) -> tuple[Tensor, Tensor | None]:
        """The held-out split: never drawn for training."""

    @abstractmethod
    def train(self) -> tuple[Tensor, Tensor | None]:
        """The training split, or for a law without end a fixed sample of it: the reference for scores."""


class Data(ABC):
    """A frozen value that says where data are and how to read them; `load` opens them."""

    @abstractmethod
    def load(self) -> Source:
        """Open the data.

        Raises: ValueError, FileNotFoundError or ImportError with one sentence that names the cause.
        """
