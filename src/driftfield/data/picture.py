"""Samples as one picture: a grid of images or of waves, or the density of points in the plane."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .base import Info
from .waves import panels


def picture(samples: Tensor, info: Info, pixels: int = 512) -> Image.Image | None:
    """A picture about `pixels` wide of samples `(n, *shape)` in the model's units; None for what has no picture."""
    kind = info.seen.kind
    if kind == "image":
        return tile(info.to_user(samples), pixels)
    if kind == "audio":
        return tile(panels(info.to_user(samples)), pixels)
    if kind == "points":
        return scatter(info.decode(samples), pixels)
    return None


def tile(images: np.ndarray, pixels: int = 512) -> Image.Image:
    """Images `(n, H, W)` or `(n, H, W, 3)`, uint8, side by side in a near-square grid, enlarged by a whole factor."""
    n, height, width = images.shape[:3]
    columns = math.ceil(math.sqrt(n))
    lines = math.ceil(n / columns)
    gap = 1
    sheet = np.zeros((lines * (height + gap) + gap, columns * (width + gap) + gap, *images.shape[3:]), np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    factor = max(1, pixels // sheet.shape[1])
    return Image.fromarray(sheet).resize((sheet.shape[1] * factor, sheet.shape[0] * factor), Image.Resampling.NEAREST)


def scatter(points: Tensor, pixels: int = 512, reach: float | None = None) -> Image.Image:
    """The density of points `(n, 2)`, dark on white, on a square of half-width `reach` (by default 1.1 of the widest,
    outliers beyond the 99.5 % quantile left out of the frame, not of the count)."""
    p = points.detach().double().cpu()
    if reach is None:
        reach = 1.1 * torch.quantile(p.abs().amax(1), 0.995).item()
    bins = pixels // 4
    counts, _, _ = np.histogram2d(p[:, 1].numpy(), p[:, 0].numpy(), bins=bins, range=[[-reach, reach]] * 2)
    full = np.quantile(counts[counts > 0], 0.95) if counts.any() else 1.0
    shade = 255 - np.clip(counts / full, 0, 1) ** 0.5 * 235
    image = Image.fromarray(shade[::-1].astype(np.uint8))
    return image.resize((pixels, pixels), Image.Resampling.NEAREST)
