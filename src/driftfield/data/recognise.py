"""From a name or a path to a data set."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path

from ..names import unknown
from .array import SUFFIXES as ARRAY_SUFFIXES
from .array import Array
from .audio import SUFFIXES as AUDIO_SUFFIXES
from .audio import Audio
from .base import Data
from .cifar import CIFAR10
from .digits import Digits
from .folder import files_in
from .images import SUFFIXES as IMAGE_SUFFIXES
from .images import Images
from .mnist import MNIST, Fashion
from .table import SUFFIXES as TABLE_SUFFIXES
from .table import Table
from .toys import Checkerboard, EightGaussians, OlympicRings, Rings, SwissRoll, Tree

NAMES: dict[str, type[Data]] = {
    "digits": Digits,
    "mnist": MNIST,
    "fashion": Fashion,
    "cifar10": CIFAR10,
    "images": Images,
    "array": Array,
    "table": Table,
    "audio": Audio,
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
    """The data set at a path: a folder of pictures or of recordings, a NumPy file, or a table.

    Raises: FileNotFoundError, or ValueError for anything else, saying what can be read.
    """
    path = os.path.abspath(path)  # so that a run finds its data from wherever it is resumed
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if Path(path).is_dir():
        return _folder(path)
    if Path(path).suffix.lower() in ARRAY_SUFFIXES:
        return Array(path)
    if path.lower().endswith(TABLE_SUFFIXES):
        return Table(path)
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path} is one image; give the folder that holds the images")
    raise ValueError(
        f"{path} is of no kind that can be read; expected a folder of images ({', '.join(IMAGE_SUFFIXES)}) or of "
        f"recordings ({', '.join(AUDIO_SUFFIXES)}), a NumPy file ({', '.join(ARRAY_SUFFIXES)}), or a table "
        f"({', '.join(TABLE_SUFFIXES)})"
    )


def _folder(path: str) -> Data:
    """The pictures or the recordings of a folder, of which it holds the one or the other."""
    found = {}
    kinds = ((Images, IMAGE_SUFFIXES, "images"), (Audio, AUDIO_SUFFIXES, "recordings"))
    for kind, suffixes, what in kinds:
        with suppress(ValueError):  # there are none
            found[kind] = len(files_in(path, suffixes, what))
    if len(found) == 2:
        raise ValueError(
            f"the folder {path} holds {found[Images]} images and {found[Audio]} recordings; give a folder with one kind"
        )
    if not found:
        raise ValueError(
            f"the folder {path} holds no images or recordings; expected files ending in "
            f"{', '.join((*IMAGE_SUFFIXES, *AUDIO_SUFFIXES))}"
        )
    return Audio(path) if Audio in found else Images(path)


def find(text: str) -> Data:
    """The data set that `text` means: what is at that path if anything is, else a short name.

    Raises: as `named` where `text` looks like a name (no folder, no suffix, nothing there), else as `recognise`.
    """
    if Path(text).exists():
        return recognise(text)
    looks_like_name = Path(text).name == text and not Path(text).suffix
    return named(text) if looks_like_name else recognise(text)
