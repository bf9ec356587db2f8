"""Structured linear maps on states: what `A_t`, `R_t` and `Psi(t, s)` are made of.

Three structures serve every process: a number (VP, EDM, Poisson flow), a 2 x 2 mix of two halves (critically damped
Langevin) and a diagonal in cosine frequency (blurring; in `spectral`). They share one algebra, so that a solver written
once with `@`, `+`, `inv` and `scale` runs on all of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


def expand(a: Tensor, like: Tensor) -> Tensor:
    """Shape a `()` or `(B,)` tensor so that it broadcasts over the rows of `like`, `(B, ...)`, and does not promote it.

    A real number per row takes the dtype of `like`; a `()` tensor stays as it is, since torch never promotes by one.
    """
    if a.ndim == 0:
        return a
    if a.ndim != 1 or len(a) not in (1, len(like)):
        raise ValueError(f"expected one number, or one per row of a batch of {len(like)}; got shape {tuple(a.shape)}")
    rows = a.reshape(-1, *[1] * (like.ndim - 1))
    return rows.to(like.dtype) if a.is_floating_point() else rows


def flat(x: Tensor) -> Tensor:
    """The rows of `x` `(B, *data)` as vectors, `(B, N)`: N is 1 for `(B,)`, and B may be 0."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


class Linear(ABC):
    """A linear map on states `(B, ...)`: the same for every row, or one per row.

    `(P @ Q)(x) == P(Q(x))`, `(P + Q)(x) == P(x) + Q(x)`, `P.inv(P(x)) == x`, `<P(x), y> == <x, P.T(y)>`.
    """

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Apply the map. The result has the shape and dtype of `x`."""

    @abstractmethod
    def __matmul__(self, other: Self) -> Self:
        """The map that applies `other` first."""

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """The sum of two maps."""

    @abstractmethod
    def scale(self, a: float) -> Self:
        """The map times a number."""

    @property
    @abstractmethod
    def inv(self) -> Self:
        """The inverse map."""

    @property
    @abstractmethod
    def T(self) -> Self:
        """The transpose."""

    @property
    @abstractmethod
    def factor(self) -> Self:
        """A lower-triangular `L` with `L L^T` this map, which must be symmetric and positive semi-definite."""

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """`log |det|` of the map on states shaped like `x`: `()`, or `(B,)` for one map per row."""

    def __sub__(self, other: Self) -> Self:
        return self + other.scale(-1.0)


@dataclass(frozen=True, eq=False)
class Scalar(Linear):
    """Multiplication by a number, `a` of shape `()` or `(B,)`."""

    a: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return expand(self.a, x) * x

    def __matmul__(self, other: Self) -> Self:
        return type(self)(self.a * other.a)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.a + other.a)

    def scale(self, a: float) -> Self:
        return type(self)(self.a * a)

    @property
    def inv(self) -> Self:
        return type(self)(1 / self.a)

    @property
    def T(self) -> Self:
        return self

    @property
    def factor(self) -> Self:
        return type(self)(self.a.sqrt())

    def log_det(self, x: Tensor) -> Tensor:
        return math.prod(x.shape[1:]) * self.a.abs().log()


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and velocities, `(B, ...)` each. Raises: ValueError for a state that is not `(B, 2, ...)`."""
    if x.ndim < 2 or x.shape[1] != 2:
        raise ValueError(f"a phase-space state has shape (B, 2, ...), got {tuple(x.shape)}")
    return x[:, 0], x[:, 1]


def matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """`[[a, b], [c, d]]`, entries of one shape: `(*shape, 2, 2)`."""
    return torch.stack((torch.stack((a, b), -1), torch.stack((c, d), -1)), -2)


@dataclass(frozen=True, eq=False)
class Block(Linear):
    """A 2 x 2 mix of the two halves of a phase-space state `(B, 2, ...)`; `m` is `(2, 2)` or `(B, 2, 2)`."""

    m: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        a, b = halves(x)  # entry by entry: numbers on the CPU then act on any device without a copy
        mixed = [expand(self.m[..., i, 0], a) * a + expand(self.m[..., i, 1], b) * b for i in range(2)]
        return torch.stack(mixed, 1)

    def __matmul__(self, other: Self) -> Self:
        return type(self)(self.m @ other.m)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.m + other.m)

    def scale(self, a: float) -> Self:
        return type(self)(self.m * a)

    @property
    def inv(self) -> Self:
        (a, b), (c, d) = (row.unbind(-1) for row in self.m.unbind(-2))
        return type(self)(matrix(d, -b, -c, a) / self._det[..., None, None])

    @property
    def T(self) -> Self:
        return type(self)(self.m.mT)

    @property
    def _det(self) -> Tensor:
        return self.m[..., 0, 0] * self.m[..., 1, 1] - self.m[..., 0, 1] * self.m[..., 1, 0]

    @property
    def factor(self) -> Self:
        a, b, d = self.m[..., 0, 0].sqrt(), self.m[..., 1, 0], self.m[..., 1, 1]
        below = torch.where(a > 0, b / a, 0.0)
        return type(self)(matrix(a, torch.zeros_like(a), below, (d - below.square()).sqrt()))

    def log_det(self, x: Tensor) -> Tensor:
        return math.prod(x.shape[2:]) * self._det.abs().log()
