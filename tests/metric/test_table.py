"""Scores of tables on laws with known answers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from scipy.stats import ks_2samp

from driftfield.metric.table import associations, classifier_auc, evaluate_table, marginal_gap

R = np.random.default_rng(5)


def table(n: int, shift: float = 0.0, seed: int = 0) -> pd.DataFrame:
    r = np.random.default_rng(seed)
    x = r.normal(size=n)
    return pd.DataFrame(
        {
            "x": x + shift,
            "y": np.round(0.6 * x + 0.8 * r.normal(size=n), 1),
            "c": np.where(r.random(n) < ndtr(x), "high", "low"),
            "k": r.integers(0, 3, n),
        }
    )


def test_marginal_gap_is_kolmogorov_smirnov_for_numbers_ties_included():
    for a, b in [(R.normal(size=50), R.normal(size=70)), (R.integers(0, 4, 60), R.integers(0, 5, 40))]:
        gap = marginal_gap(pd.Series(a), pd.Series(b), False)
        assert gap == pytest.approx(ks_2samp(a, b).statistic, abs=1e-15)
    assert marginal_gap(pd.Series([1.0, 2.0, None]), pd.Series([1.0, 2.0]), False) == 0


def test_marginal_gap_is_total_variation_for_categories():
    a, b = pd.Series(["p", "p", "q", None]), pd.Series(["p", "r"])
    assert marginal_gap(a, b, True) == pytest.approx((abs(2 / 3 - 1 / 2) + 1 / 3 + 1 / 2) / 2)


def test_total_variation_knows_a_category_whatever_number_it_is():
    codes = pd.Series([1, 2, 2, 3])
    for same in (codes.astype(float), pd.Series([1, None, 2, 2, 3]), codes.astype("Int64")):
        assert marginal_gap(same, codes, True) == marginal_gap(codes, same, True) == 0
    assert marginal_gap(pd.Series([1.0, 4.0]), codes, True) == pytest.approx(3 / 4)


def test_associations_of_columns_that_determine_each_other_are_one():
    n = 300
    x = R.permutation(n)
    frame = pd.DataFrame({"x": x, "up": np.exp(x / 50), "down": -x, "half": np.where(x < n / 2, "a", "b")})
    frame["same"] = frame["half"].map({"a": 7, "b": 3})
    found = associations(frame, {"x": False, "up": False, "down": False, "half": True, "same": True})
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(-1)
    assert found[3, 4] == pytest.approx(1)
    # of n ranks the halves hold a share (n^2/4) / ((n^2 - 1)/3) of the variance
    assert found[0, 3] == pytest.approx(math.sqrt((n**2 / 16) / ((n**2 - 1) / 12)))
    assert np.array_equal(found, found.T)


def test_cramers_v_of_a_two_by_two_table():
    """(ad - bc) / sqrt of the product of the margins."""
    frame = pd.DataFrame({"a": list("xxxxxyyyyy"), "b": list("ppppqpqqqq")})
    assert associations(frame, {"a": True, "b": True})[0, 1] == pytest.approx((4 * 4 - 1 * 1) / 25)


def test_missing_cells_and_still_columns_go_with_nothing():
    frame = pd.DataFrame({"a": [1.0, 2, None, 4], "b": [2.0, 4, 0, 8], "c": [1, 1, 1, 1]})
    found = associations(frame, {"a": False, "b": False, "c": False})
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == 0


def test_the_classifier_can_only_guess_between_samples_of_one_law():
    """0.5 within four standard errors, on tables with missing cells too."""
    a, b = table(800, seed=1), table(900, seed=2)
    a.loc[::7, "x"] = None
    kinds = {"x": False, "y": False, "c": True, "k": True}
    auc, error = classifier_auc(a, b, kinds)
    assert abs(auc - 0.5) < 4 * error
    assert 0.5 / math.sqrt(3 * 1700) < error < 2 / math.sqrt(3 * 1700)  # about that of a rank sum


def test_the_classifier_finds_a_shift_as_well_as_can_be():
    """Of x + 2 against x the best area is Phi(sqrt 2) = 0.921; the classifier may lose a little, never win."""
    a, b = (table(1500, shift, seed)[["x"]] for shift, seed in ((2.0, 1), (0.0, 2)))
    auc, error = classifier_auc(a, b, {"x": False})
    best = ndtr(math.sqrt(2))
    assert best - 0.04 < auc < best + 4 * error
    assert classifier_auc(a, b, {"x": False}) == (auc, error)


def test_a_table_is_scored():
    train, held, samples = table(900, seed=1), table(300, seed=2), table(400, seed=3)
    scores = evaluate_table(samples, held, train=train, categories=["k"], sample_seed=7)
    assert scores.values["marginal"] == pytest.approx(np.mean([scores.values[f"marginal[{c}]"] for c in "xyck"]))
    # two samples of one law: a Kolmogorov-Smirnov distance beyond 1.95 / sqrt(effective size) is one in a thousand
    assert scores.values["marginal_max"] < 1.95 / math.sqrt(400 * 300 / 700)
    assert scores.values["pairs"] <= scores.values["pairs_max"] < 0.3
    assert scores.values["copies"] == 0
    assert abs(scores.values["nearest"] - 1) < 0.2
    assert set(scores.errors) == {"auc"}
    assert scores.record["n_train"] == 900
    assert scores.record["sample_seed"] == 7
    assert "auc" in str(scores)


def test_copies_are_found():
    train, held = table(900, seed=1), table(300, seed=2)
    scores = evaluate_table(pd.concat([train[:100], held[:100]]), held, train=train)
    assert scores.values["copies"] == 0.5
    assert scores.record["reference_copies"] == 0
    assert scores.values["nearest"] < 0.7


def test_a_category_that_training_rows_lack_is_no_copy():
    """In one side alone, and where the training rows hold one value only, of categories and of numbers."""
    train, held = table(200, seed=1)[["x", "k"]], table(200, seed=2)[["x", "k"]]
    for value in (0, "a"):
        train, samples = train.assign(c=value, k=0), train.assign(c=value, k=0)
        held = held.assign(c=value, k=0)
        samples.loc[:49, "c"] = 9 if value == 0 else "z"
        held.loc[:9, "c"] = 8 if value == 0 else "rare"
        samples.loc[50:69, "k"] = 1
        scores = evaluate_table(samples, held, train=train)
        assert scores.values["copies"] == 130 / 200
        assert scores.record["reference_copies"] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x.drop(columns="x"), "same columns, but x is in one alone"),
        (lambda x: x[:5], "at least 10 rows of each"),
        (lambda x: x.assign(x=np.nan), "'x' holds no values on one side"),
        (lambda x: x.assign(x=["abc", *x["x"][1:]]), "samples: the column 'x' takes numbers, got 'abc'"),
        (lambda x: x.assign(x=[np.inf, *x["x"][1:]]), "samples: the column 'x' takes finite numbers, got inf"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate_table(change(table(50)), table(50, seed=1))


def test_infinity_is_refused_wherever_it_is():
    whole, broken = table(50), table(50).replace({"y": {0.0: -np.inf}})
    for sides, whose in [((whole, broken, whole), "reference"), ((whole, whole, broken), "training rows")]:
        with pytest.raises(ValueError, match=f"{whose}: the column 'y' takes finite numbers, got -inf"):
            evaluate_table(sides[0], sides[1], train=sides[2])
