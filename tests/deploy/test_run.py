"""From a run to a file by the command line, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from driftfield.data.digits import Digits
from driftfield.data.memory import InMemory
from driftfield.deploy.export import load_exported
from driftfield.deploy.run import export_run
from driftfield.generation import generate
from driftfield.train.load import load, store
from tests.train.common import TINY

from .common import stirred

pytest.importorskip("torchao")
pytest.importorskip("onnxruntime")


@pytest.fixture
def run(tmp_path):
    """A folder with weights that nobody trained."""
    recipe = TINY.resolved(Digits().load().info)
    recipe = replace(recipe, objective=replace(recipe.objective, augment=None))
    store(tmp_path / "r" / "model.safetensors", stirred(recipe), recipe, step=1)
    return tmp_path / "r"


def test_wrong_arguments_cost_nothing(run):
    for words, error, sentence in (
        ({"to": "onx"}, ValueError, "unknown format 'onx'; did you mean 'onnx'"),
        ({"to": "onnx", "quantize": "int3"}, ValueError, "unknown kind of weights 'int3'; did you mean 'int"),
        ({"to": "onnx", "out": run / "m.pt2"}, ValueError, r"exported to onnx ends in \.onnx, got .*m\.pt2"),
        ({"to": "torch", "opset": 18}, ValueError, "opset is a version of ONNX"),
    ):
        with pytest.raises(error, match=sentence):
            export_run(run, **words)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*; train first"):
        export_run(run.parent, "onnx")
    (run / "model.onnx").write_text("mine")
    with pytest.raises(FileExistsError, match=r"model\.onnx is already there; .*--force"):
        export_run(run, "onnx")
    assert (run / "model.onnx").read_text() == "mine"
    assert {p.name for p in run.iterdir()} == {"model.safetensors", "model.onnx"}


def test_the_cost_of_quantisation_is_measured(run):
    """The losses are of the run's own held-out data; where those are gone, the sentence says so."""
    made, cost = export_run(run, "torch", quantize="int8")
    assert made.path == run / "model-int8.pt2"
    assert cost.after.total < 0.4 * cost.before.total
    assert cost.losses[0] == pytest.approx(cost.losses[1], rel=0.1)
    assert cost.losses[0] != cost.losses[1]
    process, program, recipe = load_exported(made.path)
    assert generate(process, program, (2, *recipe.info.shape), nfe=3).isfinite().all()
    _, denoiser, recipe = load(run)
    gone = replace(recipe, data=InMemory((10, 8, 8), "uint8", "0" * 64))
    store(run / "model.safetensors", denoiser, gone, step=1)
    _, cost = export_run(run, "torch", quantize="int8", force=True)
    assert cost.losses is None
    assert "was in memory and was not saved with it" in cost.missing


@pytest.mark.slow
def test_by_the_command_line(run):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def cli(*words):
        return subprocess.run(
            [sys.executable, "-m", "driftfield", "export", *words], env=env, capture_output=True, text=True
        )

    done = cli(str(run), "--to", "onnx", "--quantize", "int4", "--batch", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads(done.stdout)
    assert record["path"] == str(run / "model-int4.onnx")
    assert record["inputs"] == ["x", "t", "label"]
    assert record["error"] < 1e-5
    assert record["quantized"]["after"]["layers"] < record["quantized"]["before"]["layers"] / 5
    assert {p.name for p in run.iterdir()} == {"model.safetensors", "model-int4.onnx"}
    again = cli(str(run), "--to", "onnx", "--quantize", "int4")
    assert again.returncode == 1
    assert again.stderr.startswith("Error: ")
    assert again.stderr.count("\n") == 1
    assert cli(str(run)).returncode == 2
