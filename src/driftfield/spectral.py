"""Linear maps that are diagonal in cosine frequency: on one grid, or as a filter on any."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from .linear import Linear


def _cosines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal cosine transform (type II) of length `n`, as an `(n, n)` matrix; rows are frequencies."""
    k = torch.arange(n, dtype=torch.float64)
    table = torch.cos(math.pi / n * (k[:, None] * (k + 0.5))) * math.sqrt(2 / n)
    table[0] /= math.sqrt(2)
    return table.to(device, dtype)


_kept_cosines = lru_cache(maxsize=64)(_cosines)  # compiled code makes its own


def cosine(x: Tensor, axes: int, inverse: bool = False) -> Tensor:
    """The orthonormal cosine transform (type II) of the last `axes` axes of `x`, or its inverse; any sizes."""
    make = _cosines if torch.compiler.is_compiling() else _kept_cosines
    for axis in range(x.ndim - axes, x.ndim):
        table = make(x.shape[axis], x.dtype, x.device)
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

    @property
    def factor(self) -> Self:
        return self._like(self.factors.sqrt(), self.rowwise)

    def power(self, p: float) -> Self:
        """Every factor, which must be positive, to the power `p`."""
        return self._like(self.factors**p, self.rowwise)

    def log_det(self, x: Tensor) -> Tensor:
        axes = self.factors.ndim - self.rowwise
        each = self.factors.abs().log().flatten(int(self.rowwise)).sum(-1)
        return math.prod(x.shape[1 : x.ndim - axes]) * each


def frequencies(grid: tuple[int, ...], device: torch.device) -> Tensor:
    """The eigenvalues of minus the Laplacian of each cosine mode on `grid`, in pixels, `(*grid)` float64.

    Mode `k` along an axis of `n` points adds `(pi k / n)^2`. The tensor is shared between calls: do not write to it.
    """
    return (_frequencies if torch.compiler.is_compiling() else _kept_frequencies)(grid, device)


def _frequencies(grid: tuple[int, ...], device: torch.device) -> Tensor:
    axes = [(math.pi / n * torch.arange(n, dtype=torch.float64, device=device)).square() for n in grid]
    total = torch.zeros(grid, dtype=torch.float64, device=device)
    for i, values in enumerate(axes):
        total = total + values.reshape(-1, *[1] * (len(grid) - 1 - i))
    return total


_kept_frequencies = lru_cache(maxsize=16)(_frequencies)


@dataclass(frozen=True, eq=False)
class Filter(Linear):
    """A diagonal map in cosine frequency on states `(B, C, *grid)` of any grid: the one of the state it meets.

    Its factors are the sum of `terms`, functions of the tensor that `frequencies` gives, `(*grid)` to `(*grid)`, or
    with `rowwise` to `(B, *grid)`. They are worked out at the first state, and kept for the next one like it.
    """

    terms: tuple[Callable[[Tensor], Tensor], ...]
    rowwise: bool = False
    _kept: dict[str, tuple[tuple[object, ...], Spectral]] = field(default_factory=dict, init=False, repr=False)

    def factors(self, lam: Tensor) -> Tensor:
        """The factors at the frequencies `lam` `(*grid)`: like `lam`, or `(B, *grid)`."""
        total = self.terms[0](lam)
        for term in self.terms[1:]:
            total = total + term(lam)
        return total

    def on(self, x: Tensor) -> Spectral:
        """The map on states like `x`. Raises: ValueError for a state that is not `(B, C, *grid)`."""
        like = (x.shape[2:], x.dtype, x.device)
        kept = self._kept.get("last")
        if kept is None or kept[0] != like:
            lam = frequencies(grid_of(x), x.device)
            kept = like, Spectral(self.factors(lam).to(x.dtype), self.rowwise)
            self._kept["last"] = kept
        return kept[1]

    def __call__(self, x: Tensor) -> Tensor:
        return self.on(x)(x)

    def __matmul__(self, other: Self) -> Self:
        return type(self)((lambda lam: self.factors(lam) * other.factors(lam),), self.rowwise or other.rowwise)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.terms + other.terms, self.rowwise or other.rowwise)

    def scale(self, a: float) -> Self:
        return type(self)((lambda lam: a * self.factors(lam),), self.rowwise)

    @property
    def inv(self) -> Self:
        return type(self)((lambda lam: 1 / self.factors(lam),), self.rowwise)

    @property
    def T(self) -> Self:
        return self

    @property
    def factor(self) -> Self:
        return type(self)((lambda lam: self.factors(lam).sqrt(),), self.rowwise)

    def power(self, p: float) -> Self:
        """Every factor, which must be positive, to the power `p`."""
        return type(self)((lambda lam: self.factors(lam) ** p,), self.rowwise)

    def log_det(self, x: Tensor) -> Tensor:
        factors = self.factors(frequencies(grid_of(x), x.device))
        return Spectral(factors, self.rowwise).log_det(x)


def grid_of(x: Tensor) -> tuple[int, ...]:
    """The grid of a state `(B, C, *grid)`. Raises: ValueError for one without grid axes."""
    if x.ndim < 3:
        raise ValueError(f"a filter acts on images or other grids, (B, C, *grid), got shape {tuple(x.shape)}")
    return tuple(x.shape[2:])
