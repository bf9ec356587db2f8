"""A user's folder of pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .base import Data, Info, Source
from .decode import Bytes, Picture, check_sizes, decoded, mixed, size_of
from .folder import classes_of, files_in
from .stored import Stored, deviation_of_bytes, split
from .stream import Streamed, fits

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")


@dataclass(frozen=True)
class Images(Data):
    """The pictures of a folder and its sub-folders, as `(C, H, W)`; hidden files are passed over.

    When every picture lies in one of two or more sub-folders, their names are the classes. Without `size` all
    pictures must have the same height and width; with it each is cropped to its central square and resampled
    (Lanczos) to `size` x `size`. Without `channels` they are grey (1) if all files are stored as grey, else RGB (3).
    Transparent pixels are shown on white and cameras' orientation marks are obeyed. Of a file with several frames the
    first is taken, and CMYK becomes RGB, by the file's colour profile if it has one, each with a warning that counts
    such files. More than 8 bits a channel are an error that names the file, and so is a picture that cannot be decoded,
    unless `skip_corrupt` leaves such out with a warning.

    All are decoded when they are opened. Where they would fill more than a quarter of this machine's memory they are
    not kept, but decoded again when they are drawn: the same batches, from a folder that must stay as it is.
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
        found = files_in(self.path, SUFFIXES, "images")
        keep = fits(self._need(found))
        if not keep and self.size is None:
            check_sizes(found)
        look = _Look(keep)
        for file, picture in decoded(found, self.size, self.channels):
            if isinstance(picture, Picture):
                look.add(file, picture)
            elif self.skip_corrupt:
                look.broken.append(picture)
            else:
                raise picture
        look.warn()
        if len(look.files) < 2:
            raise ValueError(f"{self.path} holds {len(look.files)} readable images, but at least 2 are needed")
        labels, classes = classes_of([f.relative_to(self.path) for f in look.files])
        try:
            if keep:
                return Stored(look.stacked(), kind="image", held=self.held, labels=labels, classes=classes)
            return self._streamed(look, labels, classes)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    def _need(self, files: Sequence[Path]) -> int:
        """The bytes of all pictures, decoded, if they are like the first that can be opened."""
        width, height = self.size or 0, self.size or 0
        if self.size is None:
            width, height = next((size for file in files if (size := size_of(file)) is not None), (0, 0))
        return len(files) * (self.channels or 3) * width * height

    def _streamed(self, look: _Look, labels: Tensor | None, classes: tuple[str, ...]) -> Source:
        """The same set with its pictures left in their files."""
        train, held = split(len(look.files), self.held)
        shape = look.shape

        def read(index: npt.NDArray[np.int64]) -> Tensor:
            out = np.empty((len(index), *shape), np.uint8)
            for i, (file, picture) in enumerate(decoded([look.files[k] for k in index], self.size, self.channels)):
                if not isinstance(picture, Picture) or picture.pixels.shape[1:] != shape[1:]:
                    raise ValueError(f"{file} has changed since the folder was opened; put it back and start again")
                out[i] = picture.pixels
            return torch.from_numpy(out)

        counts = look.counts(shape[0])
        for some in torch.split(held, 32):
            counts -= torch.bincount(read(some.numpy()).flatten(), minlength=256)
        std = deviation_of_bytes(counts)
        if std == 0:
            raise ValueError("all training items hold one and the same value, so nothing can be learned")
        info = Info("image", shape, classes, 127.5, 127.5, len(train), std)
        return Streamed(read, info, train, held, labels)


@dataclass
class _Look:
    """What is found in a folder on the way through it: its pictures where they are kept, else their bytes counted."""

    keep: bool
    files: list[Path] = field(default_factory=list)
    kept: list[Bytes] = field(default_factory=list)
    broken: list[ValueError] = field(default_factory=list)
    frames: list[Path] = field(default_factory=list)
    cmyk: list[Path] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    bytes: dict[int, Tensor] = field(default_factory=dict)

    def add(self, file: Path, picture: Picture) -> None:
        """Take note of a picture. Raises: ValueError where its size is not that of the first."""
        channels, *size = picture.pixels.shape
        if self.files and size != [*self.shape[1:]]:
            raise mixed(self.files[0], (self.shape[2], self.shape[1]), file, (size[1], size[0]))
        self.shape = (max(channels, *self.shape[:1]) if self.shape else channels, *size)
        self.files.append(file)
        self.frames += [file] if picture.frames else []
        self.cmyk += [file] if picture.cmyk else []
        if self.keep:
            self.kept.append(picture.pixels)
        else:
            count = torch.from_numpy(np.bincount(picture.pixels.ravel(), minlength=256))
            self.bytes[channels] = self.bytes.get(channels, 0) + count

    def warn(self) -> None:
        """Say how many files were not taken as they are."""
        if self.broken:
            warnings.warn(f"{len(self.broken)} images left out, the first because {self.broken[0]}", stacklevel=4)
        for files, what in (
            (self.frames, "hold several frames, of which the first is taken"),
            (self.cmyk, "are in CMYK and were converted to RGB, whose colours may differ from those in print"),
        ):
            if files:
                warnings.warn(f"{len(files)} images {what} (such as {files[0]})", stacklevel=4)

    def stacked(self) -> Tensor:
        """The pictures that were kept, `(M, C, H, W)`; grey ones among colour become colour."""
        return torch.from_numpy(np.stack([np.broadcast_to(p, self.shape) for p in self.kept]))

    def counts(self, channels: int) -> Tensor:
        """How many bytes there are of each value, once all have this many channels."""
        return sum(
            (count * (channels // own) for own, count in self.bytes.items()), torch.zeros(256, dtype=torch.int64)
        )
