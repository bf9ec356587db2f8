"""Functions known on even grids: cubic splines that tensors on any device are put through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from ..special import Array


@dataclass(frozen=True, eq=False)
class Curves:
    """Functions of `u`, one for each row or one for all, by their values and slopes on the grid `start + k step`.

    Below the grid a function stays as it is at the beginning; above, it goes on straight.
    Shapes: `knots` is `(R, K, 2)` float64, value and slope (a step long), `R` the rows or 1.
    """

    start: float
    step: float
    knots: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """The functions at `u`, `(B, ...)` (any shape where there is one function), in float64."""
        rows, count, _ = self.knots.shape
        at = ((u.double() - self.start) / self.step).clamp(min=0)
        inside = at.clamp(max=count - 1)
        i = inside.detach().long().clamp(max=count - 2)
        w = inside - i
        if rows > 1:
            i = i + count * torch.arange(rows, device=u.device).view(-1, *[1] * (u.ndim - 1))
        flat = self.knots.reshape(-1, 2)
        (left, a), (right, b) = flat[i].unbind(-1), flat[i + 1].unbind(-1)
        bent = _bent(left, a, right, b, w)
        last = self.knots[:, -1, 1]
        return bent + (at - inside) * (last.view(-1, *[1] * (u.ndim - 1)) if rows > 1 else last[0])

    def to(self, device: torch.device) -> Curves:
        """The same functions on `device`, kept for the next call."""
        return self if self.knots.device == device else _moved(self, device)


@lru_cache(maxsize=64)
def _moved(curves: Curves, device: torch.device) -> Curves:
    return Curves(curves.start, curves.step, curves.knots.to(device))


def curve(start: float, step: float, values: Array) -> Curves:
    """The cubic spline through `values` `(K,)`."""
    return Curves(start, step, torch.from_numpy(_knots(step, values))[None])


def _knots(step: float, values: Array) -> Array:
    """Values and slopes, a step long, along the last axis: `(..., K, 2)`."""
    u = step * np.arange(values.shape[-1])
    return np.stack((values, step * CubicSpline(u, values, axis=-1)(u, 1)), -1)


@dataclass(frozen=True, eq=False)
class Sheet:
    """A function of `(a, u)` on an even grid; at given `a` it is one function of `u` for each row.

    Beyond its range of `a` it stays as it is at the end.
    Shapes: `knots` is `(A, K, 2, 2)` float64: values and slopes in `u`, each with its slope in `a`.
    """

    first: float
    stride: float
    start: float
    step: float
    knots: Tensor

    def at(self, a: Tensor) -> Section:
        """The functions of `u` at `a` `(B,)`."""
        return Section(self, a.double())

    def to(self, device: torch.device) -> Sheet:
        """The same function on `device`, kept for the next call."""
        return self if self.knots.device == device else _moved_sheet(self, device)


@dataclass(frozen=True, eq=False)
class Section:
    """A sheet at given `a` `(B,)`: one function of `u` for each row, below and above the grid as in `Curves`."""

    sheet: Sheet
    a: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """The functions at `u`, `(B, ...)`, in float64."""
        sheet, (lines, count) = self.sheet, self.sheet.knots.shape[:2]
        place = ((self.a - sheet.first) / sheet.stride).clamp(0, lines - 1).view(-1, *[1] * (u.ndim - 1))
        line = place.long().clamp(max=lines - 2)
        flat = sheet.knots.reshape(-1, 2, 2)

        def knot(i: Tensor) -> tuple[Tensor, Tensor]:
            (left, a), (right, b) = (flat[(line + k) * count + i].unbind(-1) for k in (0, 1))
            value, slope = _bent(left, a, right, b, (place - line)[..., None]).unbind(-1)
            return value, slope

        at = ((u.double() - sheet.start) / sheet.step).clamp(min=0)
        inside = at.clamp(max=count - 1)
        i = inside.detach().long().clamp(max=count - 2)
        last = knot(torch.full_like(line, count - 1))[1]
        return _bent(*knot(i), *knot(i + 1), inside - i) + (at - inside) * last

    def to(self, device: torch.device) -> Section:
        """The same functions on `device`."""
        return self if self.a.device == device else Section(self.sheet.to(device), self.a.to(device))


def _bent(left: Tensor, a: Tensor, right: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The cubic with these values and slopes at 0 and 1, at `w`."""
    rise = right - left
    return left + w * (rise + (1 - w) * ((1 - w) * (a - rise) + w * (rise - b)))


@lru_cache(maxsize=16)
def _moved_sheet(sheet: Sheet, device: torch.device) -> Sheet:
    return Sheet(sheet.first, sheet.stride, sheet.start, sheet.step, sheet.knots.to(device))


def sheet(first: float, stride: float, start: float, step: float, values: Array) -> Sheet:
    """The bicubic spline through `values` `(A, K)`."""
    along = np.moveaxis(_knots(step, values), 0, -1)  # (K, 2, A)
    knots = np.moveaxis(_knots(stride, along), -2, 0)
    return Sheet(first, stride, start, step, torch.from_numpy(np.ascontiguousarray(knots)))
