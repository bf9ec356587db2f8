"""A user's array that is already in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .base import Data, Source
from .stored import stored

Values = npt.NDArray[Any] | Tensor
Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any] | None]


@dataclass(frozen=True)
class InMemory(Data):
    """An array handed over in Python, `InMemory.of(x, labels)`; `stored` says what its shape and dtype mean.

    The fields describe it: shape, dtype and a SHA-256 digest of the numbers (labels included). The array itself is
    neither written to files nor compared, so a value read back from a file cannot be loaded.
    """

    shape: tuple[int, ...]
    dtype: str
    digest: str
    held: float = 0.1
    arrays: Arrays | None = field(default=None, compare=False, repr=False, metadata={"plain": False})

    @classmethod
    def of(cls, x: Values, labels: Values | None = None, held: float = 0.1) -> Self:
        """Describe `x`, `(M, ...)`, and its `labels`, `(M,)`; the memory is shared, not copied."""
        arrays = _numpy(x), None if labels is None else _numpy(labels)
        return cls(arrays[0].shape, str(arrays[0].dtype), _digest(*arrays), held, arrays)

    def load(self) -> Source:
        """Raises: ValueError when the array is not here, has changed since, or cannot be used (see `stored`)."""
        if self.arrays is None:
            raise ValueError(
                f"this run learned an array of shape {tuple(self.shape)} that was in memory and was not saved with it; "
                "hand it over again with InMemory.of(x, labels)"
            )
        if _digest(*self.arrays) != self.digest:
            raise ValueError("the array has changed since it was handed over; hand it over again with InMemory.of")
        return stored(*self.arrays, self.held)


def _numpy(x: Values) -> npt.NDArray[Any]:
    if not isinstance(x, Tensor):
        return np.asarray(x)
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # NumPy has no bfloat16; the widening is exact


def _digest(*arrays: npt.NDArray[Any] | None) -> str:
    state = hashlib.sha256()
    for array in arrays:
        if array is None:
            continue
        if array.dtype.hasobject:
            raise ValueError(f"expected an array of numbers, got dtype {array.dtype}")
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return state.hexdigest()
