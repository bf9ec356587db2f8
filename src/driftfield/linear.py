"""Structured linear maps on states: what `A_t`, `R_t` and `Psi(t, s)` are made of.

Three structures serve every process: a number (VP, EDM, Poisson flow), a 2 x 2 mix of two halves (critically damped
Langevin) and a diagonal in cosine frequency (blurring). They share one algebra, so that a solver written once with
`@`, `+`, `inv` and `scale` runs on all of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
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


@dataclass(frozen=True, eq=False)
class Block(Linear):
    """A 2 x 2 mix of the two halves of a phase-space state `(B, 2, ...)`; `m` is `(2, 2)` or `(B, 2, 2)`."""

    m: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != 2:
            raise ValueError(f"a phase-space state has shape (B, 2, ...), got {tuple(x.shape)}")
        return (self.m.to(x) @ x.flatten(2) if x.ndim > 2 else (self.m.to(x) @ x[..., None])[..., 0]).reshape(x.shape)

    def __matmul__(self, other: Self) -> Self:
        return type(self)(self.m @ other.m)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.m + other.m)

    def scale(self, a: float) -> Self:
        return type(self)(self.m * a)

    @property
    def inv(self) -> Self:
        return type(self)(torch.linalg.inv(self.m))

    @property
    def T(self) -> Self:
        return type(self)(self.m.mT)


@lru_cache(maxsize=64)
def _cosines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal cosine transform (type II) of length `n`, as an `(n, n)` matrix; rows are frequencies."""
    k = torch.arange(n, dtype=torch.float64)
    table = torch.cos(math.pi / n * (k[:, None] * (k + 0.5))) * math.sqrt(2 / n)
    table[0] /= math.sqrt(2)
    return table.to(device, dtype)


def cosine(x: Tensor, axes: int, inverse: bool = False) -> Tensor:
    """The orthonormal cosine transform (type II) of the last `axes` axes of `x`, or its inverse; any sizes."""
    for axis in range(x.ndim - axes, x.ndim):
        table = _cosines(x.shape[axis], x.dtype, x.device)
        x = torch.tensordot(x, table, ([axis], [0 if inverse else 1])).movedim(-1, axis)
    return x


@dataclass(frozen=True, eq=False)
class Spectral(Linear):
    """A diagonal map in cosine frequency over the last axes of a state.

    `factors` is `(*grid)`, or `(B, *grid)` with `rowwise=True`; `grid` are the sizes of the last axes of the state,
    and every axis between (channels) shares the factors.
    """

    factors: Tensor
    rowwise: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        axes = self.factors.ndim - self.rowwise
        if x.shape[x.ndim - axes :] != self.factors.shape[self.factors.ndim - axes :] or x.ndim <= axes:
            raise ValueError(f"factors {tuple(self.factors.shape)} do not fit a state of shape {tuple(x.shape)}")
        factors = self.factors.to(x)
        if self.rowwise:
            factors = factors.reshape(len(factors), *[1] * (x.ndim - axes - 1), *factors.shape[1:])
        return cosine(factors * cosine(x, axes), axes, inverse=True)

    def _like(self, factors: Tensor, rowwise: bool) -> Self:
        return type(self)(factors, rowwise)

    def __matmul__(self, other: Self) -> Self:
        return self._like(self.factors * other.factors, self.rowwise or other.rowwise)

    def __add__(self, other: Self) -> Self:
        return self._like(self.factors + other.factors, self.rowwise or other.rowwise)

    def scale(self, a: float) -> Self:
        return self._like(self.factors * a, self.rowwise)

    @property
    def inv(self) -> Self:
        return self._like(1 / self.factors, self.rowwise)

    @property
    def T(self) -> Self:
        return self
