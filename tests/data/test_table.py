"""Tables: rows come back as the user has them, missing cells are marked, and each bad file earns one sentence."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from driftfield.data.given import given_label, given_values, rows_to_fill
from driftfield.data.recognise import recognise
from driftfield.data.table import Table, read_table
from driftfield.plain import from_plain, to_plain
from driftfield.rng import seeded

N = 400


def frame(missing: float = 0.0) -> pd.DataFrame:
    r = np.random.default_rng(1)
    made = pd.DataFrame(
        {
            "carat": np.round(np.exp(r.normal(size=N)), 2),
            "cut": r.choice(["Ideal", "Good", "Fair"], N),
            "price": r.integers(300, 9000, N),
            "new": r.random(N) < 0.3,
            "weight, net": r.normal(size=N),
        }
    )
    if missing:
        for name in ("carat", "cut", "weight, net"):
            made.loc[r.random(N) < missing, name] = None
    return made


def write(made: pd.DataFrame, folder, suffix=".csv"):
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        made.to_parquet(path)
    else:
        made.to_csv(path, index=False, sep="\t" if ".tsv" in suffix else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet"])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_rows_come_back_as_they_were(tmp_path, suffix, missing):
    """Every value, dtype and name, in order; real numbers to the rounding of float32 scores."""
    path = write(frame(missing), tmp_path, suffix)
    source = recognise(path).load()
    rows = source.rows("train").reset_index(drop=True)
    assert rows.dtypes.equals(read_table(path).dtypes)
    x = source.info.to_model(rows)
    assert x.shape == (N - N // 10, source.info.shape[0])
    whole = x.isfinite().all(1)
    back = source.info.to_user(x[whole])
    expected = rows[whole.numpy()].reset_index(drop=True)
    assert back.dtypes.equals(rows.dtypes)
    exact = ["carat", "cut", "price", "new"]
    pd.testing.assert_frame_equal(back[exact], expected[exact])
    assert np.allclose(back["weight, net"], expected["weight, net"], atol=1e-5)
    assert list(back.columns) == list(rows.columns)


def test_what_a_model_sees(tmp_path):
    """One score for a number, a coordinate for each category, missing cells NaN as a whole; splits that stay."""
    source = Table(str(write(frame(0.1), tmp_path))).load()
    info = source.info
    assert info.kind == "table"
    assert info.widths == (1, 3, 1, 2, 1)
    assert info.shape == (8,)
    assert info.count == 360
    assert info.incomplete
    x, _ = source.train()
    rows = source.rows("train")
    assert (x[:, 0].isnan().numpy() == rows["carat"].isna().to_numpy()).all()
    assert (x[:, 1:4].isnan().all(1).numpy() == rows["cut"].isna().to_numpy()).all()
    assert x[:, 1:4].nansum() == pytest.approx(0, abs=1e-3)  # one-hot coordinates are centred
    assert x.std(0)[4] == pytest.approx(1, abs=0.05)
    assert info.std == pytest.approx(float(x[x.isfinite()].double().std(correction=0)), rel=1e-6)
    assert torch.equal(torch.where(x.isnan(), 9, x), torch.where(x.isnan(), 9, source.train()[0]))
    assert len(source.held()[0]) == len(source.rows("held-out")) == 40


def test_draws_dequantise_afresh_within_a_value(tmp_path):
    source = Table(str(write(frame(), tmp_path))).load()
    a, b = source.draw(4000, seeded(0))[0], source.draw(4000, seeded(0))[0]
    assert torch.equal(a, b)
    c = source.draw(4000, seeded(1))[0]
    assert len(torch.unique(torch.cat((a, c))[:, 4])) > 5000  # of 360 prices
    assert a.dtype == torch.float32
    assert set(source.info.to_user(c)["price"]) <= set(source.rows("train")["price"])


def test_information_survives_a_recipe(tmp_path):
    info = Table(str(write(frame(0.1), tmp_path)), label="cut").load().info
    assert from_plain(json.loads(json.dumps(to_plain(info)))) == info


def test_options_choose_and_type_columns(tmp_path):
    path = str(write(frame(), tmp_path))
    assert [c.name for c in Table(path, drop=("cut", "new")).load().info.columns] == ["carat", "price", "weight, net"]
    assert [c.name for c in Table(path, keep=("price", "cut")).load().info.columns] == ["cut", "price"]
    names = pd.DataFrame({"who": [f"n{i}" for i in range(60)] * 3, "x": range(180)})
    path = str(write(names, tmp_path))
    assert Table(path, categories=("who",)).load().info.widths == (60, 1)
    with pytest.raises(ValueError, match=r"unknown column of .* 'prize'"):
        Table(path, drop=("prize",)).load()
    with pytest.raises(ValueError, match="label=x is a column of numbers"):
        Table(path, categories=("who",), label="x").load()
    with pytest.raises(ValueError, match="no columns left"):
        Table(path, drop=("who", "x")).load()


def test_constants_and_row_numbers_are_left_out_with_a_warning(tmp_path):
    path = tmp_path / "t.csv"
    frame().assign(unit="USD").to_csv(path)  # with the index, which has no name
    with pytest.warns(UserWarning, match=r"restored .* \(unit\)"), pytest.warns(UserWarning, match="counts the"):
        source = Table(str(path)).load()
    assert [c.name for c in source.info.columns] == [*frame().columns, "unit"]
    assert source.info.shape == (8,)
    assert set(source.info.to_user(source.train()[0])["unit"]) == {"USD"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("a,b\n", "has columns but no rows"),
        ("a,b\n1,2\n", "at least 2 items"),
        ("a,b,a\n1,2,3\n3,4,5\n", "more than one column named 'a'"),
        ("a,b\n1,\n2,\n3,\n", "'b' holds no values; leave it out with --set data.drop=b"),
        ("a\n1\n2\nx\n4\n", r"'a' mixes numbers and text \(row 3 holds 'x'\)"),
        ("a\n1\n1\n1\n", "no column that varies"),
        ("a,b\n1,2\n3,4,5,6\n1,2,3\n", "line 3 of .* has 4 fields, separated by ',', but its header has 2"),
        ("a,b\n0,0,0\n1,1,1\n2,4,2\n", "line 2 of .* has 3 fields, separated by ',', but its header has 2"),
        ("a,b\n\n0,0\n1,1\n2,4,2\n", "line 5 of .* has 3 fields"),
        ("a;b\n1,5;2\n2,5;3\n3,5;4\n", "line 2 of .* has 2 fields, separated by ',', but its header has 1"),
        ("a;b\n1,5;2,5\n2,5;3,5\n3,5;4,5\n", "line 2 of .* has 3 fields"),
        ("a\n1\n2\nNA\n4\n", r"'a' mixes numbers and text \(row 3 holds 'NA'\); .* empty cell or NaN"),
        ("a\n" + "\n".join(f"name {i}" for i in range(99)), "text column 'a' has 99 distinct values"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*constant columns")
def test_each_bad_file_earns_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence) as raised:
        Table(str(path)).load()
    assert str(path) in str(raised.value)


def test_damaged_and_absent_files(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        Table(str(path)).load()
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n")[:-9])
    with pytest.raises(ValueError, match="cannot be read as a table"):
        Table(str(path)).load()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_table(tmp_path / "none.csv")


def test_without_pandas_the_extra_is_named(tmp_path, monkeypatch):
    path = write(frame(), tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"driftfield\[table\]"):
        read_table(path)


def test_given_values_are_told_and_come_back_exactly(tmp_path):
    source = Table(str(write(frame(), tmp_path))).load()
    info = source.info
    given = {"cut": "Good", "carat": [1.0, None, 0.37], "new": True}
    cond = info.known(given, 3)
    assert cond.mask.tolist() == [[1, 1, 1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 0, 1, 1, 0]]
    whole = source.rows("train").iloc[:3].assign(cut="Good", new=True, carat=[1.0, 0.5, 0.37])
    assert torch.equal(cond.known, torch.where(cond.mask > 0, info.to_model(whole), 0))
    drawn = info.filled(torch.zeros(3, 8), given)
    assert drawn["cut"].tolist() == ["Good"] * 3
    assert drawn["new"].tolist() == [True] * 3
    assert drawn["carat"].tolist()[::2] == [1.0, 0.37]
    assert drawn.dtypes.equals(source.rows("train").dtypes)
    with pytest.raises(ValueError, match="given 2 values for 3 rows"):
        info.known({"price": [1, 2]}, 3)
    with pytest.raises(ValueError, match="did you mean 'carat'"):
        info.known({"carrat": 1}, 3)
    with pytest.warns(UserWarning, match="carat=99 lies outside the training data"):
        info.known({"carat": 99}, 1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"price": "1e30"}, "'price' takes int64 numbers"),
        ({"carat": "inf"}, "'carat' takes finite numbers, got inf"),
        ({"price": 3.7}, "'price' takes whole numbers, got 3.7"),
    ],
)
def test_given_values_that_a_column_cannot_hold_are_refused_before_sampling(tmp_path, given, sentence):
    info = Table(str(write(frame(), tmp_path))).load().info
    with pytest.raises(ValueError, match=sentence):
        info.known(given, 1)
    # and in a row of a table to fill, whether something is missing there or not
    rows = pd.concat([frame()[:2].astype({"price": object}).assign(**given), frame()[2:3].assign(cut=None)])
    with pytest.raises(ValueError, match=sentence):
        rows_to_fill(rows, info)


def test_given_texts_are_read(tmp_path):
    info = Table(str(write(frame(), tmp_path)), label="cut").load().info
    given = given_values(["cut=Ideal, weight, net=-1.5", "carat=1"], info, 5)
    assert given.values == {"cut": "Ideal", "weight, net": "-1.5", "carat": "1"}
    assert given_label("Fair, Good", info, 3).values == {"cut": ["Fair", "Good", "Fair"]}
    for texts, sentence in [(["cut"], "reads column=value"), (["cut=Fair", "cut=Good"], "given twice"), (["c=1"], "c")]:
        with pytest.raises(ValueError, match=sentence):
            given_values(texts, info, 1)


def test_rows_are_filled_where_cells_are_missing_and_nowhere_else(tmp_path):
    """Other columns stay, whole rows are not drawn, columns that the file lacks are made, dtypes are the user's."""
    source = Table(str(write(frame(), tmp_path))).load()
    info = source.info
    rows = pd.DataFrame(
        {"id": ["p", "q", "r"], "price": [500, np.nan, 700], "cut": ["Fair", None, "Good"], "carat": [1.0, 2.0, np.nan]}
    ).assign(new=[True, False, True])
    given = rows_to_fill(rows.assign(**{"weight, net": 0.25}), info, draws=2)
    assert given.places.tolist() == [2, 3, 4, 5]
    x = info.to_model(source.rows("train").iloc[:4])
    done = given.rows(x, info)
    drawn = info.to_user(x)
    assert done["id"].tolist() == list("ppqqrr")
    assert done["price"].tolist() == [500, 500, *drawn["price"][:2], 700, 700]
    assert done["cut"].tolist() == ["Fair", "Fair", *drawn["cut"][:2], "Good", "Good"]
    assert done["carat"].tolist() == [1, 1, 2, 2, *drawn["carat"][2:]]
    assert done["price"].dtype == "int64"
    given = rows_to_fill(rows[["id", "cut"]], info)
    assert given.n == 3
    assert set(given.rows(x[:3], info).columns) == {"id", *frame().columns}
    with pytest.raises(ValueError, match="no missing cell"):
        rows_to_fill(frame(), info)
    with pytest.raises(ValueError, match="none of the run's columns"):
        rows_to_fill(pd.DataFrame({"id": [1]}), info)


