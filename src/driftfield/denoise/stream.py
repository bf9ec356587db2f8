"""Sums over all the data with the weights of a softmax, a tile at a time, like attention.

Squared distances come from one matrix product per tile, and the running reference is the least of them: its weight is
the largest, because every kernel falls with distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..process.base import Isotropic

_CACHED = 1 << 18  # numbers converted at a time: 2 MiB in float64

Lean = Callable[[Tensor, Tensor, int], Tensor]  # of squared distances, a time and the dimensions


class Sums(NamedTuple):
    """What the stream leaves, for each row: sums relative to the kernel at the least distance, and the nearest few."""

    mass: Tensor  # (B, 1), of weights
    power: Tensor  # (B, 1), of weights times squared norms
    mean: Tensor  # (B, N), of weights times data, times 1 - lean
    lean: Tensor  # (B, 1), of weights times lean; 0 without one
    floor: Tensor  # (B, 1), the least squared distance
    near: Tensor  # (B, k), the least squared distances less `base`, in order
    which: Tensor  # (B, k), which data these are
    guess: Tensor  # (B, k), their log-weights relative to the first


@dataclass(frozen=True, eq=False)
class Points:
    """The data `(M, *data)` with their labels `(M,)`, `tile` of them at a time, measured from their centre."""

    data: Tensor
    labels: Tensor | None
    tile: int
    origin: Tensor | None  # (N,) float64, or None where centring gains nothing
    norms: Tensor  # (M,) float64, squared and from the origin
    scale: Tensor  # (), root of the mean squared distance from the mean

    @staticmethod
    def of(data: Tensor, labels: Tensor | None, tile: int) -> Points:
        """The points with their centre and norms, both through float64."""
        m = len(data)
        mean = torch.stack([rows.sum(0) for rows in _double(data)]).sum(0) / m
        spread = _squares(data, mean).sum() / m
        # Within two spreads of 0 the data are centred well enough, and no tile needs to be copied.
        off = bool(mean.square().sum() > 4 * spread)
        origin = mean.to(data.dtype).double() if off else None  # rounded: the same number in every precision
        norms = _squares(data, torch.zeros_like(mean) if origin is None else origin)
        return Points(data, labels, tile, origin, norms, spread.sqrt())

    def tiles(self, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
        """The first index of every tile and its rows less the origin, `(T, N)`: a view where there is no origin."""
        for start in range(0, len(self.data), self.tile):
            rows = self.data[start : start + self.tile].flatten(1)
            if self.origin is not None:  # subtracted in the finer of the two precisions
                rows = rows.to(torch.promote_types(rows.dtype, dtype)) - self.origin.to(rows.dtype)
            yield start, rows.to(dtype)


def _double(data: Tensor) -> Iterator[Tensor]:
    """All rows in float64, in pieces that stay in a processor's cache."""
    size = max(1, _CACHED // data[0].numel())
    for start in range(0, len(data), size):
        yield data[start : start + size].flatten(1).double()


def _squares(data: Tensor, centre: Tensor) -> Tensor:
    """The squared distances of the data from `centre`, `(M,)` float64."""
    return torch.cat([(rows - centre).square().sum(1) for rows in _double(data)])


def stream(
    law: Isotropic,
    points: Points,
    z: Tensor,
    time: Tensor,
    cond: Tensor | None,
    *,
    n: int,
    few: int,
    dtype: torch.dtype,
    lean: Lean | None,
    compiled: bool = False,
) -> Sums:
    """Sums over all data for the states `z` `(B, N)`, less the origin, by the kernel of `law` in `n` dimensions.

    `z` and `time`, `()` or `(B, 1)`, are float64; the arithmetic on tiles is in `dtype`. `cond` is `(B,)` or None,
    `few` the number of nearest data to keep. Where a function `lean` of the squared distances is given, its weighted
    sum is formed and the data enter with `1 - lean`. Squared distances are kept less `base = |z|^2`. `compiled` fuses
    what is done to the entries of a tile, once torch has compiled it.
    """
    weigh = _fused() if compiled else _weights
    t, a = time.to(dtype) if time.ndim else time, law.alpha(time)
    key, square, base = (-2 * a * z).to(dtype), a.square().to(dtype), z.square().sum(1, keepdim=True).to(dtype)
    far, few = torch.finfo(dtype).max / 8, min(few, len(points.data))
    mass, power, mean = torch.zeros_like(base), torch.zeros_like(base), torch.zeros_like(key)
    total = torch.zeros_like(base)
    near, floor = torch.full_like(base, far).expand(-1, few), base
    which = torch.zeros(near.shape, dtype=torch.int64, device=z.device)
    for start, u in points.tiles(dtype):
        norms = points.norms[start : start + len(u)].to(dtype)
        rise = torch.addmm(square * norms, key, u.mT)
        ranked, match, low = rise.detach(), None, near[:, :1]
        if cond is not None and points.labels is not None:
            match = (cond[:, None] < 0) | (cond[:, None] == points.labels[start : start + len(u)])
            ranked = ranked.where(match, far)
        best, at = ranked.topk(min(few, len(u)), largest=False)
        near, pick = torch.cat((near, best), 1).topk(few, largest=False)
        which = torch.cat((which, at + start), 1).gather(1, pick)
        least = near[:, :1]
        floor = (base + least).clamp(min=0)  # a square, which rounding may take below 0
        rise, weight, gain = weigh(law, floor, rise, least, t, n, match)
        fade = law.log_drop(floor, (low - least).where(low < far, 0), t, n).exp()
        mass = mass * fade + gain
        power = power * fade + (weight @ norms)[:, None]
        if lean is not None:
            leaning = weight * lean(floor + rise.clamp(min=0), t, n)
            total, weight = total * fade + leaning.sum(1, keepdim=True), weight - leaning
        mean = mean * fade + weight @ u
    guess = law.log_drop(floor, near - near[:, :1], t, n)
    return Sums(mass, power, mean, total, floor, near, which, guess)


def _weights(
    law: Isotropic, floor: Tensor, rise: Tensor, least: Tensor, t: Tensor, n: int, match: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The rise above the least squared distance, the weights at it, and their sums, of one tile."""
    rise = rise - least if match is None else (rise - least).where(match, 0)
    weight = law.log_drop(floor, rise, t, n).exp()
    if match is not None:
        weight = weight.where(match, 0)
    return rise, weight, weight.sum(1, keepdim=True)


@cache
def _fused() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(_weights, dynamic=True)
