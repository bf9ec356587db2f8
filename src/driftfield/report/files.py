"""Samples as the files a user expects: pictures, arrays, or the rows of a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import wavfile
from torch import Tensor

from ..data.audio import AudioInfo
from ..data.base import Info
from ..data.given import Given
from ..data.picture import picture

_IN_GRID, _WAVES = 100, 36  # samples in a grid
_CSV_COLUMNS = 100


def write_samples(samples: Tensor, labels: Tensor | None, info: Info, folder: Path, given: Given | None) -> list[str]:
    """Write samples `(n, *shape)` of the model in the user's units into `folder`; the names of the files.

    `labels` `(n,)` are their classes, `given` what of them was given beforehand, where something was.
    """
    return WRITERS[info.seen.kind](samples, labels, info, folder, given)


def _images(samples: Tensor, labels: Tensor | None, info: Info, folder: Path, given: Given | None) -> list[str]:
    """One PNG each, a part at a time where they are many, and a grid of the first."""
    grid = picture(samples[:_IN_GRID], info)
    assert grid is not None
    grid.save(folder / "grid.png")
    numbered = _numbered(samples, info, folder, "png", lambda path, one: Image.fromarray(one).save(path))
    return ["grid.png", numbered]


def _numbered(samples: Tensor, info: Info, folder: Path, suffix: str, save: Callable[[Path, Any], None]) -> str:
    """One file for each sample, in the user's units, a part at a time where they are many; the first and last name."""
    digits = max(5, len(str(len(samples) - 1)))
    for i in range(0, len(samples), 1024):
        for j, one in enumerate(info.to_user(samples[i : i + 1024]), i):
            save(folder / f"{j:0{digits}d}.{suffix}", one)
    return f"{0:0{digits}d}.{suffix} ... {len(samples) - 1:0{digits}d}.{suffix}"


def _arrays(samples: Tensor, labels: Tensor | None, info: Info, folder: Path, given: Given | None) -> list[str]:
    """`samples.npz`; for vectors also `samples.csv`, and for points in the plane a picture of their density."""
    files = []
    image = picture(samples, info)
    if image is not None:
        image.save(folder / "grid.png")
        files.append("grid.png")
    values = info.to_user(samples)
    extra: dict[str, Any] = {} if labels is None else {"labels": labels.numpy()}
    np.savez(folder / "samples.npz", x=values, **extra)
    files.append("samples.npz")
    if values.ndim == 2 and values.shape[1] <= _CSV_COLUMNS:
        header = ",".join(f"x{i}" for i in range(values.shape[1]))
        np.savetxt(folder / "samples.csv", values, delimiter=",", header=header, comments="", fmt="%s")
        files.append("samples.csv")
    return files


def _table(samples: Tensor, labels: Tensor | None, info: Info, folder: Path, given: Given | None) -> list[str]:
    """`samples.csv` in the user's columns, and `samples.parquet` where the data were such a file."""
    frame = info.to_user(samples) if given is None else given.rows(samples, info)
    frame.to_csv(folder / "samples.csv", index=False)
    if not getattr(info, "parquet", False):
        return ["samples.csv"]
    frame.to_parquet(folder / "samples.parquet", index=False)
    return ["samples.csv", "samples.parquet"]


def _audio(samples: Tensor, labels: Tensor | None, info: Info, folder: Path, given: Given | None) -> list[str]:
    """One WAV file each, of floats so that nothing is cut off at full scale, and a picture of the first."""
    shown = info.seen
    assert isinstance(shown, AudioInfo)
    grid = picture(samples[:_WAVES], info)
    assert grid is not None
    grid.save(folder / "grid.png")
    numbered = _numbered(samples, info, folder, "wav", lambda path, wave: wavfile.write(path, shown.rate, wave.T))
    return ["grid.png", numbered]


Writer = Callable[[Tensor, Tensor | None, Info, Path, Given | None], list[str]]
WRITERS: dict[str, Writer] = {"image": _images, "points": _arrays, "array": _arrays, "table": _table, "audio": _audio}
