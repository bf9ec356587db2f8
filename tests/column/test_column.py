"""Columns: levels are uniform, values come back, and what cannot be a column is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from driftfield.column.base import Category, Constant, Number
from driftfield.column.infer import column_of
from driftfield.plain import from_plain, to_plain

R = np.random.default_rng(3)
N = 20_000
SHAPES = {
    "integers": R.poisson(3.0, N),
    "wide": (1000 * np.exp(1.5 * R.normal(size=N))).astype(np.int64),
    "cents": np.round(np.exp(R.normal(size=N)), 2),
    "single": np.round(R.normal(size=N), 1).astype(np.float32),
    "real": R.standard_cauchy(N),
    "mostly zero": np.where(R.random(N) < 0.4, 0.0, R.exponential(size=N)),
    "two": R.integers(0, 2, N).astype(np.uint8),
}


def made(values, **options):
    series = pd.Series(values, name="v")
    return column_of(series, np.arange(len(series)), **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_level_within_a_value_comes_back_as_that_value(shape):
    """At any place of a value's interval of levels; a real number to rounding of the interpolation."""
    values = SHAPES[shape]
    column = made(values)
    low, high = column.levels(pd.Series(values))
    for u in (0.02, 0.5, 0.98):
        back = column.series(column.at(low + u * (high - low)))
        assert back.dtype == values.dtype
        if column.decimals is None:
            assert np.allclose(back, values, rtol=1e-9, atol=1e-12)
        else:
            assert (back.to_numpy() == values).all()
    assert len(column.knots) <= 3 * 256
    assert column.range == (values.min(), values.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_levels_of_the_training_rows_are_uniform(shape):
    """Up to the thinning of knots: between two kept ones at most 1/256 of the normal scores' range has its mass moved,
    which is below 0.0138 of the rows (the range is 2 x 4.06 wide, the density at most 0.4); the rest is the sampling
    of u, whose Kolmogorov-Smirnov distance exceeds 1.95 / sqrt(N) once in a thousand times."""
    column = made(SHAPES[shape])
    low, high = column.levels(pd.Series(SHAPES[shape]))
    u = np.sort(low + np.random.default_rng(0).random(N) * (high - low))
    assert u[0] > 0
    assert u[-1] < 1
    assert np.abs(u - (np.arange(N) + 0.5) / N).max() < 1.95 / np.sqrt(N) + 0.0138


def test_small_columns_keep_their_whole_law():
    column = made([3, 1, 1, 2, 9])
    assert column.knots == (0.5, 1.5, 2.5, 3.5, 8.5, 9.5)
    assert column.counts == (0, 2, 3, 4, 4, 5)
    low, high = column.levels(pd.Series([1, 2, 3, 9, 5, np.nan]))
    assert np.allclose(low[:5] * 6 - 0.5, [0, 2, 3, 4, 4])
    assert np.allclose(high[:5] * 6 - 0.5, [2, 3, 4, 5, 4])
    assert np.isnan(low[5])
    assert np.isnan(high[5])
    assert list(column.at((np.array([-9, 0.5, 1.9, 2.5, 3.5, 4.5, 99]) + 0.5) / 6)) == [1, 1, 1, 2, 3, 9, 9]


def test_a_real_column_uses_mid_ranks_and_atoms_own_intervals():
    column = made([0.123456789, 0.5, 0.5, 0.777777777])
    low, high = column.levels(pd.Series([0.123456789, 0.5, 0.777777777]))
    assert np.allclose(low * 5, [1, 1.5, 4])
    assert np.allclose(high * 5, [1, 3.5, 4])
    assert column.at(np.array([2.0, 3.0]) / 5).tolist() == [0.5, 0.5]


def test_categories_keep_their_values_and_shares():
    series = pd.Series(["b", "a", None, "a"], name="v")
    column = column_of(series, np.arange(4))
    assert column == Category("v", str(series.dtype), ("a", "b"), (2, 1))
    assert column.codes(series).tolist() == [1, 0, -1, 0]
    low, high = column.levels(series)
    assert np.allclose(low[[0, 1, 3]], [2 / 3, 0, 0])
    assert np.allclose(high[[0, 1, 3]], [1, 2 / 3, 2 / 3])
    assert np.isnan(low[2])
    assert column.at(np.array([0.0, 0.6, 0.7, 1.0])).tolist() == ["a", "a", "b", "b"]
    with pytest.raises(ValueError, match="unknown value of the column 'v' 'c'"):
        column.codes(["c"])


def test_truth_values_pandas_categories_and_codes():
    assert made([True, False, True]) == Category("v", "bool", (False, True), (1, 2))
    assert made([True, False]).read(pd.Series(["true", "False", None], dtype=object)).tolist() == [True, False, None]
    levels = pd.Categorical(["lo", "hi", "lo"], categories=["lo", "mid", "hi"], ordered=True)
    column = made(levels)
    assert column.values == ("lo", "hi")
    assert column.ordered
    assert column.series(column.named(np.array([1, 0]))).cat.ordered
    codes = made([3, 5, 3], category=True)
    assert codes == Category("v", "int64", (3, 5), (2, 1))
    assert codes.series(codes.named(np.array([1, 0]))).tolist() == [5, 3]
    assert codes.read(pd.Series(["5"])).tolist() == [5]


def test_one_value_is_a_constant_even_with_gaps():
    column = made(["USD", None, "USD"])
    assert isinstance(column, Constant)
    assert column.width == 0
    assert column.at(np.zeros(2)).tolist() == ["USD", "USD"]
    with pytest.raises(ValueError, match="held nothing but 'USD'"):
        column.read(pd.Series(["EUR"]))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_column_survives_a_recipe(shape):
    column = made(SHAPES[shape])
    assert from_plain(json.loads(json.dumps(to_plain(column)))) == column


def test_the_law_is_that_of_the_training_rows():
    column = column_of(pd.Series([1, 2, 3, 50], name="v"), np.array([0, 1, 2]))
    assert column.range == (1, 3)
    low, high = column.levels(pd.Series([50]))
    assert low == high == 3.5 / 4


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([np.nan, np.nan], "'v' holds no values"),
        ([1.0, np.inf, 2.0], "'v' holds 1 infinite"),
        (["1", "2", "n/a", "4"], r"'v' mixes numbers and text \(row 3 holds 'n/a'\)"),
        ([f"name {i}" for i in range(60)], "text column 'v' has 60 distinct values"),
        (pd.to_datetime(["2020-01-01", "2021-01-01"]), "'v' holds Timestamp values"),
        ([2**60, 1], "'v' holds integers beyond 2"),
    ],
)
def test_what_cannot_be_a_column_is_refused_by_name(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(values)


def test_many_texts_are_categories_when_asked():
    assert made([f"name {i}" for i in range(60)], category=True).width == 60
    assert made(["1", "2", "n/a"], category=True).values == ("1", "2", "n/a")


@pytest.mark.parametrize(("value", "sentence"), [("much", "takes numbers, got 'much'"), ("2.5", r"numbers, got 2\.5")])
def test_numbers_are_read_or_refused(value, sentence):
    column = made([1, 2, 3])
    assert column.read(pd.Series(["2", None])).tolist()[0] == 2
    with pytest.raises(ValueError, match=sentence):
        column.read(pd.Series([value]))


@pytest.mark.parametrize(
    ("dtype", "value", "sentence"),
    [
        ("uint8", "300", "'v' takes uint8 numbers from 0 to 255, got 300"),
        ("uint8", "-1", "'v' takes uint8 numbers from 0 to 255, got -1"),
        ("int64", "1e30", "takes int64 numbers .* got 1e\\+30"),
        ("Int64", 2**53 + 1, "takes Int64 numbers .* got 9.0072e\\+15"),  # float64 has it as 2^53
        ("float32", "1e39", "takes float32 numbers .* got 1e\\+39"),
        ("float64", "inf", "takes finite numbers, got inf"),
        ("int64", -np.inf, "takes finite numbers, got -inf"),
    ],
)
def test_numbers_that_the_type_cannot_hold_are_refused(dtype, value, sentence):
    column = made(pd.array([1, 2, 3], dtype=dtype))
    with pytest.raises(ValueError, match=sentence):
        column.read(pd.Series([value], dtype=object))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "UInt16", "int64", "float32", "Float64"])
def test_the_ends_of_a_type_are_read_and_come_back(dtype):
    ends = [0, 255] if dtype == "uint8" else [0, 2**15 - 1] if "16" in dtype else [1 - 2**24, 2**24 - 1]
    column = made(pd.array([1, 2, 3], dtype=dtype))
    assert column.series(column.read(pd.Series(ends))).tolist() == ends


def test_a_constant_is_read_as_a_number_too():
    column = made([7, 7])
    assert column.read(pd.Series([7.0, np.nan])).tolist()[0] == 7
    with pytest.raises(ValueError, match="nothing is known of 8"):
        column.read(pd.Series([8.0, np.nan]))


def test_number_is_not_a_category():
    assert isinstance(made([0, 1, 2, 1]), Number)
