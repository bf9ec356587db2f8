"""A user's folder of pictures."""

from __future__ import annotations

import os
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch import Tensor

from .base import Data, Source
from .stored import Stored

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
_MANY = 2000  # files; fewer take about a second
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images(Data):
    """The pictures of a folder and its sub-folders, as `(C, H, W)`; hidden files are passed over.

    When every picture lies in one of two or more sub-folders, their names are the classes. Without `size` all
    pictures must have the same height and width; with it each is cropped to its central square and resampled
    (Lanczos) to `size` x `size`. Without `channels` they are grey (1) if all files are stored as grey, else RGB (3).
    Transparent pixels are shown on white, cameras' orientation marks are obeyed, and of a moving picture the first
    frame is taken. A picture that cannot be decoded is an error that names it, unless `skip_corrupt` leaves such out
    with a warning that counts them.
    """

    path: str
    size: int | None = None
    channels: int | None = None
    held: float = 0.1
    skip_corrupt: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))
        if self.size is not None and self.size < 1:
            raise ValueError(f"size is a number of pixels, at least 1; got {self.size}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")

    def load(self) -> Source:
        """Raises: FileNotFoundError or ValueError with one sentence that names the folder or the file."""
        files, pictures = [], []
        broken: list[ValueError] = []
        for file, picture in _decoded(files_in(self.path), self.size, self.channels):
            if isinstance(picture, ValueError):
                if not self.skip_corrupt:
                    raise picture
                broken.append(picture)
                continue
            files.append(file)
            pictures.append(picture)
            if picture.shape[1:] != pictures[0].shape[1:]:
                raise ValueError(
                    f"the images differ in size: {files[0]} is {_measure(pictures[0])} but {file} is "
                    f"{_measure(picture)}; give one size, such as size=64 (--set data.size=64)"
                )
        if broken:
            warnings.warn(f"{len(broken)} images left out, the first because {broken[0]}", stacklevel=2)
        if len(files) < 2:
            raise ValueError(f"{self.path} holds {len(files)} readable images, but at least 2 are needed")
        shape = (max(len(p) for p in pictures), *pictures[0].shape[1:])
        data = torch.from_numpy(np.stack([np.broadcast_to(p, shape) for p in pictures]))
        labels, classes = _labels([f.relative_to(self.path) for f in files])
        try:
            return Stored(data, kind="image", held=self.held, labels=labels, classes=classes)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


def files_in(path: str) -> list[Path]:
    """The pictures in a folder and its sub-folders, by their suffix, sorted.

    Raises: FileNotFoundError for no such folder, ValueError for a file or a folder without pictures.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {path}")
    if not root.is_dir():
        raise ValueError(f"{path} is a file; give the folder that holds the images")
    files = sorted(file for file in root.rglob("*") if _is_picture(file.relative_to(root)) and file.is_file())
    if not files:
        raise ValueError(f"the folder {path} holds no images; expected files ending in {', '.join(SUFFIXES)}")
    return files


def _is_picture(name: Path) -> bool:
    return name.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in name.parts)


def _decoded(
    files: Sequence[Path], size: int | None, channels: int | None
) -> Iterator[tuple[Path, Bytes | ValueError]]:
    """Each file with its pixels, or with the reason why there are none; decoded in threads, in order."""
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        results = pool.map(partial(_decode, size=size, channels=channels), files)
        quiet = len(files) < _MANY or not sys.stderr.isatty()
        pairs = zip(files, results, strict=True)
        console = Console(stderr=True)
        yield from track(pairs, "Reading images", total=len(files), console=console, disable=quiet, transient=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(file: Path, size: int | None, channels: int | None) -> Bytes | ValueError:
    """The pixels `(C, H, W)` of one file."""
    try:
        with Image.open(file) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    except _BROKEN as error:
        return ValueError(
            f"{file} cannot be read as an image ({error}); remove it, or leave such files out with "
            "skip_corrupt=True (--set data.skip_corrupt=true)"
        )
    if picture.mode.startswith(("I", "F")):  # Pillow would clip these to 255
        raise ValueError(f"{file} has more than 8 bits a pixel (mode {picture.mode}); save it with 8, or as .npy")
    picture = _opaque(picture)
    if channels is not None:
        picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture as grey ("L") or "RGB", on a white ground where it is transparent."""
    mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if "transparency" not in picture.info and picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return picture.convert(mode)
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert(mode)


def _labels(names: Sequence[Path]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels from the first folder of each relative name; none unless all have one, and at least two differ."""
    folders = [name.parts[0] if len(name.parts) > 1 else "" for name in names]
    classes = tuple(sorted(set(folders)))
    if "" in classes or len(classes) < 2:
        return None, ()
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[folder] for folder in folders]), classes


def _measure(picture: Bytes) -> str:
    return f"{picture.shape[2]}x{picture.shape[1]}"
