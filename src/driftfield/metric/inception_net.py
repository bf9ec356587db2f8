"""Inception-v3 as the published FID weights have it, under the parameter names of torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size = int | tuple[int, int]
Chain = Sequence[str | tuple[str, str]]  # names one after the other; a pair is two side by side


class Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU; keeps the picture's size unless `stride` is 2 or `padded` is off."""

    def __init__(self, before: int, after: int, kernel: Size, stride: int = 1, padded: bool = True):
        """From `before` to `after` channels."""
        super().__init__()
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (high // 2, wide // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, before, H, W)` to `(B, after, H', W')`."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Chains of units side by side, and one pooled branch; their channels put together.

    `pool` is "mean" or "max", with a unit `branch_pool` after it, or "half", which halves the size by maxima. As in
    the published weights' network, a mean at the border is over pixels of the picture alone.
    """

    def __init__(self, units: dict[str, Unit], chains: Sequence[Chain], pool: str):
        """`units` by name, of which `chains` are made."""
        super().__init__()
        for name, unit in units.items():
            self.add_module(name, unit)
        self.chains, self.pool = chains, pool

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C', H', W')`."""
        out = []
        for chain in self.chains:
            h = x
            for link in chain:
                names = (link,) if isinstance(link, str) else link
                h = torch.cat([self.get_submodule(name)(h) for name in names], 1)
            out.append(h)
        if self.pool == "half":
            return torch.cat([*out, F.max_pool2d(x, 3, 2)], 1)
        mean = self.pool == "mean"
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if mean else F.max_pool2d(x, 3, 1, 1)
        return torch.cat([*out, self.get_submodule("branch_pool")(pooled)], 1)


def _numbered(stem: str, count: int) -> list[str]:
    return [f"{stem}_{i}" for i in range(1, count + 1)]


def _a(c: int, pool: int) -> Mixed:
    units = {
        "branch1x1": Unit(c, 64, 1),
        "branch5x5_1": Unit(c, 48, 1),
        "branch5x5_2": Unit(48, 64, 5),
        "branch3x3dbl_1": Unit(c, 64, 1),
        "branch3x3dbl_2": Unit(64, 96, 3),
        "branch3x3dbl_3": Unit(96, 96, 3),
        "branch_pool": Unit(c, pool, 1),
    }
    return Mixed(units, [["branch1x1"], _numbered("branch5x5", 2), _numbered("branch3x3dbl", 3)], "mean")


def _b(c: int) -> Mixed:
    units = {
        "branch3x3": Unit(c, 384, 3, 2),
        "branch3x3dbl_1": Unit(c, 64, 1),
        "branch3x3dbl_2": Unit(64, 96, 3),
        "branch3x3dbl_3": Unit(96, 96, 3, 2),
    }
    return Mixed(units, [["branch3x3"], _numbered("branch3x3dbl", 3)], "half")


def _c(c: int, inner: int) -> Mixed:
    wide, tall = (1, 7), (7, 1)
    units = {
        "branch1x1": Unit(c, 192, 1),
        "branch7x7_1": Unit(c, inner, 1),
        "branch7x7_2": Unit(inner, inner, wide),
        "branch7x7_3": Unit(inner, 192, tall),
        "branch7x7dbl_1": Unit(c, inner, 1),
        "branch7x7dbl_2": Unit(inner, inner, tall),
        "branch7x7dbl_3": Unit(inner, inner, wide),
        "branch7x7dbl_4": Unit(inner, inner, tall),
        "branch7x7dbl_5": Unit(inner, 192, wide),
        "branch_pool": Unit(c, 192, 1),
    }
    return Mixed(units, [["branch1x1"], _numbered("branch7x7", 3), _numbered("branch7x7dbl", 5)], "mean")


def _d(c: int) -> Mixed:
    units = {
        "branch3x3_1": Unit(c, 192, 1),
        "branch3x3_2": Unit(192, 320, 3, 2),
        "branch7x7x3_1": Unit(c, 192, 1),
        "branch7x7x3_2": Unit(192, 192, (1, 7)),
        "branch7x7x3_3": Unit(192, 192, (7, 1)),
        "branch7x7x3_4": Unit(192, 192, 3, 2),
    }
    return Mixed(units, [_numbered("branch3x3", 2), _numbered("branch7x7x3", 4)], "half")


def _e(c: int, pool: str) -> Mixed:
    units = {
        "branch1x1": Unit(c, 320, 1),
        "branch3x3_1": Unit(c, 384, 1),
        "branch3x3_2a": Unit(384, 384, (1, 3)),
        "branch3x3_2b": Unit(384, 384, (3, 1)),
        "branch3x3dbl_1": Unit(c, 448, 1),
        "branch3x3dbl_2": Unit(448, 384, 3),
        "branch3x3dbl_3a": Unit(384, 384, (1, 3)),
        "branch3x3dbl_3b": Unit(384, 384, (3, 1)),
        "branch_pool": Unit(c, 192, 1),
    }
    chains: list[Chain] = [
        ["branch1x1"],
        ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")],
        [*_numbered("branch3x3dbl", 2), ("branch3x3dbl_3a", "branch3x3dbl_3b")],
    ]
    return Mixed(units, chains, pool)


class Inception(nn.Module):
    """Pictures `(B, 3, 299, 299)` in [-1, 1] to the 2048 values below the 1008 logits of the FID network.

    It differs from the ImageNet network of the same name in its means at borders and in the last block's maximum.
    Source: Szegedy et al. 2016, with the weights of Heusel et al. 2017. [szegedy2016inception] [heusel2017fid]
    """

    def __init__(self) -> None:
        """Untrained; 23,850,960 parameters."""
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_c(768, n) for n in (128, 160, 160, 192))
        self.Mixed_7a = _d(768)
        self.Mixed_7b, self.Mixed_7c = _e(1280, "mean"), _e(2048, "max")
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Tensor:
        """The mean over the last feature map, `(B, 2048)`."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{name}")(x)
        return x.mean((2, 3))
