"""Handwritten digits: small enough to learn in two minutes, and inside scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .base import Data, Source
from .stored import Stored


@dataclass(frozen=True)
class Digits(Data):
    """1,797 handwritten digits of 8 x 8 grey pixels, with their classes "0" to "9".

    Shapes: `(1, 8, 8)`. Units: scikit-learn's ink 0..16 becomes `ink / 8 - 1`, exactly; a user's pixel is 8-bit.
    """

    held: float = 0.1

    def load(self) -> Source:
        """Raises: ImportError without scikit-learn, ValueError for a bad fraction `held`."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ImportError("the digits come with scikit-learn: pip install 'driftfield[digits]'") from None
        found = load_digits()
        images = torch.from_numpy(found.images).float()[:, None] / 8 - 1
        labels = torch.from_numpy(found.target).long()
        return Stored(images, kind="image", held=self.held, labels=labels, classes=tuple(map(str, range(10))))
