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


@pytest.mark.slow
def test_phases_are_measured_and_drawn(tmp_path):
    """Digits in three phases: a table beside the page, the same in the record, and a third panel."""
    page = cli("data", "inspect", "digits", "--phases", "--plot", tmp_path / "phases.png", "--cpu").stdout
    heads, first = (line.split() for line in page[page.index("    level") :].splitlines()[:2])
    assert heads == ["level", "phase", "V_DSM", "+-", "V_STF(256)", "V_STF(1024)", "N_eff", "D"]
    assert first[1] == "1"
    assert "reference of 1024 helps: --objective 'StableTarget(reference=1024)'" in page
    with Image.open(tmp_path / "phases.png") as picture:
        assert picture.height > 1000
    found = json.loads(cli("data", "inspect", "digits", "--phases", "--json", "--cpu").stdout)["phases"]
    assert set(found["phase"]) == {1, 2, 3}
    assert found["items"] == 1617
    assert 0 < found["helps"]["256"] < found["helps"]["1024"] < 1


def test_phases_need_whole_rows(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n" + "".join(f"{i},{i % 3 or ''}\n" for i in range(40)))
    said = cli("data", "inspect", tmp_path / "x.csv", "--phases", "--cpu", check=False)
    assert said.returncode == 1
    assert said.stderr == "Error: phases need data without missing values; fill or remove these first\n"


@pytest.mark.slow
def test_an_objective_by_name(tmp_path):
    """In a recipe, and refused with a sentence where it does not fit."""
    made = cli("train", "digits", "--objective", "StableTarget(reference=64)", "--process", "EDM", "--dry").stdout
    recipe = json.loads(made)["objective"]
    assert recipe["is"].endswith("stable:StableTarget")
    assert recipe["reference"] == 64
    assert recipe["process"]["is"].endswith(":EDM")
    run = ["train", "digits", "--run", tmp_path / "run", "--steps", 2, "--cpu", "--set", "training.batch=32"]
    for name, sentence in (("StableTarget(reference=16)", "smaller than the 32"), ("StableTargets", "did you mean")):
        said = cli(*run, "--objective", name, check=False)
        assert said.returncode == 1
        assert sentence in said.stderr
        assert "Traceback" not in said.stderr
    assert not (tmp_path / "run" / "recipe.json").exists()


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
