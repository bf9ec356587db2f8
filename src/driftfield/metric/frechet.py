"""The Frechet distance between two samples: of their means and covariances alone, as in FID.

A covariance is kept as a root, `R^T R = covariance`, and two roots are compared directly: over orthogonal `U`, the
least `|R_a - U R_b|^2` is the covariance part of the distance. It is a sum of squares, so it never cancels: equal sets
are at 0 to rounding, and a covariance of low rank (fewer samples than features) loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .check import rows, same_width


@dataclass(frozen=True, eq=False)
class Moments:
    """What the Frechet distance needs of a sample: its size, mean and scatter, in float64; merges like a sum.

    Shapes: `mean` is `(F,)`; `root` is `(k, F)` with `root.T @ root` the sum of outer products of the deviations, and
    `k` at most the larger of `F` and the size of one batch, so a stream of batches needs no more memory than one.
    """

    count: int
    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The moments of `features`, `(n, F)` with `n >= 1`, of any floating type.

        Raises: ValueError for another shape, an empty batch, or values that are not finite.
        """
        x = rows(features)
        mean = x.mean(0)
        return cls(len(x), mean, _short(x - mean))

    @classmethod
    def given(cls, mean: Tensor, covariance: Tensor, count: int = 2) -> Moments:
        """The moments of a sample known by its mean `(F,)` and unbiased covariance `(F, F)`; `count` is its size.

        Distances need no `count`; merging does. Raises: ValueError, as `frechet_gaussians`.
        """
        mean = rows(mean[None], "a mean")[0]
        return cls(count, mean, _root(covariance, len(mean)) * math.sqrt(count - 1))

    @classmethod
    def stream(cls, batches: Iterable[Tensor]) -> Moments:
        """The moments of all rows of `batches`, each `(n_i, F)`, read once and never held together.

        Raises: ValueError where there is no batch, and what `of` and `merge` raise.
        """
        total: Moments | None = None
        for batch in batches:
            total = cls.of(batch) if total is None else total.merge(cls.of(batch))
        if total is None:
            raise ValueError("a stream of no batches has no moments; give at least one batch of shape (n, F)")
        return total

    def merge(self, other: Moments) -> Moments:
        """The moments of the two samples together. Stable: roots are stacked and made triangular, never squared.

        Raises: ValueError where the numbers of features differ.
        """
        same_width(self.mean, other.mean)
        count = self.count + other.count
        between = math.sqrt(self.count * other.count / count) * (self.mean - other.mean)
        mean = (self.count * self.mean + other.count * other.mean) / count
        return Moments(count, mean, _short(torch.cat((self.root, other.root, between[None]))))

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, `(F, F)`. Raises: ValueError for a single row, which has none."""
        root = self.scaled_root
        return root.T @ root

    @property
    def scaled_root(self) -> Tensor:
        """A root of the unbiased covariance, `(k, F)`. Raises: ValueError for a single row, which has none."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {self.count}; give a larger sample")
        return self.root / math.sqrt(self.count - 1)


def frechet(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """The Frechet distance of two samples, `|m_a - m_b|^2 + Tr(A + B - 2 (A B)^(1/2))`, in squared units of a feature.

    Shapes: `a` is `(n, F)`, `b` is `(m, F)`, or the `Moments` of a stream; all is done in float64.
    Exact:  to rounding, whatever the rank. As an estimate it is biased upward by about (number of features) / n, so
            compare only values of equal `n`; FID is this number, not its square root.
    Raises: ValueError for fewer than 2 rows, other shapes, different widths or values that are not finite.
    Source: Dowson and Landau 1982; Heusel et al. 2017. The orthogonal form: Bhatia et al. 2019, Theorem 1.
            [dowson1982frechet] [heusel2017fid] [bhatia2019bures]
    """
    a, b = (x if isinstance(x, Moments) else Moments.of(x) for x in (a, b))
    same_width(a.mean, b.mean)
    return _distance(a.mean, a.scaled_root, b.mean, b.scaled_root)


def frechet_gaussians(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """The Frechet distance of `N(mean_a, cov_a)` and `N(mean_b, cov_b)`: their squared 2-Wasserstein distance.

    Shapes: means are `(F,)`, covariances `(F, F)`; all is done in float64.
    Exact:  a covariance matrix holds its eigenvalues only to `F eps` of the largest one; below that they are taken as
            0. With features at hand `frechet` has no such limit.
    Raises: ValueError for other shapes, and for a matrix that is not symmetric or not positive semi-definite.
    Source: Dowson and Landau 1982. [dowson1982frechet]
    """
    a, b = (rows(m[None], "a mean")[0] for m in (mean_a, mean_b))
    same_width(a, b)
    return _distance(a, _root(cov_a, len(a)), b, _root(cov_b, len(b)))


def _distance(mean_a: Tensor, root_a: Tensor, mean_b: Tensor, root_b: Tensor) -> float:
    """Means `(F,)` and covariance roots `(k, F)`, `(l, F)`; rows of zeros change no covariance and make `k = l`."""
    k = max(len(root_a), len(root_b))
    root_a, root_b = (torch.cat((r, r.new_zeros(k - len(r), r.shape[1]))) for r in (root_a, root_b))
    left, _, right = torch.linalg.svd(root_a @ root_b.T)
    spread = (root_a - left @ right @ root_b).square().sum()
    return float((mean_a - mean_b).square().sum() + spread)


def _root(cov: Tensor, width: int) -> Tensor:
    """`R` with `R^T R = cov`, `(F, F)`; eigenvalues that are 0 to rounding are 0."""
    cov = rows(cov, "a covariance")
    if cov.shape != (width, width):
        raise ValueError(f"a covariance of {width} features has shape ({width}, {width}), got {tuple(cov.shape)}")
    rounding = width * torch.finfo(torch.float64).eps
    skew, size = float((cov - cov.T).abs().max()), float(cov.abs().max())
    if skew > rounding * size:
        raise ValueError(f"a covariance is symmetric, but two of its halves differ by {skew:.3g}; give (C + C.T) / 2")
    value, vector = torch.linalg.eigh(cov)
    least, bound = float(value[0]), rounding * float(value.abs().max())
    if least < -bound:
        raise ValueError(
            f"a covariance has no negative eigenvalue, but the least is {least:.3g} and the largest "
            f"{float(value[-1]):.3g}; compute it in float64, or give the features to `frechet`"
        )
    root: Tensor = torch.where(value > bound, value, 0.0).sqrt()[:, None] * vector.T
    return root


def _short(x: Tensor) -> Tensor:
    """A matrix with the same Gram matrix `x.T @ x`, and at most as many rows as columns."""
    return x if len(x) <= x.shape[1] else torch.linalg.qr(x, mode="r").R
