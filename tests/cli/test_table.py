"""A table on the command line: learned, drawn in its own columns, conditioned, filled and scored."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from driftfield.report.draw import draw
from driftfield.report.score import score
from driftfield.train.fit import fit
from driftfield.train.load import load

from .test_cli import cli, error

SMALL = ["network.width=16", "network.depth=1", "training.batch=32", "data.label=cut"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A Parquet file of 300 rows, some cells missing, and a run that has seen it for a few steps."""
    folder = tmp_path_factory.mktemp("table")
    r = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "carat": np.round(np.exp(r.normal(size=300)), 2),
            "cut": pd.Categorical(r.choice(["Fair", "Good", "Ideal"], 300), ["Fair", "Good", "Ideal"], ordered=True),
            "price": r.integers(300, 9000, 300).astype(np.int32),
            "new": r.random(300) < 0.5,
        }
    )
    frame.loc[r.random(300) < 0.1, "carat"] = None
    frame.to_parquet(folder / "t.parquet")
    run = fit(folder / "t.parquet", steps=4, folder=folder / "run", settings=SMALL, progress=False)
    return folder, frame, run


@pytest.mark.slow
def test_the_main_job_by_the_command_line(tmp_path, table):
    folder, frame, _ = table
    options = [part for setting in SMALL for part in ("--set", setting)]
    cli("train", "--data", folder / "t.parquet", "--run", tmp_path / "run", "--steps", 3, *options)
    given = ["--given", "cut=Ideal, carat=1.0", "--given", "new=true"]
    out = json.loads(cli("sample", tmp_path / "run", "-n", 6, "--nfe", 5, *given, "--json").stdout)
    assert out["files"] == ["samples.csv", "samples.parquet"]
    rows = pd.read_parquet(tmp_path / "run" / "samples-0" / "samples.parquet")
    assert rows.dtypes.equals(frame.dtypes)
    assert (rows["carat"] == 1).all()
    assert (rows["cut"] == "Ideal").all()
    assert rows["new"].all()
    scores = json.loads(cli("evaluate", tmp_path / "run", "-n", 60, "--nfe", 5, "--json").stdout)
    assert 0.4 < scores["auc"] <= 1
    assert scores["auc_error"] > 0
    assert {"marginal", "pairs", "nearest", "copies"} <= set(scores)
    message = error("sample", tmp_path / "run", "--given", "cut=Idael", "--out", tmp_path / "none")
    assert "did you mean 'Ideal'" in message
    assert not (tmp_path / "none").exists()


def test_labels_are_values_of_their_column(tmp_path, table):
    folder, _, _ = table
    draw(folder / "run", n=5, cond="Fair,Ideal", nfe=5, out=tmp_path / "s")
    assert pd.read_csv(tmp_path / "s" / "samples.csv")["cut"].tolist() == ["Fair", "Ideal", "Fair", "Ideal", "Fair"]


def test_a_file_is_filled(tmp_path, table):
    """Every cell that was there stays; every draw of a row is its own; the same seed draws the same."""
    folder, frame, _ = table
    rows = frame.head(30).assign(id=range(30))
    rows.to_parquet(tmp_path / "gaps.parquet")
    for name in ("a", "b"):
        draw(folder / "run", impute=tmp_path / "gaps.parquet", draws=2, nfe=5, out=tmp_path / name)
    done, again = (pd.read_parquet(tmp_path / name / "samples.parquet") for name in ("a", "b"))
    pd.testing.assert_frame_equal(done, again)
    assert done.notna().all().all()
    assert done.dtypes.equals(rows.dtypes)
    twice = rows.loc[rows.index.repeat(2)].reset_index(drop=True)
    for name in rows:
        there = twice[name].notna()
        assert (done[name][there] == twice[name][there]).all()
    gaps = done[twice["carat"].isna()]
    assert len(gaps)
    assert (gaps["carat"].to_numpy()[::2] != gaps["carat"].to_numpy()[1::2]).any()
    assert json.loads((tmp_path / "a" / "record.json").read_text())["draws"] == 2


