"""What a data set is: it says what its samples are, and draws batches of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..rng import Rng, permutation

KINDS = ("image", "points", "array", "table", "audio", "latent")


@dataclass(frozen=True)
class Info:
    """What one sample is, in the user's own terms; kept with the weights, so that samples come back in them.

    A user's value is `shift + scale * x`, with `x` what the model sees. `kind` is "image" (channels first, model
    values in [-1, 1], written as 8-bit pictures, so `shift = scale = 127.5`), "points" (2-D toys, drawn as scatter
    plots), "array" or "table" (see `TableInfo`). `classes` are the names of the classes, none for a set without
    labels; `count` is the size of the training split, 0 for a law that is drawn afresh; `std` is the natural
    `sigma_data` of the model's values: the root-mean-square deviation of all of them from their one common mean, as in
    EDM, where channels and pixels are not told apart. `incomplete` says that values may be missing: the model's data
    are NaN there.

    Raises: ValueError for an unknown `kind` or a `scale` or `std` that is not a finite number above 0.
    """

    kind: str
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    shift: float = 0.0
    scale: float = 1.0
    count: int = 0
    std: float = 1.0
    incomplete: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name, value in (("scale", self.scale), ("std", self.std)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value}")

    @property
    def seen(self) -> Info:
        """What a person sees: this, unless the model's values are a code for something else (`LatentInfo`)."""
        return self

    def decode(self, x: Tensor) -> Tensor:
        """Samples of the model as samples of `seen`, in its model's units."""
        return x

    @property
    def widths(self) -> tuple[int, ...]:
        """The numbers of neighbouring entries that make one variable, over the flattened shape: 1 each unless said."""
        return (1,) * math.prod(self.shape)

    def known(self, given: Any, n: int) -> Any:
        """The condition under which `n` samples hold `given` values. Raises: ValueError except for tables."""
        raise ValueError(f"values can be given for the columns of a table; this run's samples are of kind {self.kind}")

    def filled(self, x: Tensor, given: Any) -> Any:
        """Samples in the user's units, with `given` values as they were. Raises: ValueError except for tables."""
        return self.known(given, len(x))

    def _check(self, x: Tensor) -> None:
        """Raise a ValueError unless `x` is finite samples `(n, *shape)`."""
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"samples have shape {tuple(self.shape)}, got a batch of shape {tuple(x.shape)}")
        broken = int((~x.isfinite()).flatten(1).any(1).sum())
        if broken:
            raise ValueError(f"{broken} of {len(x)} samples hold NaN or infinity, which no user's value stands for")

    def to_user(self, x: Tensor) -> Any:
        """Samples `(n, *shape)` of the model in the user's units, a NumPy array; rows of a table as a DataFrame.

        Images become uint8, `(n, H, W)` if grey and `(n, H, W, C)` if not: limited to [-1, 1], because 8 bits hold no
        more, and rounded half up. Everything else, `(n, *shape)`, is worked out in float64 and becomes float32 unless
        that is too coarse: with steps over a thousandth of `scale`, anywhere within a thousand of it from `shift`.
        Raises: ValueError for a wrong shape, or samples that are NaN or infinite.
        """
        self._check(x)
        x = x.detach().cpu().double()
        if self.kind != "image":
            values: npt.NDArray[np.float64] = (self.shift + self.scale * x).numpy()
            with np.errstate(over="ignore"):
                step = float(np.spacing(np.float32(abs(self.shift) + 1000 * self.scale)))  # NaN beyond float32
            return values.astype(np.float32) if step <= self.scale / 1000 else values
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


def alike(a: Any, b: Any) -> bool:
    """Whether two `Info`, or what they are made of, say the same: real numbers to nine digits, all else exactly.

    Sums over the data, such as `std`, differ in their last digits with the number of threads that took them.
    """
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if is_dataclass(a) and type(a) is type(b):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.compare)
    return bool(a == b)


class Source(ABC):
    """An opened data set. Tensors are float32 in the model's units, labels int64 (-1: no label) or None.

    `slow` says that a draw reads files, so that it is worth making while the step before it runs.
    """

    info: Info
    slow: bool = False

    @property
    def seen(self) -> Source:
        """The data that a person sees, of `info.seen`: this, unless the model learns a code for them."""
        return self

    @abstractmethod
    def draw(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        """`n` training samples `(n, *shape)` and their labels `(n,)`, on the generator's device; drawn with `rng`."""

    @abstractmethod
    def held(self) -> tuple[Tensor, Tensor | None]:
        """The held-out split: never drawn for training."""

    @abstractmethod
    def train(self) -> tuple[Tensor, Tensor | None]:
        """The training split, or for a law without end a fixed sample of it: the reference for scores."""

    def some_held(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Up to `n` held-out samples, chosen by `rng`: a hook for sources that need not read the whole split."""
        x, label = self.held()
        chosen = permutation(len(x), rng)[:n]
        return x[chosen], None if label is None else label[chosen]

    def parts(self, n: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All training samples in order, up to `n` at a time: a hook for sources that need not hold them at once."""
        x, label = self.train()
        for i in range(0, len(x), n):
            yield x[i : i + n], None if label is None else label[i : i + n]


class Data(ABC):
    """A frozen value that says where data are and how to read them; `load` opens them."""

    @abstractmethod
    def load(self) -> Source:
        """Open the data.

        Raises: ValueError, FileNotFoundError or ImportError with one sentence that names the cause.
        """
