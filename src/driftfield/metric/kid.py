"""The kernel distance between two samples (KID), over all pairs of rows or, for large samples, by blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rng import permutation
from .check import rows, same_width
from .mmd import Kernel, Within, discrepancy, unbiased, within

_ALL_PAIRS = 10**8  # up to which KID is over all pairs of rows unless asked otherwise
_BLOCK = 1000
CUBIC = Kernel(lambda x: x / x.shape[1], lambda y: y, lambda p: p.add_(1).pow_(3))


def kid(a: Tensor, b: Tensor, own: Within | None = None) -> tuple[float, float]:
    """The squared maximum mean discrepancy of two samples under the kernel `(x.y / F + 1)^3`, and its standard error.

    `own` is `kernel_sums(b)`, where it is known: nearly all of the work where `b` is much the longer.
    Shapes: `a` is `(m, F)`, `b` is `(n, F)`, `m, n >= 4`, of any floating type; all is done in float64, in tiles.
    Exact:  unbiased, over every pair of rows: nothing drawn. Its work grows as `(m + n)^2 F`; see `Blocks`.
    Error:  as of `discrepancy`: the standard deviation over fresh samples of these sizes.
    Raises: ValueError for fewer than 4 rows, other shapes, different widths or values that are not finite.
    Source: Binkowski et al. 2018. [binkowski2018kid]
    """
    a, b = rows(a, least=4), rows(b, least=4)
    same_width(a, b)
    return discrepancy(a, b, CUBIC, own)


def kernel_sums(b: Tensor) -> Within:
    """What `kid` needs of one sample alone, `(n, F)`. Raises: as `kid`."""
    return within(rows(b, least=4), CUBIC)


class Blocks:
    """KID of a stream of samples, a block of `size` rows at a time, each against as many rows of the reference.

    The mean over blocks is as unbiased as KID over all pairs, its work grows as `n size F`, and only one block is held.
    For laws that differ it is as precise to first order; for equal laws its error falls as `(n size)^(-1/2)`, not
    as `1 / n`. Rows that do not fill a last block are left out. Samples should come in no special order.

    Error:  blocks that met the same rows of the reference are averaged first, so that what remains is independent, and
            its standard deviation over the root of its number is the error over fresh samples and references.
    Source: Binkowski et al. 2018; blocks after Zaremba et al. 2013. [binkowski2018kid] [zaremba2013btest]
    """

    def __init__(self, reference: Tensor, size: int, rng: torch.Generator):
        """`reference` is `(m, F)`, brought in random order by `rng` and cut into `m // size` blocks.

        Raises: ValueError for a size below 2 or a reference that does not fill two blocks.
        """
        reference = rows(reference, "the reference")
        if size < 2 or len(reference) < 2 * size:
            raise ValueError(
                f"KID by blocks of {size} needs blocks of at least 2 rows and two of them in the reference, "
                f"which has {len(reference)}; give smaller blocks or a larger reference"
            )
        self._size, self._count = size, 0
        kept = permutation(len(reference), rng)[: len(reference) // size * size].to(reference.device)
        self._blocks = torch.split(reference[kept], size)
        self._sums = [0.0] * len(self._blocks)
        self._rest = reference[:0]

    def add(self, features: Tensor) -> None:
        """Take in rows `(n, F)`. Raises: ValueError for another width or values that are not finite."""
        features = rows(features, "samples", least=0).to(self._rest.device)
        same_width(features, self._rest)
        waiting = torch.cat((self._rest, features))
        whole = len(waiting) // self._size * self._size
        self._rest = waiting[whole:].clone()
        for start in range(0, whole, self._size):
            block = waiting[start : start + self._size]
            own = self._count % len(self._blocks)
            self._sums[own] += unbiased(block, self._blocks[own], CUBIC)
            self._count += 1

    def result(self) -> tuple[float, float]:
        """The value and its standard error. Raises: ValueError where the samples did not fill two blocks."""
        if self._count < 2:
            raise ValueError(
                f"KID by blocks of {self._size} needs at least {2 * self._size} samples to tell its error; "
                "give more samples or smaller blocks"
            )
        groups = min(self._count, len(self._blocks))
        often = [len(range(i, self._count, len(self._blocks))) for i in range(groups)]
        values = torch.tensor([s / k for s, k in zip(self._sums, often, strict=False)], dtype=torch.float64)
        return float(values.mean()), float(values.std()) / math.sqrt(groups)


def kid_by_blocks(a: Tensor, b: Tensor, size: int, rng: torch.Generator) -> tuple[float, float]:
    """`Blocks` of a sample at hand, `(n, F)`, in random order. Raises: as `Blocks`."""
    blocks = Blocks(b, size, rng)
    blocks.add(a[permutation(len(a), rng).to(a.device)])
    return blocks.result()


def block_size(n: int | None, m: int, asked: int | None) -> int | None:
    """Rows in a block: what was `asked`, else None, all pairs, of up to 10^8 pairs of `n` and `m` rows, else 1,000.

    `n` is None for a stream, whose pairs are not at hand. Of fewer than 2,000 rows it is half.
    """
    if asked is not None or (n is not None and n * m <= _ALL_PAIRS):
        return asked
    return min(_BLOCK, m // 2, m if n is None else n // 2)
