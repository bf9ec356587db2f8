"""From a name or a path to a data set."""

from __future__ import annotations

import os
from dataclasses import MISSING, fields
from pathlib import Path

from ..names import unknown
from .array import SUFFIXES as ARRAY_SUFFIXES
from .array import Array
from .base import Data
from .cifar import CIFAR10
from .digits import Digits
from .images import SUFFIXES as IMAGE_SUFFIXES
from .images import Images, files_in
from .mnist import MNIST, Fashion
from .toys import Checkerboard, EightGaussians, OlympicRings, Rings, SwissRoll, Tree

NAMES: dict[str, type[Data]] = {
    "digits": Digits,
    "mnist": MNIST,
    "fashion": Fashion,
    "cifar10": CIFAR10,
    "images": Images,
    "array": Array,
    "eight-gaussians": EightGaussians,
    "rings": Rings,
    "checkerboard": Checkerboard,
    "swiss-roll": SwissRoll,
    "tree": Tree,
    "olympic-rings": OlympicRings,
}


def named(name: str) -> Data:
    """The data set with a short name, such as "digits" or "swiss-roll", with its defaults.

    Raises: ValueError for an unknown name, with the nearest known one; or for one that needs a path.
    """
    kind = NAMES.get(name)
    if kind is None:
        raise ValueError(unknown(name, NAMES, "data set"))
    if any(f.default is MISSING for f in fields(kind)):  # type: ignore[arg-type]
        raise ValueError(f"the data set {name!r} needs a path, so give that instead of the name (--data PATH)")
    return kind()


def recognise(path: str | os.PathLike[str]) -> Data:
    """The data set at a path: a folder of pictures, or a NumPy file.

    Raises: FileNotFoundError, or ValueError for anything else, saying what can be read.
    """
    path = os.path.abspath(path)  # so that a run finds its data from wherever it is resumed
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if Path(path).is_dir():
        files_in(path)  # raises where there is no picture
        return Images(path)
    if Path(path).suffix.lower() in ARRAY_SUFFIXES:
        return Array(path)
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path} is one image; give the folder that holds the images")
    raise ValueError(
        f"{path} is of no kind that can be read; expected a folder of images ({', '.join(IMAGE_SUFFIXES)}) "
        f"or a NumPy file ({', '.join(ARRAY_SUFFIXES)})"
    )


def find(text: str) -> Data:
    """The data set that `text` means: what is at that path if anything is, else a short name.

    Raises: as `named` where `text` looks like a name (no folder, no suffix, nothing there), else as `recognise`.
    """
    if Path(text).exists():
        return recognise(text)
    looks_like_name = Path(text).name == text and not Path(text).suffix
    return named(text) if looks_like_name else recognise(text)
