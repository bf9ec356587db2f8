"""One side of a comparison: the features of a sample, or where it is too long to hold, what is left of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from ..rng import permutation
from .frechet import Moments
from .halves import half
from .kid import kernel_sums
from .mmd import Within

GROUPS = 8  # into which a stream is dealt, so that halves of it can be taken: 70 of them


@dataclass(frozen=True, eq=False)
class Side:
    """`rows` are all features `(n, F)`; where they are not held, `parts` are the moments of equal shares of them.

    `sums` is empty, or holds what `kernel_sums` found.
    """

    rows: Tensor | None = None
    parts: Sequence[Moments] = ()
    sums: list[Within] = field(default_factory=list, repr=False)

    @property
    def moments(self) -> Moments:
        """The moments of the whole sample. Raises: ValueError where there are none."""
        return Moments.of(self.rows) if self.rows is not None else reduce(Moments.merge, self.parts)

    def kernel_sums(self) -> Within:
        """What KID over all pairs needs of these rows alone, which must be held; found once."""
        if not self.sums:
            assert self.rows is not None
            self.sums.append(kernel_sums(self.rows))
        return self.sums[0]

    @property
    def width(self) -> int:
        """The number of features."""
        return self.rows.shape[1] if self.rows is not None else len(self.parts[0].mean)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.rows.device if self.rows is not None else self.parts[0].mean.device

    def to(self, device: torch.device) -> Side:
        """The same on a device."""
        if self.device == device:
            return self  # and not a copy, which would keep to itself what it finds
        rows = None if self.rows is None else self.rows.to(device)
        parts = [Moments(p.count, p.mean.to(device), p.root.to(device)) for p in self.parts]
        return Side(rows, parts, [Within(s.rows.to(device), s.pure) for s in self.sums])

    def half(self, rng: torch.Generator) -> Side:
        """A random half: of the rows, or of the parts. One part, a reference of which no more is known, stays whole."""
        if self.rows is not None:
            return Side(self.rows[half(len(self.rows), rng).to(self.rows.device)])
        if len(self.parts) < 2:
            return self
        return Side(None, [self.parts[i] for i in permutation(len(self.parts), rng)[: len(self.parts) // 2].tolist()])


class Tally:
    """The moments of a stream, dealt row by row into eight groups."""

    def __init__(self) -> None:
        """Empty."""
        self.count = 0
        self._waiting: list[Tensor] = []
        self._groups: list[Moments | None] = [None] * GROUPS

    def add(self, features: Tensor) -> None:
        """Take in rows `(n, F)`, to be merged once they fill the groups' roots: merging costs as much as a full one."""
        self._waiting.append(features)
        if sum(map(len, self._waiting)) >= GROUPS * features.shape[1]:
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat(self._waiting)
        self._waiting = []
        for i in range(GROUPS):
            own = rows[(i - self.count) % GROUPS :: GROUPS]
            if len(own):
                found, before = Moments.of(own), self._groups[i]
                self._groups[i] = found if before is None else before.merge(found)
        self.count += len(rows)

    def side(self) -> Side:
        """What was taken in. Raises: ValueError for fewer than two rows in each group."""
        self._settle()
        parts = [g for g in self._groups if g is not None and g.count > 1]
        if len(parts) < GROUPS:
            raise ValueError(f"a stream of samples needs at least {2 * GROUPS} of them, got {self.count}")
        return Side(None, parts)
