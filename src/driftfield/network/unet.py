"""A convolutional U-Net on grids of one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d, interpolate, silu

from .attention import SelfAttention
from .embed import Condition, Conditioning, check_dropout, check_sizes, divisor, zeroed

_CONV: tuple[type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_POOL = (avg_pool1d, avg_pool2d, avg_pool3d)
_LAYOUT = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)
_ROOT_HALF = 0.5**0.5


class UNet(nn.Module):
    """A network on grids: residual blocks at falling, then rising resolution, each level read again on the way up.

    A level halves the grid by averaging (odd sizes round up) and doubles it by repetition, back to the very size it
    came from. Convolutions know no positions, so the network also runs on grids of other sizes than it was built for.
    Inside, grids of two and three axes are channels-last whatever the layout of `x`, with which inference on CPU is
    about a tenth faster; the result has the layout of `x`.

    Shapes: `x` is `(B, C, *grid)` with 1, 2 or 3 grid axes; `noise` is `(B,)`; `cond` is class labels `(B,)`, -1 for
            none, or a `Condition`. The result is like `x`, and 0 for a fresh network.
    Raises: ValueError for sizes that make no network, and for an `x` with another rank or number of channels, or
            with fewer than `2^(levels - 1)` points along an axis.
    Source: Ho et al. 2020, App. B; Song et al. 2021, App. H; Karras et al. 2022, App. F.2 (DDPM++).
            [ho2020ddpm] [song2021score] [karras2022edm]
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] | None = None,
        dropout: float = 0.0,
        classes: int = 0,
        augments: int = 0,
        head: int = 32,
    ):
        """Levels of `width * multiplier` channels on data of `shape`, `(C, *grid)`, with `blocks` each way per level.

        `attention` names the levels with self-attention by their largest axis: `(16, 8)`; None means every level of
        at most 8. `head` is the width of one attention head; `classes` the number of labels (0: unconditional) and
        `augments` that of augmentation channels.
        """
        super().__init__()
        if not 2 <= len(shape) <= 4:
            raise ValueError(f"shape must be (C, *grid) with 1, 2 or 3 grid axes, got {tuple(shape)}")
        channels, *grid = shape
        check_sizes({f"shape[{i}]": n for i, n in enumerate(shape)} | {"width": width, "blocks": blocks, "head": head})
        check_sizes({"levels": len(multipliers)} | {f"multipliers[{i}]": m for i, m in enumerate(multipliers)})
        check_dropout(dropout)
        self.channels, self.axes, self.levels = channels, len(grid), len(multipliers)
        self._check_grid(grid)
        sizes = [-(-max(grid) // 2**i) for i in range(self.levels)]
        wanted = [n for n in sizes if n <= 8] if attention is None else list(attention)
        if unknown := set(wanted) - set(sizes):
            raise ValueError(f"attention at size {min(unknown)}, but the levels have sizes {sizes}; name some of those")

        def block(inp: int, out: int, size: int) -> _Block:
            heads = divisor(out, out // head) if size in wanted else 0
            return _Block(self.axes, inp, out, 4 * width, dropout, heads)

        conv, w = _CONV[self.axes - 1], [width * m for m in multipliers]
        self.condition = Conditioning(4 * width, classes, augments)
        self.stem = conv(channels, w[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (out, size) in enumerate(zip(w, sizes, strict=True)):
            inp, below = w[max(i - 1, 0)], w[min(i + 1, self.levels - 1)]
            joined = out + below if i + 1 < self.levels else out  # the lowest level has none below to join
            self.down.append(_Level(block(out if k else inp, out, size) for k in range(blocks)))
            self.up.append(_Level(block(out if k else joined, out, size) for k in range(blocks)))
        self.norm = _norm(w[0])
        self.out = zeroed(conv(w[0], channels, 3, padding=1))

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | Condition | None = None) -> Tensor:
        """See the class."""
        if x.ndim != self.axes + 2 or x.shape[1] != self.channels:
            grid = ", ".join("HWD"[: self.axes])
            raise ValueError(f"this network takes x of shape (B, {self.channels}, {grid}), got {tuple(x.shape)}")
        self._check_grid(x.shape[2:])
        layout, pool = _LAYOUT[self.axes - 1], _POOL[self.axes - 1]
        kept = layout if x.is_contiguous(memory_format=layout) and not x.is_contiguous() else torch.contiguous_format
        if any(unpack_dual(a).tangent is not None for a in (x, noise)):  # type: ignore[no-untyped-call]
            layout = torch.contiguous_format  # torch has no forward-mode group normalisation in the other layouts
            x = x.contiguous()
        c = silu(self.condition(noise, cond))
        h = self.stem(x)
        skips: list[Tensor] = []
        for level in self.down:
            if skips:
                h = pool(h, 2, ceil_mode=True, count_include_pad=False)
            h = level(h.contiguous(memory_format=layout), c)
            skips.append(h)
        for level in reversed(self.up):
            skip = skips.pop()
            if h is not skip:
                h = interpolate(h, skip.shape[2:], mode="nearest-exact")
                h = torch.cat((skip, h), 1).contiguous(memory_format=layout)
            h = level(h, c)
        out: Tensor = self.out(silu(self.norm(h)))
        return out.to(x.dtype, memory_format=kept)

    def _check_grid(self, grid: Sequence[int]) -> None:
        least = 2 ** (self.levels - 1)
        if min(grid) < least:
            raise ValueError(
                f"{self.levels} levels need at least {least} points along every axis, got a grid of {tuple(grid)}; "
                "give fewer multipliers, or pad the data"
            )


def _norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """At least four channels to a group and at most 32 groups, as in Karras et al. 2022."""
    return nn.GroupNorm(divisor(channels, min(32, channels // 4)), channels, affine=affine)


class _Level(nn.ModuleList):
    """The blocks of one resolution, in turn."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        for block in self:
            x = block(x, c)
        return x


class _Block(nn.Module):
    """Two convolutions, then attention where `heads > 0`, each a correction of its input that starts at 0.

    A correction and its input are added and divided by `sqrt(2)`, which keeps their variance where it was.
    """

    def __init__(self, axes: int, inp: int, out: int, cond: int, dropout: float, heads: int):
        super().__init__()
        conv = _CONV[axes - 1]
        self.norm0 = _norm(inp)
        self.conv0 = conv(inp, out, 3, padding=1)
        self.modulate = nn.Linear(cond, 2 * out)
        self.norm1 = _norm(out, affine=False)  # the modulation scales and shifts
        self.dropout = nn.Dropout(dropout)
        self.conv1 = zeroed(conv(out, out, 3, padding=1))
        self.skip = conv(inp, out, 1) if inp != out else nn.Identity()
        self.norm2 = _norm(out) if heads else None
        self.attend = SelfAttention(out, heads) if heads else None
        if self.attend is not None:
            zeroed(self.attend.write)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv0(silu(self.norm0(x)))
        scale, shift = self.modulate(c).unflatten(1, (-1, *[1] * (x.ndim - 2))).chunk(2, 1)
        h = silu(self.norm1(h) * (1 + scale) + shift)
        x = (self.conv1(self.dropout(h)) + self.skip(x)) * _ROOT_HALF  # in this order: a sum takes its first layout
        if self.attend is None or self.norm2 is None:
            return x
        seen: Tensor = self.attend(self.norm2(x).flatten(2).transpose(1, 2))
        return (x + seen.transpose(1, 2).reshape(x.shape)) * _ROOT_HALF