def test_a_separator_at_the_end_of_every_line_shifts_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n0,5,\n1,6,\n2,8,\n")
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"a": [0, 1, 2], "b": [5, 6, 8]}


def test_only_an_empty_cell_of_text_is_missing(tmp_path):
    """What other programs write for a missing value is a category; of numbers NaN and nan are missing too."""
    words = ["None", "NA", "null", "nan", "yes"] * 20
    numbers = [f"{i}.5" for i in range(100)]
    numbers[3], numbers[4], numbers[5] = "NaN", "nan", ""
    rows = [f"{w},{v}" for w, v in zip(["", *words[1:]], numbers, strict=True)]
    (tmp_path / "t.csv").write_text("word,number\n" + "\n".join(rows) + "\n")
    source = Table(str(tmp_path / "t.csv")).load()
    word, number = source.info.columns
    assert set(word.values) == set(words)
    assert sum(word.counts) == len(source.rows("train")["word"].dropna())
    assert number.dtype == "float64"
    assert np.flatnonzero(source.frame["word"].isna()).tolist() == [0]
    assert np.flatnonzero(source.frame["number"].isna()).tolist() == [3, 4, 5]
    assert set(source.info.to_user(source.train()[0].nan_to_num(0.0))["word"].dropna()) <= set(words)