def test_python_says_the_same(table, tmp_path):
    folder, frame, run = table
    rows = run.sample(5, given={"cut": "Good", "price": [400, 500, 600, 700, 800]}, nfe=5)
    assert rows["cut"].tolist() == ["Good"] * 5
    assert rows["price"].tolist() == [400, 500, 600, 700, 800]
    done = run.impute(frame.head(30), nfe=5)
    draw(folder / "run", impute=_saved(frame.head(30), tmp_path), nfe=5, out=tmp_path / "s")
    pd.testing.assert_frame_equal(done, pd.read_parquet(tmp_path / "s" / "samples.parquet"))
    assert run.sample(3, nfe=5).dtypes.equals(frame.dtypes)


def _saved(frame: pd.DataFrame, folder):
    frame.to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def test_samples_do_not_depend_on_the_batch(table):
    """Rows with conditions of their own, drawn in batches of 3 and at once: the contract of DESIGN, 1e-4."""
    folder, _, _ = table
    _, denoiser, recipe = load(folder / "run")
    cond = recipe.info.known({"price": list(range(400, 1100, 100)), "cut": "Good"}, 7)
    a, b = (recipe.sample(denoiser, 7, nfe=5, cond=cond, batch=batch) for batch in (3, 7))
    assert (a - b).abs().max() < 1e-4


def test_samples_drawn_before_are_scored(tmp_path, table):
    folder, _, _ = table
    draw(folder / "run", n=50, nfe=5, seed=3, out=tmp_path / "s")
    for place in (tmp_path / "s", tmp_path / "s" / "samples.csv"):
        scores, spent = score(folder / "run", samples=place)
        assert spent == 5
        assert scores.record["sample_seed"] == 3
        assert scores.record["n"] == 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"given": ["cutt=Ideal"]}, "did you mean 'cut'"),
        ({"given": ["carat"]}, "reads column=value"),
        ({"given": ["carat=much"]}, "takes numbers, got 'much'"),
        ({"given": ["price=3.5"]}, "takes whole numbers"),
        ({"cond": "Great"}, "unknown value"),
        ({"cond": "Fair", "given": ["carat=1"]}, "give one of --cond and --given"),
        ({"draws": 3}, "goes with --impute"),
        ({"start": "x.npy", "level": 1.0}, "no sample to start from"),
    ],
)
def test_mistakes_earn_one_sentence_and_leave_nothing(tmp_path, table, options, sentence):
    folder, _, _ = table
    with pytest.raises(ValueError, match=sentence):
        draw(folder / "run", n=2, nfe=5, out=tmp_path / "s", **options)
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_reveal_takes_no_given_values(tmp_path, table):
    """By PoissonField, or StableTarget on complete rows: the network is not told, and what is given is refused."""
    frame = table[1].dropna()
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.head(4).assign(price=None).to_csv(tmp_path / "gaps.csv", index=False)
    for objective in ("PoissonField(reference=64)", "StableTarget(reference=64,reveal=none)"):
        folder = tmp_path / objective[:4]
        settings = [*SMALL, f"objective={objective}"]
        run = fit(tmp_path / "x.csv", steps=2, folder=folder, settings=settings, device="cpu", progress=False)
        assert not run.denoiser.network.known
        assert len(run.sample(3, nfe=3)) == 3
        sentence = f"learned by {type(run.recipe.objective).__name__} without a reveal"
        for options in ({"impute": tmp_path / "gaps.csv"}, {"given": ["price=500"]}, {"cond": "Fair"}):
            with pytest.raises(ValueError, match=sentence):
                draw(folder, n=2, nfe=3, out=tmp_path / "s", **options)
        with pytest.raises(ValueError, match=sentence):
            run.impute(pd.read_csv(tmp_path / "gaps.csv"), nfe=3)
        with pytest.raises(ValueError, match=sentence):
            run.sample(2, given={"price": 500}, nfe=3)
    assert not (tmp_path / "s").exists()


def test_only_tables_take_given_values(tmp_path):
    """A run of arrays refuses them with one sentence."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    settings = [s for s in SMALL if not s.startswith("data.")]
    fit(tmp_path / "x.npy", steps=2, folder=tmp_path / "run", settings=settings, progress=False)
    with pytest.raises(ValueError, match="values can be given for the columns of a table"):
        draw(tmp_path / "run", n=2, nfe=5, given=["a=1"], out=tmp_path / "s")
