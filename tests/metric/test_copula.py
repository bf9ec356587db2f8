"""The Gaussian copula: exact where the data are one, and wrong where they are not."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from driftfield.metric.copula import GaussianCopula
from driftfield.metric.table import marginal_gap
from driftfield.rng import seeded

N = 20_000
RHO = np.array([[1.0, 0.7, -0.4], [0.7, 1.0, 0.1], [-0.4, 0.1, 1.0]])
Z = np.random.default_rng(0).multivariate_normal(np.zeros(3), RHO, N)


def test_the_correlation_is_that_beneath_increasing_functions():
    """Of exp(z1), z2^3 and a real column: within four standard errors (1 - rho^2) / sqrt(n) of a correlation, and 0.01
    for the scores of ranks, whose extremes are not those of the law."""
    frame = pd.DataFrame({"a": np.exp(Z[:, 0]), "b": Z[:, 1] ** 3, "c": Z[:, 2]})
    copula = GaussianCopula.fit(frame, seeded(0))
    assert (np.abs(copula.correlation - RHO) < 4 * (1 - RHO**2) / math.sqrt(N) + 0.01).all()
    drawn = copula.sample(N, seeded(1))
    assert drawn.dtypes.equals(frame.dtypes)
    # the fitted law itself misses the true one by about 1 / sqrt(n); two such distances, each beyond 1.95 / sqrt(n)
    # once in a thousand times
    assert kstest(np.log(drawn["a"]), "norm").statistic < 2 * 1.95 / math.sqrt(N) + 0.0138
    found = drawn.corr(method="spearman").to_numpy()
    expected = 6 / math.pi * np.arcsin(RHO / 2)  # Pearson 1907: the rank correlation of a Gaussian
    assert (np.abs(found - expected) < 4 * 1.1 * math.sqrt(2 / N) + 0.01).all()


def test_columns_keep_their_laws_and_types():
    frame = pd.DataFrame(
        {"n": np.floor(3 * np.exp(Z[:, 0])).astype(int), "c": np.where(Z[:, 1] > 0.5, "hi", "lo"), "k": "USD"}
    )
    drawn = GaussianCopula.fit(frame, seeded(0)).sample(5000, seeded(1))
    assert drawn.dtypes.equals(frame.dtypes)
    assert set(drawn["k"]) == {"USD"}
    assert set(drawn["n"]) <= set(range(frame["n"].max() + 1))
    for name, category in (("n", False), ("c", True)):
        assert marginal_gap(drawn[name], frame[name], category) < 1.95 * math.sqrt(1 / 5000 + 1 / N)
    assert drawn.equals(GaussianCopula.fit(frame, seeded(0)).sample(5000, seeded(1)))


def test_a_dependence_that_is_not_gaussian_is_lost():
    x = np.random.default_rng(1).normal(size=N)
    drawn = GaussianCopula.fit(pd.DataFrame({"x": x, "y": x**2}), seeded(0)).sample(N, seeded(1))
    assert abs(np.corrcoef(drawn["x"] ** 2, drawn["y"])[0, 1]) < 0.1


def test_missing_cells_are_left_out():
    frame = pd.DataFrame({"a": Z[:, 0], "b": Z[:, 1]})
    frame.loc[::3, "a"] = None
    copula = GaussianCopula.fit(frame, seeded(0))
    assert copula.correlation[0, 1] == pytest.approx(0.7, abs=4 * 0.51 / math.sqrt(2 * N / 3) + 0.01)
    assert copula.sample(100, seeded(1)).notna().all().all()
    with pytest.raises(ValueError, match="only 0 of 4 rows"):
        GaussianCopula.fit(pd.DataFrame({"a": [1, 2, None, None], "b": [None, None, 3, 4]}), seeded(0))
