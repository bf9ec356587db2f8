"""How near samples come to the training data, against how near new data come: a check on memorisation."""

from __future__ import annotations

import torch
from torch import Tensor

from .check import rows, same_width

_TILE = 2**22  # squared distances held at a time: 32 MB in float64


def nearest_ratio(samples: Tensor, train: Tensor, held: Tensor) -> float:
    """The median distance from a sample to its nearest training point, over the same for held-out points.

    Near 1, samples are as far from the training set as new data are; below 1 they lean on it; 0 where most are copies.
    Above 1 they are off the data. The mean of the two middle values is the median of an even number.

    Shapes: `samples` `(n, F)`, `train` `(m, F)`, `held` `(k, F)`, of any floating type; all is done in float64.
    Raises: ValueError for other shapes, different widths, values that are not finite, and where the held-out points
            are themselves training points, so that there is nothing to compare with.
    """
    fresh = _median(nearest_distance(held, train))
    if fresh == 0:
        raise ValueError("most held-out points are training points, so nothing is new; give a split that was held out")
    return _median(nearest_distance(samples, train)) / fresh


def nearest_distance(points: Tensor, among: Tensor) -> Tensor:
    """The Euclidean distance from each of `points`, `(n, F)`, to the nearest of `among`, `(m, F)`: `(n,)`, float64.

    The nearest one is found in tiles, by a matrix product of centred values; its distance is then taken directly, so a
    copy is at 0 exactly.
    Raises: ValueError for other shapes, different widths or values that are not finite.
    """
    points, among = rows(points, "points"), rows(among, "the points to be near")
    same_width(points, among)
    centre = among.mean(0)
    centred = among - centre
    half = centred.square().sum(1) / 2
    step = max(1, _TILE // len(among))
    distances = []
    for tile in torch.split(points, step):
        best = torch.addmm(half, tile - centre, centred.T, alpha=-1).argmin(1)  # |y|^2 / 2 - x.y
        distances.append((tile - among[best]).norm(dim=1))
    return torch.cat(distances)


def _median(x: Tensor) -> float:
    ordered = x.sort().values
    return float((ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2)
