"""A finite data set held in memory, drawn by index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..rng import Rng, device_of, integers, permutation, seeded
from .base import Info, Source
from .stream import Streamed, model_values
from .survey import file_of, surveyed, taken

RESIDENT = 4 * 2**30  # bytes: a larger set stays in the computer's memory, and only batches go to the accelerator
_SPLIT = 0x53504C49  # the key of the one stream that chooses held-out items
_MOST_HELD = 10_000


def split(count: int, held: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The indices of the training and of the held-out items among `count`, each increasing, int64.

    The fraction `held` is kept back: at least 1 item, at most 10,000. Which ones depends on `(count, held, seed)`.
    Raises: ValueError for fewer than 2 items, or a fraction outside (0, 1).
    """
    if count < 2:
        raise ValueError(f"a data set needs at least 2 items, one to learn from and one to hold out; got {count}")
    if not 0 < held < 1:
        raise ValueError(f"held is the fraction of items kept out of training, between 0 and 1; got {held}")
    kept = min(max(1, round(held * count)), _MOST_HELD, count - 1)
    order = permutation(count, seeded(seed, _SPLIT))
    return order[kept:].sort().values, order[:kept].sort().values


class Stored(Source):
    """A finite set `(M, *shape)` and its labels `(M,)`: batches are independent, uniform draws of training items.

    `data` are uint8, the bytes of images, which a draw brings to [-1, 1]; or float32, already in the model's units.
    Draws happen on the generator's device. A set of up to 4 GiB is copied there once, at the first draw, so that
    training waits for no transfer; a larger one stays put and sends its batches.
    Raises: ValueError for fewer than 2 items, a bad fraction `held`, or data that are all the same value.
    """

    def __init__(
        self,
        data: Tensor,
        *,
        kind: str,
        held: float | tuple[Tensor, Tensor] = 0.1,
        labels: Tensor | None = None,
        classes: tuple[str, ...] = (),
        shift: float = 127.5,
        scale: float = 127.5,
        std: float | None = None,
    ):
        """`held` is the fraction to keep out of training, or the indices of the training and of the held-out items.

        `shift` and `scale` lead to the user's units, see `Info`; `classes` name the labels 0, 1, ...; `std` is
        measured unless it is known.
        """
        self._train, self._held = held if isinstance(held, tuple) else split(len(data), held)
        self._data, self._labels = data, labels
        self._copies: dict[torch.device, tuple[Tensor, Tensor, Tensor | None]] = {}
        std = _deviation(data[self._train]) if std is None else std
        if std == 0:
            raise ValueError("all training items hold one and the same value, so nothing can be learned")
        self.info = Info(kind, tuple(data.shape[1:]), classes, shift, scale, len(self._train), std)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
        if device not in self._copies:
            labels = None if self._labels is None else self._labels.to(device)
            self._copies[device] = self._data.to(device), self._train.to(device), labels
        return self._copies[device]

    def draw(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        device = device_of(rng)
        pick = integers(torch.empty(n, device=device), self.info.count, rng)
        home = device if self._data.nbytes <= RESIDENT else self._data.device
        data, train, labels = self._on(home)
        index = train[pick.to(home)]
        return model_values(data[index].to(device)), None if labels is None else labels[index].to(device)

    def _part(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        return model_values(self._data[index]), None if self._labels is None else self._labels[index]

    def held(self) -> tuple[Tensor, Tensor | None]:
        return self._part(self._held)

    def train(self) -> tuple[Tensor, Tensor | None]:
        return self._part(self._train)


def _deviation(data: Tensor) -> float:
    """The standard deviation of all the model's values about their one mean, in float64; bytes by their histogram."""
    if data.dtype != torch.uint8:
        return float(data.double().std(correction=0))
    return deviation_of_bytes(torch.bincount(data.flatten(), minlength=256))


def deviation_of_bytes(counts: Tensor) -> float:
    """The same for bytes of images, from how many there are of each value, `(256,)`."""
    weight = counts.double() / counts.sum()
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    return float((weight * (values - (weight * values).sum()).square()).sum().sqrt())


def stored(
    array: npt.NDArray[Any], labels: npt.NDArray[Any] | None = None, held: float = 0.1, name: str = "the array"
) -> Source:
    """Open an array of `M` items, and their labels `(M,)`; one that is mapped from a file stays there (`Streamed`).

    uint8 of shape `(M, H, W)`, `(M, H, W, 1 or 3)` or `(M, 1 or 3, H, W)` are images. Other numbers are brought to
    mean 0 and standard deviation 1 over all values of the training items, by one shift and one scale: `(M,)` and
    `(M, N)` are vectors (points if N = 2), `(M, C, ...)` arrays with channels first.
    Labels are integers from 0 up, -1 for an item without one, or strings; the distinct ones, sorted, are the classes.
    Raises: ValueError, its sentence beginning with `name`, for anything else; for NaN or infinite values, of which it
    gives the number and the first index; for fewer than 2 items; and for constant data.
    """
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} must hold items along its first axis, got shape {array.shape}")
    try:
        train, kept = split(len(array), held)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    target, classes = (None, ()) if labels is None else _classes(labels, len(array), name)
    images = array.dtype == np.uint8 and array.ndim in (3, 4)
    sums = surveyed(array, train, images, name)
    shift, scale = (127.5, 127.5) if images else sums.shift_and_scale(name)

    def values(part: npt.NDArray[Any]) -> Tensor:
        if images:
            return torch.from_numpy(channels_first(part, name))
        x = ((part.astype(np.float64) - shift) / scale).astype(np.float32)
        return torch.from_numpy(x.reshape(-1, 1) if x.ndim == 1 else x)

    shape = tuple(values(array[:1].copy()).shape[1:])
    kind = "image" if images else "points" if shape == (2,) else "array"
    std = deviation_of_bytes(sums.bytes) if images else 1.0
    if file_of(array) is not None:
        info = Info(kind, shape, classes, shift, scale, len(train), std)
        return Streamed(lambda index: values(taken(array, index)), info, train, kept, target)
    return Stored(
        values(array), kind=kind, held=held, labels=target, classes=classes, shift=shift, scale=scale, std=std
    )


def channels_first(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Images `(M, H, W)`, or with 1 or 3 channels last or first, as `(M, C, H, W)`. Raises: ValueError for others."""
    if array.ndim == 3:
        return np.ascontiguousarray(array[:, None])
    if array.shape[-1] in (1, 3):
        return np.ascontiguousarray(np.moveaxis(array, -1, 1))
    if array.shape[1] in (1, 3):
        return np.ascontiguousarray(array)
    raise ValueError(
        f"{name} has dtype uint8, so it is read as images, but {array.shape} has no axis of 1 or 3 channels; "
        "convert it to RGB, or to float32 to learn it as plain numbers"
    )


def _classes(labels: npt.NDArray[Any], count: int, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as indices into the names of their classes."""
    if labels.shape != (count,):
        raise ValueError(f"{name} has {count} items, so its labels must have shape ({count},), got {labels.shape}")
    if labels.dtype.kind not in "iubU":
        raise ValueError(f"the labels of {name} must be integers or strings, got dtype {labels.dtype}")
    missing = labels == -1 if labels.dtype.kind == "i" else np.zeros(count, bool)
    values, index = np.unique(labels[~missing], return_inverse=True)
    if labels.dtype.kind == "i" and len(values) and values[0] < 0:
        raise ValueError(f"the labels of {name} must be at least 0, or -1 for an item without one; got {values[0]}")
    target = np.full(count, -1, np.int64)
    target[~missing] = index.reshape(-1)
    return torch.from_numpy(target), tuple(str(v) for v in values)
