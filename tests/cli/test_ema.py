"""`driftfield ema` and `driftfield train --log` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import driftfield as df

SMALL = ["--set", "network.width=8", "--set", "network.attention=()", "--set", "training.batch=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ema") / "digits"


@pytest.fixture
def run(folder, cli) -> Path:
    if not folder.exists():
        status, _, err = cli(
            "train", "digits", "--run", folder, "--steps", 20, "--cpu", "--log", "tensorboard", "--json", *SMALL
        )
        assert status == 0, err
    return folder


def test_training_keeps_snapshots_and_logs_where_it_is_told(run):
    assert len(list((run / "ema").iterdir())) == 16
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_an_average_becomes_a_weights_file_that_other_commands_take(run, cli):
    status, out, _ = cli("ema", run, "--sigma-rel", 0.07)
    assert status == 0
    assert f"driftfield sample {run / 'ema-0.07.safetensors'}" in out
    status, out, _ = cli("ema", run, "--sigma-rel", 0.07, "--step", 10, "--json")
    made = json.loads(out)
    assert made["step"] == 10
    assert made["out"] == str(run / "ema-0.07-step-10.safetensors")
    assert 0 < made["profile_error"] < 0.1
    assert 0 < made["weights_error"] < 0.01
    df.load(made["out"])
    status, out, _ = cli(
        "sample", run / "ema-0.07.safetensors", "-n", 2, "--nfe", 3, "--out", run / "drawn", "--device", "cpu"
    )
    assert status == 0
    assert (run / "drawn" / "grid.png").exists()


def test_a_sweep_marks_the_best_and_agrees_with_the_log(run, cli, tmp_path):
    """The width that training tracked and judged is judged the same here, to the rounding of its snapshots."""
    status, out, _ = cli("ema", run, "--sweep", "0.2, 0.05,0.1", "--device", "cpu", "--plot", tmp_path / "a.svg")
    assert status == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["0.05", "0.1", "0.2"]
    held = {line.split()[0]: float(line.split()[1]) for line in lines[1:4]}
    assert [line.split()[0] for line in lines if line.endswith("best")] == [min(held, key=held.get)]
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert held["0.1"] == pytest.approx(last["by_level"]["held_mean"], rel=1e-4)
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    status, out, _ = cli("ema", run, "--sweep", "0.1,0.2", "--device", "cpu", "--out", tmp_path / "b", "--json")
    record = json.loads(out)
    assert [row["sigma_rel"] for row in record["widths"]] == [0.1, 0.2]
    assert record["best"] == 0.1
    df.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ([], 2, "give one of the two"),
        (["--sigma-rel", 0.1, "--sweep", "0.1"], 2, "give one of the two"),
        (["--sigma-rel", 0.1, "--plot", "a.png"], 2, "give them with --sweep"),
        (["--sweep", "0.1,wide"], 2, "'wide' is not a number"),
        (["--sweep", ","], 1, "one width or more"),
        (["--sweep", "0.1", "--plot", "a.gif"], 1, ".png or .svg"),
        (["--sigma-rel", 0.4], 1, "above 0 and at most 0.2887"),
        (["--sigma-rel", 1e-3], 1, "they reach from"),
        (["--sigma-rel", 0.1, "--step", 16], 1, "the nearest are at"),
        (["--sigma-rel", 0.1, "--out", "log.jsonl"], 1, "is there already"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, cli, monkeypatch, options, status, said):
    monkeypatch.chdir(run)
    before = sorted(run.rglob("*"))
    found, out, err = cli("ema", run, *options)
    assert (found, out) == (status, "")
    assert said in " ".join(err.replace("│", " ").split())
    assert err.count("Error:") == 1
    assert sorted(run.rglob("*")) == before


def test_a_run_without_snapshots_and_an_unknown_tracker(cli, tmp_path):
    status, _, err = cli("ema", tmp_path, "--sigma-rel", 0.1)
    assert status == 1
    assert "holds no snapshots" in err
    status, _, err = cli("train", "digits", "--run", tmp_path / "new", "--steps", 2, "--cpu", "--log", "tensorbord")
    assert status == 1
    assert "did you mean 'tensorboard'?" in err
    assert not (tmp_path / "new").exists()
