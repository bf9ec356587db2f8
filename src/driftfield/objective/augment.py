"""Augmentation that does not leak: the network is told what was done to each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ..linear import expand
from ..rng import Rng, normal, uniform


@dataclass(frozen=True)
class Augment:
    """Random mirror images, sizes, turns, shifts and stretches, each applied with the same `probability`.

    The parameters of what was applied are the image's augmentation label, all 0 for an image left alone; a network
    that is given the label in training, and zeros when sampling, draws images that were never augmented. The label
    determines the transform (`transform` is a function of the two), so nothing the network is not told is mixed in.

    In their order in the label and of application (a strength of 0, or False, leaves a transform out):

        flip_x, flip_y   True to mirror left-right, up-down       1 each: 1 if mirrored
        scale            standard deviation of log2 of the zoom   1: the normal draw
        rotate           greatest turn in half circles, 0 to 1    2: cos(a) - 1, sin(a), counter-clockwise
        stretch          deviation of log2 of the stretch         2: two normal draws
        translate        deviation of the shift in image sizes    2: normal draws, to the right and down

    A stretch by `2^m` along an axis at angle `r` (and `2^-m` across it) has the draws `m (cos 2r, sin 2r) / stretch`:
    in twice the angle, because an axis has no direction, so that one label means one transform.
    All but the flips share one resampling, bicubic with mirrored borders, which overshoots sharp edges a little; an
    image that is only flipped, or left alone, keeps its pixels bit for bit.

    Source: Karras et al. 2022, App. F.2, who flip left-right every second image at any probability, resample with
    wavelet filters, and label a stretch by its angle, not twice that. [karras2022edm]
    Raises: ValueError for a probability or `rotate` outside [0, 1], a negative strength, or nothing to do.
    """

    probability: float = 0.12
    flip_x: bool = True
    flip_y: bool = False
    scale: float = 0.2
    rotate: float = 1.0
    stretch: float = 0.14
    translate: float = 0.125

    def __post_init__(self) -> None:
        for name, value in (("probability", self.probability), ("rotate", self.rotate)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        for name, value in (("scale", self.scale), ("stretch", self.stretch), ("translate", self.translate)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number, at least 0; got {value}")
        if self.channels == 0:
            raise ValueError("every transform is left out; leave the augmentation itself out instead")

    @property
    def _widths(self) -> tuple[int, ...]:
        """The numbers of label channels of flip_x, flip_y, scale, rotate, stretch, translate."""
        on = (self.flip_x, self.flip_y, self.scale, self.rotate, self.stretch, self.translate)
        return tuple(width if use else 0 for width, use in zip((1, 1, 1, 2, 2, 2), on, strict=True))

    @property
    def channels(self) -> int:
        """The length `K` of an augmentation label: what a network's `augments` must be."""
        return sum(self._widths)

    def __call__(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Images `(B, C, H, W)`, augmented, and their labels `(B, K)`, float32.

        The draws of a row are as many whatever is switched on.
        Raises: ValueError for a batch of another rank.
        """
        _check(x)
        label = self.label(len(x), rng, x.device)
        return self.transform(x, label), label

    def mirrors(self) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """The axes mirrored, none or more, and the label `(K,)`: of each transform that more than one image can have.

        All other labels hold a draw from a continuous law.
        """
        axes = [axis for axis, use in ((-1, self.flip_x), (-2, self.flip_y)) if use]
        chosen = product((0.0, 1.0), repeat=len(axes))
        rest = (0.0,) * (self.channels - len(axes))
        return [(tuple(a for a, use in zip(axes, flips, strict=True) if use), (*flips, *rest)) for flips in chosen]

    def label(self, n: int, rng: Rng, device: torch.device | str = "cpu") -> Tensor:
        """Random labels `(n, K)`, float32; `device` is the generator's."""
        u = uniform(torch.empty(n, 7, device=device), rng)
        z = normal(torch.empty(n, 5, device=device), rng)
        angle = (2 * u[:, 6] - 1) * (math.pi * self.rotate)
        turn = torch.stack((angle.cos() - 1, angle.sin()), 1)
        blocks = (torch.ones_like(turn[:, :1]),) * 2 + (z[:, :1], turn, z[:, 1:3], z[:, 3:])
        applied = u < self.probability
        on = [i for i, width in enumerate(self._widths) if width]
        return torch.cat([blocks[i] * applied[:, i : i + 1] for i in on], 1)

    def transform(self, x: Tensor, label: Tensor) -> Tensor:
        """The images `(B, C, H, W)` under the transforms that `label`, `(B, K)`, stands for.

        Raises: ValueError for a batch of another rank, or a label of another shape.
        """
        _check(x)
        if label.shape != (len(x), self.channels):
            raise ValueError(f"expected labels of shape ({len(x)}, {self.channels}), got {tuple(label.shape)}")
        flip_x, flip_y, *rest = torch.split(label, list(self._widths), 1)
        for flip, axis in ((flip_x, -1), (flip_y, -2)):
            if flip.shape[1]:
                x = torch.where(expand(flip[:, 0] != 0, x), x.flip(axis), x)
        if not any(part.shape[1] for part in rest):
            return x
        matrix, shift = self._inverse([part.to(x.dtype) for part in rest], x)
        height, width = x.shape[2:]
        (a, b), (c, d) = (row.unbind(1) for row in matrix.unbind(1))
        turned = _matrix(a, b * (height / width), c * (width / height), d)  # from pixels to units of half the image
        centre = torch.stack((shift[:, 0] * (2 / width), shift[:, 1] * (2 / height)), 1)
        theta = torch.cat((turned, centre[..., None]), 2)
        grid = affine_grid(theta, list(x.shape), align_corners=False)
        moved = grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
        return torch.where(expand((torch.cat(rest, 1) != 0).any(1), x), moved, x)

    def _inverse(self, parts: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, 2, 2)` and `(B, 2)`: where in the old image, in pixels from its centre, a point of the new one lies."""
        scale, rotate, stretch, translate = parts
        matrix = torch.eye(2, dtype=x.dtype, device=x.device).expand(len(x), 2, 2)
        shift = x.new_zeros(len(x), 2)
        if scale.shape[1]:
            matrix = matrix * torch.exp2(-self.scale * scale)[..., None]
        if rotate.shape[1]:
            cos, sin = 1 + rotate[:, 0], rotate[:, 1]
            matrix = matrix @ _matrix(cos, -sin, sin, cos)  # y points down
        if stretch.shape[1]:
            axis = torch.atan2(stretch[:, 1], stretch[:, 0])
            amount = -self.stretch * math.log(2) * stretch.norm(dim=1)
            even, odd = amount.cosh(), amount.sinh()
            cos, sin = odd * axis.cos(), odd * axis.sin()
            matrix = matrix @ _matrix(even + cos, -sin, -sin, even - cos)
        if translate.shape[1]:
            right, down = translate.unbind(1)
            pixels = self.translate * torch.stack((right * x.shape[3], down * x.shape[2]), 1)
            shift = -(matrix @ pixels[..., None])[..., 0]
        return matrix, shift


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """`[[a, b], [c, d]]` for each row."""
    return torch.stack((a, b, c, d), 1).reshape(-1, 2, 2)


def _check(x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"augmentation is for images (B, C, H, W), got shape {tuple(x.shape)}")
