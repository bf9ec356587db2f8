"""Samples that were drawn before, read back to be scored: all at once, or in batches where they are many."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..data.base import Info
from ..data.folder import files_in
from ..data.images import SUFFIXES
from .draw import classes_of

WHOLE = 2**30  # bytes of samples that are read at once
_BATCH = 1024
_KEYS = ("x", "images", "samples", "arr_0")


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples in the model's units: `x`, `(n, *shape)`, or where there are more than 1 GiB `batches()` of them.

    A batch is spread over all of the samples, so that classes drawn in turn are mixed. `labels` are those kept with
    them; `notes` what was recorded when they were drawn.
    """

    x: Tensor | None
    batches: Callable[[], Iterator[Tensor]]
    n: int
    labels: Tensor | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def read_drawn(path: str | Path, info: Info) -> Drawn:
    """The samples at `path`, which are of the kind `info` says, in the user's units.

    A folder that `driftfield sample` wrote; another folder of pictures or of `.npy` files, one shard each; a `.npy` or
    `.npz` file. Raises: FileNotFoundError, or ValueError for other files or samples of another shape.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there are no samples at {path}")
    notes = _notes(path / "record.json") if path.is_dir() else {}
    if path.is_dir() and (path / "samples.npz").exists():
        path = path / "samples.npz"
    if path.suffix == ".npz":
        values, labels = _npz(path)
        return _of([values], info, path, labels, notes)
    if path.suffix == ".npy":
        return _of([_npy(path)], info, path, None, notes)
    shards = sorted(path.glob("*.npy")) if path.is_dir() else []
    if shards:
        return _of([_npy(shard) for shard in shards], info, path, None, notes)
    if path.is_file():
        raise ValueError(f"{path} is no file of samples; give a folder of pictures, a .npy or a .npz")
    if info.kind != "image":
        raise ValueError(
            f"{path} holds no samples.npz and no .npy, and these data are no pictures, of kind {info.kind}"
        )
    files = [f for f in files_in(str(path), SUFFIXES, "images") if f.name != "grid.png"]
    if not files:
        raise ValueError(f"{path} holds a grid but none of the pictures in it")
    labels = classes_of(notes["cond"], info, len(files)) if notes.get("cond") and info.classes else None
    return _drawn(len(files), info, lambda rows: np.stack([_pixels(files[i], info) for i in rows]), labels, notes)


def _of(parts: list[npt.NDArray[Any]], info: Info, path: Path, labels: Tensor | None, notes: dict[str, Any]) -> Drawn:
    ends = np.cumsum([len(p) for p in parts])
    try:
        for part in parts:
            info.to_model(part[:1])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None

    def take(rows: range) -> npt.NDArray[Any]:
        at = np.asarray(rows)
        shard = np.searchsorted(ends, at, side="right")
        found = [parts[s][at[shard == s] - (ends[s] - len(parts[s]))] for s in np.unique(shard)]
        return np.concatenate(found)

    return _drawn(int(ends[-1]), info, take, labels, notes)


def _drawn(
    n: int, info: Info, take: Callable[[range], npt.NDArray[Any]], labels: Tensor | None, notes: dict[str, Any]
) -> Drawn:
    def batches() -> Iterator[Tensor]:
        steps = max(1, -(-n // _BATCH))
        for i in range(steps):
            yield info.to_model(take(range(i, n, steps)))

    small = 4 * n * int(np.prod(info.shape)) <= WHOLE
    x = torch.cat([info.to_model(take(range(i, min(i + _BATCH, n)))) for i in range(0, n, _BATCH)]) if small else None
    return Drawn(x, batches, n, labels, notes)


def _notes(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not a record of samples ({error})") from None
    return found


def _npy(path: Path) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a .npy file that can be read ({error})") from None
    if found.ndim < 1 or not len(found):
        raise ValueError(f"{path} holds no samples, but an array of shape {found.shape}")
    return found


def _npz(path: Path) -> tuple[npt.NDArray[Any], Tensor | None]:
    try:
        with np.load(path, allow_pickle=False) as found:
            key = next((k for k in _KEYS if k in found.files), None)
            if key is None:
                raise ValueError(f"it has no array {', '.join(_KEYS)}, but {', '.join(found.files)}")
            values = found[key]
            labels = torch.from_numpy(found["labels"]).long() if "labels" in found.files else None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a .npz file of samples ({error})") from None
    if values.ndim < 1 or not len(values):
        raise ValueError(f"{path} holds no samples, but an array of shape {values.shape}")
    return values, labels


def _pixels(path: Path, info: Info) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("L" if info.shape[0] == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error})") from None
    if pixels.shape[:2] != tuple(info.shape[1:]):
        raise ValueError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]} but the data are {info.shape[2]}x{info.shape[1]}; "
            "resize the samples, or give data of their size"
        )
    return pixels
