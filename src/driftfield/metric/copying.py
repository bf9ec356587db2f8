"""A calibrated test on memorisation: are samples nearer to the training set than new data are?"""

from __future__ import annotations

from typing import NamedTuple

from scipy.stats import mannwhitneyu
from torch import Tensor

from .nearest import nearest_distance


class Copying(NamedTuple):
    """`share`: how often a sample is nearer to the training set than a held-out point is; `p`: of its being chance."""

    share: float
    p: float


def copying(samples: Tensor, train: Tensor, held: Tensor) -> Copying:
    """Rank test of the distances to the training set: of samples, against those of data kept from training.

    `share` is 1/2 on average where samples are new data of the same law: above it they lean on the training set, 1
    where every sample is nearer than every held-out point; below it they are off the data. `p` is the chance, for such
    new data, of a share at least this large: uniform on (0, 1) then, so a threshold of 0.05 raises one false alarm in
    20, and small where the training set is copied.

    Shapes: `samples` `(n, F)`, `train` `(m, F)`, `held` `(k, F)`, of any floating type; all is done in float64.
    Exact:  by the permutation law of ranks for up to 8 points on a side without ties, else by its normal
            approximation, corrected for ties and continuity. Ties count one half in `share`.
    Raises: ValueError for other shapes, different widths, values that are not finite, and where the held-out points
            are themselves training points, so that there is nothing to compare with.
    Source: Meehan et al. 2020, the test over one cell; Mann and Whitney 1947. [meehan2020copying] [mann1947test]
    """
    fresh = nearest_distance(held, train)
    if bool((fresh == 0).double().mean() > 0.5):
        raise ValueError("most held-out points are training points, so nothing is new; give a split that was held out")
    drawn = nearest_distance(samples, train)
    found = mannwhitneyu(drawn.cpu().numpy(), fresh.cpu().numpy(), alternative="less")
    return Copying(1 - float(found.statistic) / (len(drawn) * len(fresh)), float(found.pvalue))
