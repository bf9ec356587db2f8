"""The Gaussian copula: exact where the data are one, and wrong where they are not."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, spearmanr

from driftfield.metric.copula import GaussianCopula, latent_correlation, nearest_correlation
from driftfield.metric.table import marginal_gap
from driftfield.rng import seeded

N = 20_000
RHO = np.array([[1.0, 0.7, -0.4], [0.7, 1.0, 0.1], [-0.4, 0.1, 1.0]])
Z = np.random.default_rng(0).multivariate_normal(np.zeros(3), RHO, N)


def test_the_correlation_is_that_beneath_increasing_functions():
    """Of exp(z1), z2^3 and a real column: within four standard errors (1 - rho^2) / sqrt(n) of a correlation, and 0.01
    for the scores of ranks, whose extremes are not those of the law."""
    frame = pd.DataFrame({"a": np.exp(Z[:, 0]), "b": Z[:, 1] ** 3, "c": Z[:, 2]})
    copula = GaussianCopula.fit(frame)
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
    drawn = GaussianCopula.fit(frame).sample(5000, seeded(1))
    assert drawn.dtypes.equals(frame.dtypes)
    assert set(drawn["k"]) == {"USD"}
    assert set(drawn["n"]) <= set(range(frame["n"].max() + 1))
    for name, category in (("n", False), ("c", True)):
        assert marginal_gap(drawn[name], frame[name], category) < 1.95 * math.sqrt(1 / 5000 + 1 / N)
    assert drawn.equals(GaussianCopula.fit(frame).sample(5000, seeded(1)))


def test_a_dependence_that_is_not_gaussian_is_lost():
    x = np.random.default_rng(1).normal(size=N)
    drawn = GaussianCopula.fit(pd.DataFrame({"x": x, "y": x**2})).sample(N, seeded(1))
    assert abs(np.corrcoef(drawn["x"] ** 2, drawn["y"])[0, 1]) < 0.1


def test_missing_cells_are_left_out():
    frame = pd.DataFrame({"a": Z[:, 0], "b": Z[:, 1]})
    frame.loc[::3, "a"] = None
    copula = GaussianCopula.fit(frame)
    assert copula.correlation[0, 1] == pytest.approx(0.7, abs=4 * 0.51 / math.sqrt(2 * N / 3) + 0.01)
    assert copula.sample(100, seeded(1)).notna().all().all()
    with pytest.raises(ValueError, match="only 0 of 4 rows"):
        GaussianCopula.fit(pd.DataFrame({"a": [1, 2, None, None], "b": [None, None, 3, 4]}))


def test_two_halves_that_agree_know_their_angle():
    """Sheppard: both normals are on one side of their medians with probability 1/2 + asin(rho) / pi."""
    for agree in (500, 400, 375, 250, 50):
        a = np.repeat([0.0, 0.0, 1.0, 1.0], [agree, 500 - agree, 500 - agree, agree])
        b = np.repeat([0.0, 1.0, 0.0, 1.0], [agree, 500 - agree, 500 - agree, agree])
        assert latent_correlation(a, b) == pytest.approx(math.sin(math.pi * (agree / 500 - 0.5)), abs=1e-9)


STEPS = {
    "raw": lambda z: z,
    "tenths": lambda z: np.round(z, 1),
    "integers": np.round,
    "three": lambda z: np.digitize(z, [-0.3, 1.0]).astype(float),
    "halves": lambda z: (z > 0).astype(float),
}


@pytest.mark.parametrize("rho", [0.9, 0.3, -0.7])
@pytest.mark.parametrize(("a", "b"), list(combinations_with_replacement(STEPS, 2)))
def test_ties_take_nothing_from_the_correlation_beneath(rho, a, b):
    """Within 4.5 standard errors, as 20 parts of the rows scatter: beyond that once in 4,000 times (19 degrees)."""
    z = np.random.default_rng(7).multivariate_normal([0, 0], [[1, rho], [rho, 1]], N)
    x, y = STEPS[a](z[:, 0]), STEPS[b](z[:, 1])
    parts = [latent_correlation(*part) for part in zip(np.split(x, 20), np.split(y, 20), strict=True)]
    error = np.std(parts, ddof=1) / math.sqrt(20)
    assert error < 0.02
    assert abs(latent_correlation(x, y) - rho) < 4.5 * error


def test_a_column_goes_with_itself_wholly_and_with_a_constant_not_at_all():
    for steps in STEPS.values():
        x = steps(Z[:, 0])
        assert latent_correlation(x, x) == pytest.approx(1, abs=1e-8)
        assert latent_correlation(x, -x) == pytest.approx(-1, abs=1e-8)
        assert latent_correlation(x, np.zeros(N)) == 0


@pytest.mark.parametrize("name", ["halves", "integers"])
def test_samples_of_discrete_columns_go_together_as_the_data_do(name):
    """Rank correlations of two samples of `N`, each with a standard error of at most 1 / sqrt(N)."""
    z = np.random.default_rng(3).multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], N)
    frame = pd.DataFrame({"a": STEPS[name](z[:, 0]), "b": STEPS[name](z[:, 1])})
    drawn = GaussianCopula.fit(frame).sample(N, seeded(1))
    assert abs(spearmanr(drawn).statistic - spearmanr(frame).statistic) < 4 * math.sqrt(2 / N)


def test_the_nearest_correlation_matrix():
    """The example of Higham 2002, Sec. 4, to its four printed digits; a correlation is itself."""
    found = nearest_correlation(np.array([[1.0, -1, 0, 0], [-1, 1, -1, 0], [0, -1, 1, -1], [0, 0, -1, 1]]))
    assert found[0] == pytest.approx([1, -0.8084, 0.1916, 0.1068], abs=5e-5)
    assert found[1] == pytest.approx([-0.8084, 1, -0.6562, 0.1916], abs=5e-5)
    assert np.linalg.eigvalsh(found).min() > -1e-8
    assert np.allclose(nearest_correlation(RHO), RHO, rtol=0, atol=1e-14)
