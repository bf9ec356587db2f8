"""What every distance asks of the features it is given."""

from __future__ import annotations

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
