"""Stable targets: the mean of what could have made a noisy sample, over a reference that contains what did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from ..denoise.empirical import Empirical
from ..linear import flat
from ..network.embed import Condition, condition
from ..process.base import SCRATCH
from .base import Batch
from .matching import Matching


@dataclass(frozen=True)
class StableTarget(Matching):
    """`Matching` on the mean of the targets of `reference` data, each weighed by the chance that it made `x_t`.

    The data are drawn afresh for every piece of a batch (so for every process, and every part of an accumulated batch)
    and contain it. Because they do, the target is the mean of the sample's own one given all that was drawn: it has
    the same mean at every size of the reference and a variance that falls with it, from `Matching`'s at a size of 1.
    For every process: by `Empirical` for isotropic and Gaussian ones, at any D, whose memory and time on the reference
    it takes; by `log_kernel` and a target for every pair of a row and a datum, some at a time, for all others, such as
    `DissipativeWave`. The fields beside `reference` are those of `Matching`.

    The means agree only among data on which the network is told the same. A row is therefore compared with data of its
    own class, a row that lost its label with all data, as it is an even sample of them; where some data have no label
    it is not, and keeps to its own class. A row left alone by `augment`, or only mirrored, is compared with the
    reference likewise; one that was turned or stretched, as no other datum is, keeps its own target. (The published
    code augments the reference and lets its labels differ; samples then show some of the augmentation.)

    Raises: ValueError for a reference below 1, or with `reveal`, which tells of each row what holds of no other; when
            called, for a batch that its reference does not begin with, or a condition other than class labels.
    Source: Xu et al. 2023, Eq. 4 and Alg. 1; unbiased at every size, unlike stated there. [xu2023stf]
    """

    reference: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference < 1 or self.reference != int(self.reference):
            raise ValueError(f"reference counts data to compare with, the sample itself included; got {self.reference}")
        if self.reveal is not None:
            raise ValueError(
                "reveal tells the network of each row what holds of no other, so a stable target would be the row's "
                "own; use Matching, or where no values are missing StableTarget(reveal=none)"
            )

    def goal(self, x: Tensor, t: Tensor, x0: Tensor, cond: Condition, batch: Batch) -> Tensor:
        """The mean of the reference's targets given `x_t = x`, shaped and typed like `x0`: exact, as `Empirical` is."""
        data, labels, group = _groups(cond, batch)
        if self.augment is None:
            return self._mean(data, labels)(x, t, group)
        told = cast(Tensor, cond.augment)
        y = self.process.target(x, t, x0)
        for axes, label in self.augment.mirrors():
            rows = (told == told.new_tensor(label)).all(1).nonzero()[:, 0]
            if len(rows):
                part = None if group is None else group[rows]
                y = y.index_copy(0, rows, self._mean(data.flip(axes), labels)(x[rows], t[rows], part))
        return y

    def _mean(self, data: Tensor, labels: Tensor | None) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        try:
            return Empirical(cast(Any, self.process), data, labels)
        except TypeError:  # neither isotropic nor Gaussian
            return partial(self._weighed, data, labels)

    def _weighed(self, data: Tensor, labels: Tensor | None, x: Tensor, t: Tensor, group: Tensor | None) -> Tensor:
        log, b = self.process.log_kernel(x, t, data).double(), len(x)
        if group is not None:
            log = log.where((group[:, None] < 0) | (group[:, None] == labels), -math.inf)
        size = max(1, SCRATCH // max(1, x.numel()))
        mean: Tensor | float = 0.0
        for part, weight in zip(torch.split(data, size), torch.split(log.softmax(1), size, 1), strict=True):
            m = len(part)
            rows = x.repeat_interleave(m, 0), t.repeat_interleave(m), part.repeat(b, *[1] * (part.ndim - 1))
            mean = mean + (weight[:, None] @ flat(self.process.target(*rows)).double().reshape(b, m, -1))[:, 0]
        return cast(Tensor, mean).to(data.dtype).reshape(b, *data.shape[1:])


def _groups(cond: Condition, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The reference; the group of each of its data, `(n,)`; the one that each row is compared with, `(b,)`, -1 for all.

    Data without a label are group 0, those of class c group c + 1.
    """
    data, given, among = batch.reference, condition(batch.cond), condition(batch.reference_cond)
    b = len(batch.x)
    if data is None or data.shape[1:] != batch.x.shape[1:] or not torch.equal(data[:b], batch.x):
        raise ValueError("a stable target needs Batch.reference, data whose first items are the batch itself")
    if any(part is not None for part in (*given[1:], *among[1:])):
        raise ValueError("a stable target knows class labels only; other conditions differ from one datum to the next")
    if given.label is None:
        return data, None, None
    if among.label is None or among.label.shape != data.shape[:1] or not torch.equal(among.label[:b], given.label):
        raise ValueError("a stable target by class needs Batch.reference_cond, the labels of all of the reference")
    kept = given.label if cond.label is None else cond.label
    whole = (kept < 0) & (among.label >= 0).all()
    return data, among.label + 1, torch.where(whole, -1, given.label + 1)
