"""A transformer on the patches of a grid, or on the points of a set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from .attention import SelfAttention
from .embed import Condition, Conditioning, check_dropout, check_sizes, zeroed
from .mlp import modulated


class Transformer(nn.Module):
    """A network on tokens: patches of a grid, each told its place, or the points of a set, which have none.

    As a set (`patch = 0`), a permutation of the points permutes the result and changes nothing else, and any number
    of points will do. As a grid, the patches do not overlap and the grid is the one the network was built for.

    Shapes: `x` is `(B, C, *grid)` with 1, 2 or 3 grid axes, or `(B, P, F)`: P points of F features; `noise` is `(B,)`;
            `cond` is class labels `(B,)`, -1 for none, or a `Condition`. The result is like `x`, and 0 for a fresh
            network.
    Raises: ValueError for sizes that make no network, a patch that does not divide the grid, an `x` of another shape.
    Source: Peebles and Xie 2023, Sec. 3.2, adaLN-Zero blocks. [peebles2023dit]
    """

    def __init__(
        self,
        shape: Sequence[int],
        patch: int | Sequence[int] = 2,
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        classes: int = 0,
        augments: int = 0,
        dropout: float = 0.0,
    ):
        """`depth` blocks of `width` and `heads` on data of `shape`: `(C, *grid)`, or `(P, F)` for a set.

        `patch` is the side of a patch, or one side per grid axis; 0 means a set. `classes` is the number of labels
        (0: unconditional) and `augments` that of augmentation channels.
        """
        super().__init__()
        self.shape = tuple(shape)
        sizes = {f"shape[{i}]": n for i, n in enumerate(self.shape)}
        check_sizes({"width": width, "depth": depth, "heads": heads, **sizes})
        check_dropout(dropout)
        self.patch: tuple[int, ...] = ()
        if patch == 0:
            if len(self.shape) != 2:
                raise ValueError(f"a set has shape (P, F), got {self.shape}; give a patch size >= 1 for a grid")
            features, place = self.shape[1], torch.zeros(1, width)
        else:
            if not 2 <= len(self.shape) <= 4:
                raise ValueError(f"shape must be (C, *grid) with 1, 2 or 3 grid axes, got {self.shape}")
            channels, *grid = self.shape
            self.patch = (patch,) * len(grid) if isinstance(patch, int) else tuple(patch)
            if len(self.patch) != len(grid) or any(p < 1 or n % p for n, p in zip(grid, self.patch, strict=True)):
                raise ValueError(f"patch must divide the grid {tuple(grid)} along every axis, got {patch}")
            features = channels * math.prod(self.patch)
            place = _places(self._cells(), width)
        self.register_buffer("place", place, persistent=False)
        self.condition = Conditioning(width, classes, augments)
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.out = zeroed(nn.Linear(width, features))

    place: Tensor

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | Condition | None = None) -> Tensor:
        """See the class."""
        if x.ndim != len(self.shape) + 1 or (x.shape[1:] != self.shape if self.patch else x.shape[2] != self.shape[1]):
            want = ", ".join(map(str, self.shape if self.patch else ("P", self.shape[1])))
            raise ValueError(f"this network takes x of shape (B, {want}), got {tuple(x.shape)}")
        c = silu(self.condition(noise, cond))[:, None]
        h = self.stem(self._split(x)) + self.place
        for block in self.blocks:
            h = block(h, c)
        return self._join(self.out(modulated(h, self.modulate(c))).to(x.dtype))

    def _cells(self) -> list[int]:
        """How many patches lie along each axis of the grid."""
        return [n // p for n, p in zip(self.shape[1:], self.patch, strict=True)]

    def _split(self, x: Tensor) -> Tensor:
        """`(B, C, n1, n2, ...)` to tokens `(B, T, C p1 p2 ...)`; a set is its tokens already."""
        if not self.patch:
            return x
        d = len(self.patch)
        sides = [n for p, cells in zip(self.patch, self._cells(), strict=True) for n in (cells, p)]
        x = x.reshape(*x.shape[:2], *sides)
        cells, inside = range(2, 2 + 2 * d, 2), range(3, 3 + 2 * d, 2)
        return x.permute(0, *cells, 1, *inside).flatten(1 + d).flatten(1, d)

    def _join(self, h: Tensor) -> Tensor:
        """The inverse of `_split`."""
        if not self.patch:
            return h
        d = len(self.patch)
        h = h.reshape(len(h), *self._cells(), self.shape[0], *self.patch)
        pairs = [axis for i in range(d) for axis in (1 + i, 2 + d + i)]
        return h.permute(0, 1 + d, *pairs).reshape(len(h), *self.shape)


def _places(cells: Sequence[int], width: int) -> Tensor:
    """A fixed vector for every cell of a grid, `(T, width)`: sines and cosines, a share of the width for each axis."""
    if width < 2 * len(cells):
        raise ValueError(f"width must be at least {2 * len(cells)} to tell {len(cells)} axes apart, got {width}")
    tables = []
    for axis, n in enumerate(cells):
        share = len(range(axis, width, len(cells)))
        wavelength = torch.logspace(math.log10(4), math.log10(4 * max(n, 2)), -(-share // 2), dtype=torch.float64)
        angle = torch.arange(n)[:, None] * (2 * math.pi / wavelength)
        table = torch.cat((angle.sin(), angle.cos()), 1)[:, :share]
        tables.append(table.reshape(*[n if a == axis else 1 for a in range(len(cells))], share).expand(*cells, share))
    return torch.cat(tables, -1).flatten(0, -2).to(torch.get_default_dtype())


class _Block(nn.Module):
    """Attention, then a token-wise network; the conditioning vector shifts, scales and gates both, starting shut."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.modulate = zeroed(nn.Linear(width, 6 * width))
        self.attend = SelfAttention(width, heads)
        self.into = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        sizes = [2 * x.shape[-1], x.shape[-1]] * 2
        first, gate, second, last = self.modulate(c).split(sizes, -1)
        x = x + gate * self.dropout(self.attend(modulated(x, first)))
        h = gelu(self.into(modulated(x, second)), approximate="tanh")
        correction: Tensor = last * self.dropout(self.out(h))
        return x + correction
