"""`driftfield nll`: what one process finds, what several find, units, and one sentence for every mistake."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import driftfield as df
from driftfield.data.base import Info
from driftfield.report.nll import _in_units, nll
from driftfield.train.load import load, store

from ..cli.test_cli import cli, error
from ..workers import together
from .common import MLP, trained, untrained, vectors


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    """A run of vectors of 5 numbers."""
    folder = tmp_path_factory.mktemp("nll")
    return trained(vectors(folder), folder / "run", MLP)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A network that has learned nothing."""
    return untrained(tmp_path_factory.mktemp("nll"))


def test_what_is_taken_is_the_mean_of_the_densities(points):
    """In the user's units: every number is `scale` times the model's, so each costs `log scale` more."""
    found = nll(points, n=4, split="train", seed=2)
    process, denoiser, recipe = load(points)
    x, _ = recipe.data.load().train()
    by_hand = df.log_prob(process, denoiser, x, batch=20)
    all_of_it = nll(points, n=len(x), split="train")
    wanted = -by_hand.mean() + 5 * math.log(recipe.info.scale)
    assert all_of_it.values["nll"] == pytest.approx(wanted.item(), abs=1e-4)
    spread = by_hand.std().item() / math.sqrt(len(x))
    assert all_of_it.errors["nll"] == pytest.approx(spread, rel=1e-3)
    assert found.record["n"] == 4
    assert found.record["units"] == "the user's"
    assert found.record["divergence"] == "exact"
    assert "bits_per_dim" not in found.values


def test_images_have_bits_and_classes(images):
    found = nll(images, n=12, probes=3, noise="gaussian", rtol=1e-3, atol=1e-3, per_class=True)
    assert found.values["bits_per_dim"] == pytest.approx(found.values["nll"] / (64 * math.log(2)))
    assert 0 < found.record["probe_error"] < found.errors["nll"]
    assert found.record["probes"] == 3
    names = [k for k in found.values if k.startswith("nll[")]
    assert 1 < len(names) <= 10
    walked = nll(images, n=12, grid="geometric", nfe=80)
    assert walked.record["nfe"] == 76  # 19 steps of RK4; the step to 0 is left out
    assert "rtol" not in walked.record


def test_units():
    nats = torch.tensor([-10.0])
    assert _in_units(nats, Info("image", (1, 2, 2), scale=127.5)).item() == pytest.approx(-10 - 4 * math.log(127.5))
    assert _in_units(nats, Info("array", (3,), scale=2.0)).item() == pytest.approx(-10 - 3 * math.log(2))
    assert _in_units(nats, Info("table", (3,), scale=2.0)).item() == -10


def taken(run):
    """What `driftfield nll` finds."""
    return nll(run, n=9, batch=3, probes=2, rtol=1e-3, atol=1e-3, device="cpu").as_dict()


@pytest.mark.slow
def test_several_processes_find_what_one_does(images):
    alone = taken(images)
    for found in together(taken, images):
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            assert found[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


@pytest.mark.slow
def test_half_precision_is_left_out(images, tmp_path):
    """A run trained in bfloat16 is judged in float32: rounding would stop an adaptive path."""
    _, denoiser, recipe = load(images)
    store(
        tmp_path / "half.safetensors",
        denoiser,
        replace(recipe, training=replace(recipe.training, precision="bfloat16")),
    )
    ask = {"n": 3, "rtol": 1e-3, "atol": 1e-3}
    assert nll(tmp_path / "half.safetensors", **ask).values == nll(images, **ask).values


@pytest.mark.slow
def test_the_command(points):
    found = json.loads(cli("nll", points, "-n", 3, "--rtol", "1e-3", "--atol", "1e-3", "--json").stdout)
    assert found["n"] == 3
    assert np.isfinite(found["nll"])
    assert found["nll_error"] > 0
    assert "leave out --exact or --probes" in error("nll", points, "--exact", "--probes", "2")


def test_mistakes_earn_a_sentence(points):
    for asked, message in (
        ({"split": "test"}, "unknown split 'test'; known: held-out, train"),
        ({"probes": 0}, "must be at least 1, got 0"),
        ({"per_class": True}, "this run has no classes"),
        ({"n": 1}, "at least 2 items"),
        ({"nfe": 20}, "20 evaluations do not reach"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"noise": "uniform"}, "unknown noise 'uniform'"),
    ):
        with pytest.raises(ValueError, match=message):
            nll(points, **asked)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        nll(points / "nowhere")
