"""One look at a large array, a few items at a time."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_FAR_APART = 16  # items read between two times that pages are given back: an item may bring two megabytes
_AT_ONCE = 2**20  # numbers looked at at once; fixed, so that sums do not depend on where an array lies


@dataclass
class Sums:
    """What a look at the training items of an array leaves: `(count, mean, deviation)` of its parts, in float64, or of
    images how many bytes there are of each value."""

    parts: list[tuple[int, float, float]] = field(default_factory=list)
    bytes: Tensor = field(default_factory=lambda: torch.zeros(256, dtype=torch.int64))

    def shift_and_scale(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of all values. Raises: ValueError where they are no ordinary numbers."""
        if len(self.parts) == 1:
            _, shift, scale = self.parts[0]
        else:
            total = sum(n for n, _, _ in self.parts)
            with np.errstate(over="ignore", invalid="ignore"):
                n, mean, std = np.array(self.parts).T
                shift = float((n * mean).sum() / total)
                scale = float(np.sqrt((n * (std**2 + (mean - shift) ** 2)).sum() / total))
        if not (np.isfinite(shift) and 0 < scale < np.inf):
            raise ValueError(f"{name} has mean {shift} and standard deviation {scale}; rescale it to ordinary numbers")
        return shift, scale


def surveyed(array: npt.NDArray[Any], train: Tensor, images: bool, name: str) -> Sums:
    """Look at every value once, a few at a time. Raises: ValueError for values that are not finite, or all alike."""
    training = np.zeros(len(array), bool)
    training[train.numpy()] = True
    sums, bad, low, high = Sums(), 0, np.inf, -np.inf
    first: tuple[int, ...] = ()
    step = max(1, _AT_ONCE // (array.size // len(array)))
    for i in range(0, len(array), step):
        block = _read(array, i, i + step)
        wrong = ~np.isfinite(block)
        if wrong.any():
            if not bad:
                at, *rest = (int(v) for v in np.argwhere(wrong)[0])
                first = (i + at, *rest)
            bad += int(wrong.sum())
        part = block[training[i : i + step]]
        if bad or not len(part):
            continue
        low, high = min(low, part.min()), max(high, part.max())
        if images:
            sums.bytes += torch.from_numpy(np.bincount(part.ravel(), minlength=256))
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                sums.parts.append((part.size, float(part.mean(dtype=np.float64)), float(part.std(dtype=np.float64))))
    if bad:
        raise ValueError(
            f"{name} holds {bad} values that are NaN or infinite, the first at index {first}; remove or replace them"
        )
    if low == high:
        raise ValueError(f"{name} holds only the value {low} in its training items, so nothing can be learned")
    return sums


def file_of(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The mapped file that an array is a view of, if it is one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def _read(array: npt.NDArray[Any], begin: int, end: int) -> npt.NDArray[Any]:
    """Some items of an array; a mapped one's pages are given back, so that memory holds no more than these."""
    if file_of(array) is None:
        return array[begin:end]
    return taken(array, np.arange(begin, min(end, len(array))))


def taken(array: npt.NDArray[Any], index: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """A copy of the items `index` of a mapped array; its pages are given back, and with each item come its neighbours'.

    So it is made a few items at a time: many that lie far apart would bring in the whole file.
    """
    source, file = array.view(np.ndarray), file_of(array)
    out = np.empty((len(index), *array.shape[1:]), array.dtype)
    for i in range(0, len(index), _FAR_APART):
        np.take(source, index[i : i + _FAR_APART], axis=0, out=out[i : i + _FAR_APART])
        if file is not None and hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)  # they stay in the system's cache, at nobody's expense
    return out
