"""`driftfield latent`, and PFGM from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from driftfield.cli.build import asked_recipe
from driftfield.data.toys import EightGaussians
from driftfield.objective.matching import Matching
from driftfield.objective.poisson import PoissonField
from driftfield.process.poisson import PFGM
from driftfield.recipe import Recipe
from driftfield.report.latents import latents
from driftfield.train.fit import fit
from driftfield.train.load import load

from .test_cli import cli, error

MLP = ["network.width=16", "network.depth=1", "training.batch=16", "training.snapshots=0"]


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A run of PFGM on points in the plane, a few steps long: its field is that of Cauchy data, nearly."""
    folder = tmp_path_factory.mktemp("points")
    given = [*MLP, "objective=PoissonField", "objective.reference=64"]
    fit(EightGaussians(), steps=3, folder=folder, settings=given, device="cpu", progress=False)
    return folder


def test_a_run_of_pfgm_is_whole(points):
    """Resolved from the data, kept with the weights, and drawn from."""
    process, denoiser, recipe = load(points)
    assert type(denoiser).__name__ == "FieldNetwork"
    assert recipe.objective.gamma == denoiser.gamma
    assert recipe.objective.process == process == denoiser.process
    assert process.span[1] == pytest.approx((2 / np.pi) ** 0.5 * recipe.objective.sigma * 1.03**recipe.objective.M)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.sample(denoiser, 5).isfinite().all()


def test_latents_are_drawn(points, tmp_path):
    loose = {"rtol": 1e-4, "atol": 1e-4}
    made = latents(points, n=3, between=5, out=tmp_path / "a", **loose)
    kept = np.load(tmp_path / "a.npz")
    assert kept["drawn"].shape == (3, 5, 2)
    assert kept["latents"].shape == (6, 2)
    np.testing.assert_allclose(kept["drawn"][:, 0], kept["items"][0::2], atol=0.02)
    np.testing.assert_allclose(kept["drawn"][:, -1], kept["items"][1::2], atol=0.02)
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert made["round_trip_max"] < 0.02
    latents(points, n=3, temperatures=[0.5, 1.0], out=tmp_path / "b.npz", **loose)
    kept = np.load(tmp_path / "b.npz")
    np.testing.assert_allclose(kept["drawn"][:, 1], kept["items"], atol=0.02)


def test_the_command(points, tmp_path):
    out = cli("latent", points, "-n", 2, "--out", tmp_path / "c", "--rtol", 1e-3, "--atol", 1e-3, "--json")
    record = json.loads(out.stdout)
    assert len(record["files"]) == 2
    made = latents(points, n=1, rtol=1e-2, atol=1e-2, out=tmp_path / "lat0.5")
    assert made["files"] == [str(tmp_path / name) for name in ("lat0.5.npz", "lat0.5.png")]
    with pytest.raises(FileExistsError, match=r"lat0\.5\.npz is already there"):
        latents(points, n=1, out=tmp_path / "lat0.5.png")
    assert "already there" in error("latent", points, "-n", 2, "--out", tmp_path / "c")


def test_what_cannot_be_drawn_is_refused(points, tmp_path):
    out = tmp_path / "d"
    with pytest.raises(ValueError, match="not both"):
        latents(points, between=4, temperatures=[1.0], out=out)
    with pytest.raises(ValueError, match="finite numbers > 0"):
        latents(points, temperatures=[0.0, 1.0], out=out)
    with pytest.raises(ValueError, match="ask for fewer rows"):
        latents(points, between=4, n=3000, out=out)
    with pytest.raises(ValueError, match="two points"):
        latents(points, between=1, out=out)
    with pytest.raises(ValueError, match="unknown split"):
        latents(points, split="test", out=out)
    assert not list(tmp_path.iterdir())


def asked(recipe: str, objective: str | None = None, process: str | None = None) -> Recipe:
    """The recipe that `driftfield train RECIPE --objective ... --process ...` trains."""
    return asked_recipe(recipe, None, None, objective, process, None, None, None, ())[0]


def test_what_is_proposed_is_told_where_it_is_kept(tmp_path):
    """PoissonField has its own times and process; options given win; all else is the proposal's."""
    told = lambda *options: asked_recipe("eight-gaussians", None, None, *options, (), tmp_path)
    whole, _, _, proposal = told(None, None, None, None, None, ())
    assert proposal.kept(whole) == proposal.values()
    field, _, _, proposal = told("PoissonField", None, None, 3, None, ["training.batch=64"])
    assert list(proposal.kept(field)) == ["sigma_data", "network"]
    straight, _, _, proposal = told(None, "EDM", None, None, None, ["network.depth=2"])
    assert list(proposal.kept(straight)) == ["sigma_data", "span", "times", "batch"]


def test_pfgm_is_asked_for():
    """As a recipe, or for any data by its objective; beside it, PFGM++ at D = 1 by its perturbation kernel."""
    wide = asked("digits", "PoissonField(reference=512)").objective
    assert type(asked("pfgm").objective) is type(wide) is PoissonField
    assert wide.reference == 512
    kernel = asked("digits", process="PFGM").objective
    assert (type(kernel), kernel.process) == (Matching, wide.process)
    proposed = asked("eight-gaussians", "PoissonField", "PFGM").objective
    assert proposed.process == PFGM()  # the objective's own rule sets the span, not the proposal
    with pytest.raises(ValueError, match="PFGM"):
        asked("digits", "PoissonField", "EDM")
    with pytest.raises(ValueError, match="has no field 'gama'"):
        asked("digits", "PoissonField(gama=1)")
