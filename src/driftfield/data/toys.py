"""Laws in the plane, drawn afresh: what a method does can be seen at a glance, and the truth is known.

With their default parameters all have mean 0 and a scale near 1 (root-mean-square deviation of a coordinate); for any
parameters `moments` gives the exact mean and covariance. The user's units are the model's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ..rng import Rng, device_of, integers, normal, seeded, uniform
from .base import Data, Info, Source

SAMPLE = 5000  # points in the fixed samples
_TRAIN, _HELD = 0x5452414E, 0x48454C44  # their streams: keys that no training step has


class Toy(Data):
    """A law in the plane. A subclass gives `points` and `moments`, and `classes` if its points have labels.

    Raises: ValueError for a parameter that is not a finite number above 0 (`spread`: at least 0).
    """

    classes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if not math.isfinite(value) or value < 0 or (value == 0 and f.name != "spread"):
                least = "at least" if f.name == "spread" else "above"
                raise ValueError(f"{f.name} must be a finite number {least} 0, got {value}")

    @abstractmethod
    def points(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        """`n` independent points `(n, 2)`, float32, on the generator's device, and their labels `(n,)` or None."""

    @abstractmethod
    def moments(self) -> tuple[Tensor, Tensor]:
        """The mean `(2,)` and the covariance `(2, 2)`, in closed form, float64."""

    def load(self) -> Source:
        """Cannot fail."""
        return Law(self)


class Law(Source):
    """An opened toy: every batch is fresh; `train` and `held` are two fixed, independent samples of 5,000 points."""

    def __init__(self, toy: Toy):
        """Open `toy`."""
        self._toy = toy
        mean, covariance = toy.moments()
        between = float((mean - mean.mean()).square().mean())  # the two coordinates share one mean in `std`
        self.info = Info("points", (2,), toy.classes, std=math.sqrt(float(covariance.trace()) / 2 + between))

    def draw(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        return self._toy.points(n, rng)

    def held(self) -> tuple[Tensor, Tensor | None]:
        return self._toy.points(SAMPLE, seeded(0, _HELD))

    def train(self) -> tuple[Tensor, Tensor | None]:
        return self._toy.points(SAMPLE, seeded(0, _TRAIN))


def _blank(n: int, *shape: int, rng: Rng) -> Tensor:
    return torch.empty(n, *shape, device=device_of(rng))


def _noise(n: int, spread: float, rng: Rng) -> Tensor:
    return spread * normal(_blank(n, 2, rng=rng), rng)


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1)


def _isotropic(variance: float) -> Tensor:
    return variance * torch.eye(2, dtype=torch.float64)


def _zero() -> Tensor:
    return torch.zeros(2, dtype=torch.float64)


