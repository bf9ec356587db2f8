"""What every distance asks of the features it is given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def rows(x: Tensor, name: str = "features", least: int = 1) -> Tensor:
    """`x` in float64 and without gradient: a matrix `(n, F)` with `n >= least` and `F >= 1`.

    Raises: ValueError for another shape, or values that are not finite.
    """
    if x.ndim != 2 or len(x) < least or not x.shape[1]:
        raise ValueError(f"{name} should have shape (n, F) with n at least {least}, got {tuple(x.shape)}")
    x = x.detach().double()
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} should be finite, but {int((~x.isfinite()).sum())} of {x.numel()} values are not")
    return x


def same_width(a: Tensor, b: Tensor) -> None:
    """Raise a ValueError unless the last axes of `a` and `b`, their features, are equal in number."""
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"both samples need the same features, got {a.shape[-1]} and {b.shape[-1]} of them")


def array(x: Tensor | np.ndarray, name: str, least: int) -> Tensor:
    """Samples `x` as a tensor of finite floats `(n, *shape)` with at least `least` rows, without gradient.

    Raises: TypeError for what is not an array of floats; ValueError for another shape, too few rows, or values that
    are not finite, saying how many.
    """
    if not isinstance(x, Tensor | np.ndarray):
        raise TypeError(f"{name} should be a tensor or an array, got {type(x).__name__}")
    x = torch.as_tensor(x).detach()
    if not x.is_floating_point():
        raise TypeError(f"{name} should be floats in the model's units, got {x.dtype}; convert both sets alike")
    if x.ndim < 2 or len(x) < least or not x[0].numel():
        raise ValueError(f"{name} should have shape (n, *shape) with n at least {least}, got {tuple(x.shape)}")
    bad = ~x.isfinite()
    if bool(bad.any()):
        hit = int(bad.flatten(1).any(1).sum())
        raise ValueError(
            f"{name} should be finite, but {int(bad.sum())} values in {hit} of {len(x)} rows are NaN or infinite; "
            "find out where they come from before scoring"
        )
    return x


def same_shape(x: Tensor, other: Tensor, name: str) -> None:
    """Raise a ValueError unless samples `x` and the set `other`, called `name`, are of one shape."""
    if other.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"samples are of shape {tuple(x.shape[1:])} but the {name} set of {tuple(other.shape[1:])}; "
            "give both in the same shape"
        )
