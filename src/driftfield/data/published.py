"""Sets of labelled pictures that others have published: each says what it is called and where its files are."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from .base import Data, Source
from .fetch import Pair, Route, fetched
from .stored import Stored, channels_first

_HELD = 10_000


@dataclass(frozen=True)
class Published(Data):
    """A published set, whose last 10,000 pictures are held out, as everybody holds them out.

    Fetched once by the first of the `routes` that is open, unless `path` is a folder that holds its files; `digest`,
    that of `digest_of`, says that they are the right ones.
    """

    path: str | None = None

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    routes: ClassVar[tuple[Route, ...]]
    digest: ClassVar[str]

    @staticmethod
    @abstractmethod
    def decode(folder: Path) -> Pair:
        """Images, uint8 `(M, H, W)` or `(M, H, W, 3)`, and labels `(M,)`, training items first.

        Raises: FileNotFoundError naming a file that is not there, ValueError for one that is damaged.
        """

    def load(self) -> Source:
        """Raises: OSError where it cannot be had, ValueError for a `path` with other files."""
        images, labels = fetched(self.name, self.routes, self.decode, self.digest, self.path)
        index = torch.arange(len(images))
        return Stored(
            torch.from_numpy(channels_first(images, "the set")),
            kind="image",
            held=(index[:-_HELD], index[-_HELD:]),
            labels=torch.from_numpy(labels.astype(np.int64)),
            classes=self.classes,
        )