@pytest.mark.parametrize("gap", ["", "nan"])
def test_whole_numbers_with_gaps_stay_whole(tmp_path, gap):
    """In samples and in filled rows, to the character; decimals that happen to be whole stay decimals."""
    counts = [str(i - 49) for i in range(60)]
    counts[7] = counts[11] = gap
    rows = [f"{n},{i % 9}.0,{2**53 + 1 if i else ''}" for i, n in enumerate(counts)]
    (tmp_path / "t.csv").write_text("n,m,id\n" + "\n".join(rows) + "\n")
    source = Table(str(tmp_path / "t.csv"), keep=("n", "m")).load()
    assert [c.dtype for c in source.info.columns] == ["Int64", "float64"]
    drawn = source.info.to_user(torch.zeros(2, 2))
    assert drawn["n"].dtype == "Int64"
    frame = read_table(tmp_path / "t.csv")
    assert frame["id"].tolist()[1:] == [2**53 + 1] * 59  # float64 has 2^53
    given = rows_to_fill(frame, source.info)
    assert given.places.tolist() == [7, 11]
    given.rows(torch.zeros(2, 2), source.info).to_csv(tmp_path / "filled.csv", index=False)
    filled = [line.split(",")[0] for line in (tmp_path / "filled.csv").read_text().splitlines()[1:]]
    assert [v for i, v in enumerate(filled) if i not in (7, 11)] == [v for v in counts if v != gap]
    assert {filled[7], filled[11]} <= set(map(str, range(-49, 11)))


def test_a_parquet_column_of_lists_is_named(tmp_path):
    frame().assign(tags=[[i, i] for i in range(N)]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: the column 'tags' holds ndarray values.*--set data\.drop=tags"):
        Table(str(tmp_path / "t.parquet")).load()
    assert Table(str(tmp_path / "t.parquet"), drop=("tags",)).load().info.shape == (8,)
