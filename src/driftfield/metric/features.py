"""What samples are compared by: their own values, or what a network makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..names import pick
from .classifier import CLASSIFIERS, classifier, weights

KNOWN = ("raw", *CLASSIFIERS, "efficientnet", "inception:FILE")


@dataclass(frozen=True)
class Features:
    """A named map from samples `(n, *shape)` to features `(n, F)`, each row by itself.

    Name and `resize`, the rule that brings pictures to the network's size, go into the record of every score.
    `digest` identifies the network's weights, so that features can be kept and found again; None: they are not kept.
    `batch` samples go through it at a time.
    """

    name: str
    extract: Callable[[Tensor], Tensor]
    resize: str = "none"
    digest: str | None = None
    batch: int = 1024

    def __call__(self, x: Tensor, batch: int | None = None) -> Tensor:
        """The features of `x`, `(n, *shape)`, without gradient, `batch` samples at a time.

        Raises: ValueError where `extract` does not return a row per sample, and what it raises.
        """
        size = self.batch if batch is None else batch
        return torch.cat(list(self.stream(x[i : i + size] for i in range(0, max(1, len(x)), size))))

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The features of each batch in turn, without gradient; nothing is held. Raises: as a call."""
        for x in batches:
            with torch.no_grad():
                out = self.extract(x)
            if out.ndim != 2 or len(out) != len(x):
                raise ValueError(
                    f"features {self.name!r} should turn samples {tuple(x.shape)} into shape ({len(x)}, F), "
                    f"got {tuple(out.shape)}; flatten what they return"
                )
            yield out


def features(which: str | Features | Callable[[Tensor], Tensor]) -> Features:
    """The features called `which`, a name or a callable.

    "raw" are the values themselves. "digits", "mnist", "fashion" and "cifar10" are the shipped classifiers of these
    data. "efficientnet" is EfficientNet-Lite0 on pictures resized to 64 pixels (`driftfield[features]`).
    "inception:FILE" is the network of the published FID protocol, in a file of the user's own; see `inception`.
    A callable takes `(b, *shape)` and returns `(b, F)`; it is recorded under its import path, and must treat each row
    by itself (a network in evaluation mode). To choose the name, give `Features(name, callable)`.
    Raises: ValueError for an unknown name, offering the nearest one; ImportError or OSError where the network is not
    here; TypeError for anything else.
    """
    if isinstance(which, Features):
        return which
    if isinstance(which, str):
        return _named(which)
    if not callable(which):
        raise TypeError(f"features should be a name or a callable, got {which!r}; known names: {', '.join(KNOWN)}")
    kind = which if hasattr(which, "__qualname__") else type(which)
    return Features(f"{kind.__module__}:{kind.__qualname__}", which)


def raw(x: Tensor) -> Tensor:
    """The values themselves: `(n, *shape)` to `(n, F)`."""
    return x.reshape(len(x), -1)


def _named(name: str) -> Features:
    kind, _, path = name.partition(":")
    if kind == "inception":
        from .inception import inception  # these two import this file

        return inception(path)
    pick(name, dict.fromkeys(KNOWN), "features")
    if name == "raw":
        return Features("raw", raw)
    if name == "efficientnet":
        from .efficientnet import efficientnet

        return efficientnet()
    return Features(
        name,
        lambda x: classifier(name, x.device).features(x.float()),
        digest=hashlib.sha256(weights(name)).hexdigest(),
    )
