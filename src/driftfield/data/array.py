"""A user's NumPy file."""

from __future__ import annotations

import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Data, Source
from .stored import stored
from .stream import fits, memory

SUFFIXES = (".npy", ".npz")
_DATA_KEYS = ("x", "images", "data")
_LABEL_KEYS = ("labels", "y")


@dataclass(frozen=True)
class Array(Data):
    """The items along the first axis of a `.npy` or `.npz` file; `stored` says what its shape and dtype mean.

    `key` names the array of a `.npz`; without it, `x`, `images` or `data` is taken, else the only array there is.
    `labels` names the labels: a key of the `.npz`, or the path of a second `.npy`; without it, integers or strings
    under `labels` or `y` in the `.npz` are taken, if there is one for each item, and otherwise left out with a warning.

    A `.npy` that would fill more than a quarter of this machine's memory stays in its file, is mapped, and gives the
    same batches; a `.npz` cannot be mapped.
    """

    path: str
    key: str | None = None
    labels: str | None = None
    held: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))

    def load(self) -> Source:
        """Raises: FileNotFoundError, or ValueError for a file, key or numbers that cannot be used, saying which."""
        arrays = _read(self.path, mapped=True)
        if Path(self.path).suffix.lower() == ".npy":
            if self.key is not None:
                raise ValueError(f"{self.path} holds one array without a name, so key={self.key!r} has no meaning")
            labels = None if self.labels is None else _read(self.labels)[""]
            return stored(arrays[""], labels, self.held, self.path)
        data = arrays[self._data_key(arrays)]
        return stored(data, self._labels_of(arrays, data), self.held, self.path)

    def _data_key(self, arrays: dict[str, npt.NDArray[Any]]) -> str:
        if self.key is not None:
            if self.key not in arrays:
                raise ValueError(f"{self.path} has no array {self.key!r}; it has {', '.join(arrays)}")
            return self.key
        known = [k for k in _DATA_KEYS if k in arrays]
        others = [k for k in arrays if k not in _LABEL_KEYS and k != self.labels]
        if not known and len(others) != 1:
            raise ValueError(
                f"{self.path} holds the arrays {', '.join(arrays) or '(none)'}; "
                "say which are the data with key=NAME (--set data.key=NAME)"
            )
        return known[0] if known else others[0]

    def _labels_of(self, arrays: dict[str, npt.NDArray[Any]], data: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        if self.labels is not None:
            if self.labels not in arrays:
                raise ValueError(f"{self.path} has no labels {self.labels!r}; it has {', '.join(arrays)}")
            return arrays[self.labels]
        for key in _LABEL_KEYS:
            if key in arrays and key != self.key:
                labels = arrays[key]
                if labels.shape == data.shape[:1] and labels.dtype.kind in "iubU":
                    return labels
                warnings.warn(
                    f"{self.path}: {key!r}, {labels.dtype} of shape {labels.shape}, is not one label for each of "
                    f"{len(data) if data.ndim else 0} items, so it is left out",
                    stacklevel=4,
                )
        return None


def _read(path: str, mapped: bool = False) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file by name; that of a `.npy` under the empty name, and mapped if it is too large and may be.

    Nothing is unpickled.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is not a NumPy file; expected one that ends in {' or '.join(SUFFIXES)}")
    try:
        if mapped and Path(path).suffix.lower() == ".npy" and not fits(13 * os.path.getsize(path)):  # at the most
            whole = np.load(path, mmap_mode="r")
            if not fits(_need(whole)):
                return {"": whole}
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            return {"": found} if isinstance(found, np.ndarray) else _unpacked(path, found)
    except MemoryError:
        raise ValueError(
            f"{path} holds more than this machine's memory, and must be read whole; save its data as a .npy file, "
            "which need not be"
        ) from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise ValueError(f"{path} holds Python objects, which are never unpickled; save plain numbers") from None
        raise ValueError(f"{path} cannot be read as a NumPy file; it may be damaged or of another kind") from error


def _need(array: npt.NDArray[Any]) -> int:
    """The bytes that opening an array in memory takes at its height: images as they are, numbers in float64 as well."""
    return array.nbytes if array.dtype == np.uint8 else array.nbytes + 12 * array.size


def _unpacked(path: str, found: Any) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `.npz`. Raises: MemoryError, before anything is read, for more than there is memory."""
    size = sum(entry.file_size for entry in found.zip.infolist())
    if size > memory():
        raise MemoryError
    return {name: found[name] for name in found.files}
