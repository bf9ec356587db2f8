"""`driftfield data inspect` as a user meets it."""

from __future__ import annotations

import json
import signal
import sys
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from driftfield.cli import main

from .test_cli import cli, started


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=5 + 3 * rng.normal(size=(200, 3)), y=np.arange(200) % 2, other=np.zeros(3))
    return path


@pytest.mark.slow
def test_a_page_and_a_record(table, tmp_path):
    page = cli("data", "inspect", table, "--plot", "scales.svg", cwd=tmp_path).stdout
    for said in ("180 to train on, 20 held out", "Proposed for 5 minutes", "sigma_data", "driftfield train --data"):
        assert said in page
    assert (tmp_path / "scales.svg").read_text().startswith("<?xml")
    record = json.loads(cli("data", "inspect", table, "--minutes", 1, "--set", "data.held=0.5", "--json").stdout)
    assert record["facts"]["count"] == 100
    assert record["data"]["held"] == 0.5
    assert record["proposal"]["minutes"] == 1
    assert record["proposal"]["reasons"].keys() >= {"sigma_data", "span", "times", "D", "network", "batch", "steps"}


@pytest.mark.slow
def test_what_inspect_proposes_is_what_train_does(table, tmp_path):
    """And a run goes on with its own, also where threads have come or gone; options given win."""
    record = json.loads(cli("data", "inspect", table, "--json").stdout)["proposal"]
    train = ["train", "--data", table, "--cpu", "--steps", 3, "--run", tmp_path / "run", "--set", "network.depth=2"]
    said = cli(*train, "--process", "EDM").stderr
    assert "Proposed from the data" in said
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["objective"]["times"]["mean"] == record["times"]["mean"]
    assert recipe["training"]["batch"] == record["batch"]
    assert recipe["network"]["options"] == {**record["network"]["options"], "depth": 2}
    assert recipe["objective"]["process"]["is"].endswith(":EDM")
    kept = json.loads((tmp_path / "run" / "proposal.json").read_text())
    assert kept["facts"]["count"] == 180
    assert kept["reasons"] == record["reasons"]
    cli(*train, "--process", "EDM")


def test_a_picture_of_the_scales(tmp_path):
    cli("data", "inspect", "swiss-roll", "--plot", tmp_path / "scales.png")
    with Image.open(tmp_path / "scales.png") as picture:
        assert picture.width > 600
        assert len(picture.getcolors(1 << 24)) > 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["digts"], "did you mean 'digits'"),
        (["nowhere.npy"], "nowhere.npy"),
        (["digits", "--minutes", "0"], "number of minutes above 0"),
        (["digits", "--set", "data.hold=0.2"], "Digits has no field 'hold'"),
        (["digits", "--set", "network.width=3"], "only fields of the data"),
        (["digits", "--plot", "scales.pdf"], ".png or .svg"),
    ],
)
def test_mistakes_get_one_sentence(options, sentence, tmp_path, monkeypatch, capsys):
    """In this process, to be quick: what `main` prints and its exit status are all that a user sees."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["driftfield", "data", "inspect", *options])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.out == ""
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    assert sentence in said.err
    assert list(tmp_path.iterdir()) == []


def test_help_and_usage():
    assert "inspect" in cli("data", "--help").stdout
    assert cli("data", "inspct", check=False).returncode == 2


def test_ctrl_c_leaves_nothing(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((60_000, 28, 28), np.uint8) + np.arange(28, dtype=np.uint8))
    with started("data", "inspect", tmp_path / "x.npy", "--plot", tmp_path / "o.png") as process:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