@dataclass(frozen=True)
class EightGaussians(Toy):
    """Eight round Gaussians of standard deviation `spread`, evenly on a circle, the first on the positive x axis.

    Labels: the Gaussian, counter-clockwise. Mean 0, covariance `(radius^2 / 2 + spread^2) I`.
    """

    radius: float = 1.4
    spread: float = 0.1
    classes: ClassVar[tuple[str, ...]] = tuple(map(str, range(8)))

    def points(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        label = integers(_blank(n, rng=rng), 8, rng)
        return _polar(self.radius, label.float() * (math.pi / 4)) + _noise(n, self.spread, rng), label

    def moments(self) -> tuple[Tensor, Tensor]:
        return _zero(), _isotropic(self.radius**2 / 2 + self.spread**2)


@dataclass(frozen=True)
class Rings(Toy):
    """Three concentric circles of equal weight, radii 1/3, 2/3 and 1 times `radius`, with radial spread.

    The distance from a circle is normal with standard deviation `spread`, along the radius.
    Mean 0, covariance `(14 radius^2 / 27 + spread^2) / 2 I`.
    """

    radius: float = 1.9
    spread: float = 0.04

    def points(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        ring = integers(_blank(n, rng=rng), 3, rng) + 1
        angle = 2 * math.pi * uniform(_blank(n, rng=rng), rng)
        radius = self.radius / 3 * ring + self.spread * normal(_blank(n, rng=rng), rng)
        return _polar(radius, angle), None

    def moments(self) -> tuple[Tensor, Tensor]:
        return _zero(), _isotropic((14 / 27 * self.radius**2 + self.spread**2) / 2)


@dataclass(frozen=True)
class Checkerboard(Toy):
    """Uniform on the eight dark squares of a 4 x 4 board around 0, squares `side` wide; dark at the lower left.

    `floor(x / side) + floor(y / side)` is even. Mean 0, covariance `side^2 [[4/3, 1/4], [1/4, 4/3]]`.
    """

    side: float = 0.85

    def points(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        square = integers(_blank(n, rng=rng), 8, rng)
        column = square % 4
        row = 2 * (square // 4) + column % 2
        corner = torch.stack((column, row), 1) - 2
        return self.side * (corner + uniform(_blank(n, 2, rng=rng), rng)), None

    def moments(self) -> tuple[Tensor, Tensor]:
        shape = torch.tensor([[4 / 3, 1 / 4], [1 / 4, 4 / 3]], dtype=torch.float64)
        return _zero(), self.side**2 * shape


@dataclass(frozen=True)
class SwissRoll(Toy):
    """A spiral of `turns` turns with its outer end at distance `radius`, moved to mean 0, under Gaussian noise.

    `radius / b (t cos t, t sin t)` with `t` uniform from `a = 3 pi / 2` to `b = a + 2 pi turns`; its moments are
    elementary integrals.
    """

    radius: float = 2.0
    turns: float = 1.5
    spread: float = 0.05

    def _range(self) -> tuple[float, float]:
        return 1.5 * math.pi, 1.5 * math.pi + 2 * math.pi * self.turns

    def points(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        a, b = self._range()
        t = a + (b - a) * uniform(_blank(n, rng=rng), rng)
        x, y = self._centre()
        spiral = _polar(self.radius / b * t, t)
        return torch.stack((spiral[:, 0] - x, spiral[:, 1] - y), 1) + _noise(n, self.spread, rng), None

    def _centre(self) -> tuple[float, float]:
        """The mean of the spiral before it is moved."""
        a, b = self._range()

        def x(t: float) -> float:  # antiderivatives of t cos t and t sin t
            return t * math.sin(t) + math.cos(t)

        def y(t: float) -> float:
            return math.sin(t) - t * math.cos(t)

        unit = self.radius / b / (b - a)
        return unit * (x(b) - x(a)), unit * (y(b) - y(a))

    def moments(self) -> tuple[Tensor, Tensor]:
        a, b = self._range()

        def half(t: float) -> float:  # of t^2 / 2
            return t**3 / 6

        def even(t: float) -> float:  # of t^2 cos(2t) / 2
            return (t**2 / 4 - 1 / 8) * math.sin(2 * t) + t * math.cos(2 * t) / 4

        def odd(t: float) -> float:  # of t^2 sin(2t) / 2
            return (1 / 8 - t**2 / 4) * math.cos(2 * t) + t * math.sin(2 * t) / 4

        unit = (self.radius / b) ** 2 / (b - a)
        h, e, o = (unit * (f(b) - f(a)) for f in (half, even, odd))
        x, y = self._centre()
        second = [[h + e - x * x, o - x * y], [o - x * y, h - e - y * y]]
        return _zero(), torch.tensor(second, dtype=torch.float64) + _isotropic(self.spread**2)


@dataclass(frozen=True)
class OlympicRings(Toy):
    """Five interlaced circles of radius `radius` and equal weight; the distance from a circle is normal.

    Labels: the ring, from left to right. Mean 0, covariance
    `diag(2.88, 0.24) radius^2 + (radius^2 + spread^2) / 2 I`.
    """

    radius: float = 0.7
    spread: float = 0.03
    classes: ClassVar[tuple[str, ...]] = ("blue", "yellow", "black", "green", "red")

    def points(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        ring = integers(_blank(n, rng=rng), 5, rng)
        angle = 2 * math.pi * uniform(_blank(n, rng=rng), rng)
        radius = self.radius + self.spread * normal(_blank(n, rng=rng), rng)
        # centres in radii: 1.2 apart; three up at 0.4, two down at -0.6, so that the mean is 0
        centre = self.radius * torch.stack((1.2 * (ring - 2), 0.4 - ring % 2), 1)
        return centre + _polar(radius, angle), ring

    def moments(self) -> tuple[Tensor, Tensor]:
        centres = torch.tensor([2.88, 0.24], dtype=torch.float64).diag() * self.radius**2
        return _zero(), centres + _isotropic((self.radius**2 + self.spread**2) / 2)


@dataclass(frozen=True)
class Tree(Toy):
    """A fractal tree: each branch ends in two, turned by `angle` (radians) and shorter by the factor `ratio`.

    Uniform along the branches of `depth` generations, whose root-mean-square deviation is `size`, moved to mean 0,
    under Gaussian noise. Mean and covariance are those of a mixture of segments: exact.
    Raises: ValueError for more than 16 generations.
    """

    size: float = 1.0
    angle: float = 0.45
    ratio: float = 0.75
    depth: int = 8
    spread: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth != int(self.depth) or self.depth > 16:
            raise ValueError(f"depth must be a whole number of generations from 1 to 16, got {self.depth}")

    def points(self, n: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        starts, steps, edges = _branches(self, device_of(rng))
        u = uniform(_blank(n, 2, rng=rng), rng)
        branch = torch.searchsorted(edges, u[:, 0].contiguous(), right=True)
        along = starts[branch] + u[:, 1:] * steps[branch]
        return along + _noise(n, self.spread, rng), None

    def moments(self) -> tuple[Tensor, Tensor]:
        mean, covariance = _segment_moments(*_segments(self))
        return mean, covariance + _isotropic(self.spread**2)


def _segments(tree: Tree) -> tuple[Tensor, Tensor]:
    """Starts and steps of the branches, `(2^depth - 1, 2)` each, float64, of mean 0 and deviation `size`."""
    start, direction = torch.zeros(1, 2, dtype=torch.float64), torch.full((1,), math.pi / 2, dtype=torch.float64)
    starts, steps = [], []
    for generation in range(int(tree.depth)):
        step = _polar(tree.ratio**generation, direction)
        starts.append(start)
        steps.append(step)
        start = (start + step).repeat(2, 1)
        direction = torch.cat((direction + tree.angle, direction - tree.angle))
    start, step = torch.cat(starts), torch.cat(steps)
    mean, covariance = _segment_moments(start, step)
    unit = tree.size / (covariance.trace() / 2).sqrt()
    return (start - mean) * unit, step * unit


def _segment_moments(start: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the uniform law along segments: of their middles, and `step step^T / 12` within each."""
    length = step.norm(dim=1)
    weight = (length / length.sum())[:, None]
    middle = start + step / 2
    mean = (weight * middle).sum(0)
    off = middle - mean
    return mean, off.T @ (weight * off) + step.T @ (weight * step) / 12


@lru_cache(maxsize=16)
def _branches(tree: Tree, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Starts, steps, and the inner edges of the cumulative weights, float32, on a device once and for all."""
    start, step = _segments(tree)
    share = step.norm(dim=1).cumsum(0)
    return start.float().to(device), step.float().to(device), (share / share[-1])[:-1].float().to(device)
