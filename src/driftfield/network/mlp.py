"""A residual network on vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from .embed import Condition, Conditioning, check_dropout, check_sizes, condition, zeroed


class MLP(nn.Module):
    """A network on vectors: residual blocks whose normalisation is scaled and shifted by the conditioning vector.

    Shapes: `x` is `(B, *shape)`, flattened inside; `noise` is `(B,)`; `cond` is class labels `(B,)`, -1 for none, or
            a `Condition`. The result is like `x`, and 0 for a fresh network.
    Raises: ValueError for sizes that make no network, and for an `x` of another shape.
    Source: adaptive normalisation as in Peebles and Xie 2023, Sec. 3.2. [peebles2023dit]
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 256,
        depth: int = 4,
        classes: int = 0,
        augments: int = 0,
        dropout: float = 0.0,
        waves: int = 0,
        known: bool = False,
    ):
        """`depth` residual blocks of `width` on data of `shape`, with `classes` labels (0: unconditional).

        Each coordinate also enters through `waves` sines and cosines, of wavelengths 8, 4, 2, ...: 4 of them help where
        two dimensions have sharp edges (a checkerboard); in many dimensions they harm. With `known`, clean values that
        are known and their mask (see `Condition`) enter beside `x`, of which only what is to be found is then seen.
        """
        super().__init__()
        self.shape = tuple(shape)
        check_sizes({"width": width, "depth": depth, **{f"shape[{i}]": n for i, n in enumerate(self.shape)}})
        check_dropout(dropout)
        if waves < 0:
            raise ValueError(f"waves must be at least 0, got {waves}")
        features = math.prod(self.shape)
        self.register_buffer("frequency", math.pi / 4 * 2 ** torch.arange(waves), persistent=False)
        self.condition = Conditioning(width, classes, augments, known=known)
        self.known = known
        self.stem = nn.Linear(features * (1 + 2 * waves + 2 * known), width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.modulate = nn.Linear(width, 2 * width)
        self.out = zeroed(nn.Linear(width, features))

    frequency: Tensor

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | Condition | None = None) -> Tensor:
        """See the class."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"this network takes x of shape (B, {str(self.shape)[1:]}, got {tuple(x.shape)}")
        c = silu(self.condition(noise, cond))
        h, more = x.flatten(1), []
        if self.known:
            told = condition(cond)
            mask = torch.zeros_like(h) if told.mask is None else told.mask.flatten(1).to(h)
            known = torch.zeros_like(h) if told.known is None else told.known.flatten(1).to(h)
            h, more = h * (mask == 0), [known * (mask > 0), mask]
        if len(self.frequency):
            angle = (h[..., None] * self.frequency).flatten(1)
            more = [angle.sin(), angle.cos(), *more]
        h = self.stem(torch.cat((h, *more), 1))
        for block in self.blocks:
            h = block(h, c)
        out: Tensor = self.out(silu(modulated(h, self.modulate(c))))
        return out.to(x.dtype).reshape(x.shape)


def modulated(x: Tensor, shift_scale: Tensor) -> Tensor:
    """Normalise the last axis of `x`, then shift and scale it by the halves of `shift_scale`, which broadcast to it."""
    shift, scale = shift_scale.chunk(2, -1)
    return layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class _Block(nn.Module):
    """`x` plus a correction that starts at 0."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.modulate = nn.Linear(width, 2 * width)
        self.into = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = silu(self.into(silu(modulated(x, self.modulate(c)))))
        correction: Tensor = self.out(self.dropout(h))
        return x + correction
