"""The studies of robustness: every number is what it says, kept, drawn, and one sentence for every mistake."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

import driftfield as df
from driftfield.deploy.quantize import rounded
from driftfield.recipe import Recipe
from driftfield.report.robustness import robustness
from driftfield.report.score import in_proportion
from driftfield.report.studies import STUDIES, write_figures

from .common import MLP, UNET, trained

N, NFE = 16, 9
STEPS = {"noise": (0.3, 0.0), "steps": (5, NFE), "weights": (1,)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DRIFTFIELD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Fewer evaluations than are published, as they cost time."""
    monkeypatch.setattr("driftfield.report.robustness.NFE", NFE)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("runs")
    return [
        trained("digits", folder / "few", UNET, df.PFGMPP(D=16.0)),
        trained("digits", folder / "edm", UNET, df.EDM()),
    ]


def by_hand(run, solver=None, nfe=NFE, bits=None) -> tuple[float, float]:
    """A cell without the study: samples of the run's own denoiser, drawn and scored as a user would."""
    process, denoiser, recipe = df.load(run)
    denoiser = denoiser if bits is None else rounded(denoiser, bits, recipe.info.shape)
    x, labels = recipe.data.load().train()
    samples = df.generate(
        process,
        denoiser,
        (N, *recipe.info.shape),
        solver=solver or df.Heun(),
        nfe=nfe,
        cond=in_proportion(labels, N, 0),
        seed=0,
    )
    samples = recipe.info.to_model(recipe.info.to_user(samples))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer samples than features
        scores = df.evaluate(samples, x, metrics="frechet", features="digits")
    return scores.values["frechet"], scores.errors["frechet"]


def test_every_cell_is_what_it_says(runs):
    found = robustness(runs, studies=STEPS, n=N)
    noise, steps, weights = found
    assert [one.study.settings for one in found] == [(0.0, 0.3), (NFE, 5), (1.0,)]
    assert [(line.run, line.D) for line in noise.lines] == [("few", 16.0), ("edm", float("inf"))]
    for i, run in enumerate(runs):
        for study, at, expected in (
            (noise, 0, by_hand(run)),
            (noise, 1, by_hand(run, df.Jolted(df.Heun(), 0.3))),
            (steps, 0, by_hand(run)),
            (steps, 1, by_hand(run, nfe=5)),
            (weights, 0, by_hand(run, bits=1)),
        ):
            curve = study.lines[i].curve
            assert (curve.y[at], curve.error[at]) == pytest.approx(expected, rel=1e-9)
        values = [noise.lines[i].curve.y[1], steps.lines[i].curve.y[1], weights.lines[i].curve.y[0]]
        assert all(v != noise.lines[i].curve.y[0] for v in values), "every study changes the samples"
    assert any("fewer rows" in w or "features" in w for w in noise.warnings)


def test_classes_are_drawn_as_often_as_in_the_split(runs, monkeypatch):
    asked = []

    def sample(recipe, denoiser, n, *, cond, **_):
        asked.append(cond)
        return torch.zeros(n, *recipe.info.shape)

    monkeypatch.setattr(Recipe, "sample", sample)
    robustness(runs[:1], studies={"noise": (0.7,)}, n=N, seed=1)
    labels = df.load(runs[0])[2].data.load().train()[1]
    assert torch.equal(asked[0], in_proportion(labels, N, 1))


def test_what_was_measured_is_not_measured_again(runs, monkeypatch):
    before = robustness(runs, studies={"noise": (0.0, 0.3)}, n=N)
    monkeypatch.setattr(Recipe, "sample", lambda *_, **__: pytest.fail("it was measured before"))
    again = robustness(runs, studies={"noise": (0.3, 0.0)}, n=N)
    assert again[0].as_dict() == before[0].as_dict()


def test_torchao_has_cells_where_it_has_scales(runs):
    pytest.importorskip("torchao")
    _, denoiser, recipe = df.load(runs[0])
    found = robustness(runs[:1], studies={"weights": (9, 8, 4)}, n=N)[0]
    line = found.lines[0]
    assert line.torchao.x == (8, 4)
    heads, own, other = found.table()
    assert heads == ["run", "D", "9", "8", "4"]
    assert (own[0], other[0], other[2]) == ("few", "few, torchao", "")
    assert f"{line.torchao.y[1]:.3g} ± " in other[4]
    x, labels = recipe.data.load().train()
    small = df.quantized(denoiser, 4)
    drawn = recipe.sample(small, N, solver="heun", nfe=NFE, cond=in_proportion(labels, N, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = recipe.info.to_model(recipe.info.to_user(drawn))
        expected = df.evaluate(seen, x, metrics="frechet", features="digits", subsets=0).values["frechet"]
    assert line.torchao.y[1] == pytest.approx(expected, rel=1e-9)


def test_processes_without_an_isotropic_noise_are_jolted_too(tmp_path):
    """CLD on points: its noise is a matrix; the study says no D of it. Held-out data are compared with on request.

    Its weights are rounded too, although a state holds twice the numbers of a datum.
    """
    run = trained("rings", tmp_path / "cld", MLP, df.CLD())
    found, weights = robustness([run], studies={"noise": (0.0, 0.4), "weights": (1,)}, n=64, split="held-out")
    assert weights.lines[0].curve.y[0] != found.lines[0].curve.y[0]
    assert found.table()[1][:2] == ["cld", "-"]
    assert found.as_dict()["runs"]["cld"]["D"] is None
    a, b = found.lines[0].curve.y
    assert a != b


def test_the_plots_are_there_and_alike(runs, tmp_path):
    pytest.importorskip("matplotlib")
    found = robustness(runs, studies=STEPS, n=N)
    files = write_figures(found, tmp_path / "a")
    assert [f.name for f in files] == [f"{name}{end}" for name in STEPS for end in (".png", ".svg")]
    again = write_figures(found, tmp_path / "b")
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(files, again, strict=True))
    assert files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert files[1].read_text().startswith("<?xml")


def test_the_command_prints_tables_and_json(runs, cli, tmp_path):
    base = ["robustness", *runs, "--study", "noise", "--study", "steps", "--alphas", "0,0.3", "--nfe", "9,5", "-n", N]
    status, out, err = cli(*base, "--figures", tmp_path / "plots")
    assert status == 0, err
    lines = out.splitlines()
    assert "Noise injected before every step: Fréchet distance ± standard error" in lines
    rows = [line.split() for line in lines if line.startswith(("few", "edm"))]
    assert [row[:2] for row in rows] == [["few", "16"], ["edm", "inf"]] * 2
    assert str(tmp_path / "plots" / "noise.png") in lines
    assert "Warning: " in err
    status, out, _ = cli(*base, "--json")
    record = json.loads(out)
    assert (record["metric"], record["features"], record["n"], record["split"]) == ("frechet", "digits", N, "train")
    found = record["studies"][0]["runs"]
    assert found["edm"]["D"] == "inf"
    assert found["few"]["at"] == [0.0, 0.3]
    assert f"{found['few']['frechet'][1]:.3g}" in rows[0]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--study", "nois"], 1, "unknown study 'nois'; did you mean 'noise'?"),
        (["--alphas", "0,-1"], 1, "alpha is a share of the noise at each step, a finite number >= 0, got -1"),
        (["--alphas", "0,few"], 2, "'few' is not a number"),
        (["--study", "steps", "--bits", "8"], 2, "--bits is of the study weights, which was not asked for"),
        (["--bits", "4.5"], 1, "bits are whole numbers from 1 to 16, got 4.5"),
        (["--bits", "17"], 1, "bits are whole numbers from 1 to 16, got 17"),
        (["--nfe", "0"], 1, "evaluations are counted from 1 up, got 0"),
        (["--nfe", "inf"], 1, "evaluations are counted from 1 up, got inf for the study of steps"),
        (["--nfe", "nan"], 1, "evaluations are counted from 1 up, got nan for the study of steps"),
        (["--bits", "inf"], 1, "bits are whole numbers from 1 to 16, got inf for the study of weights"),
        (["--bits", "nan"], 1, "bits are whole numbers from 1 to 16, got nan for the study of weights"),
        (["--alphas", "nan"], 1, "a finite number >= 0, got nan"),
        (["-n", "8"], 1, "at least 16 samples, got n=8"),
        (["--split", "test"], 1, "unknown split 'test'"),
        (["--figures", "file"], 1, "cannot write into file: it is no folder"),
    ],
)
def test_a_mistake_is_one_sentence(runs, cli, tmp_path, monkeypatch, options, status, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    found, out, err = cli("robustness", runs[0], *options)
    assert (found, out) == (status, "")
    assert said in " ".join(err.replace("│", " ").split())
    assert err.count("Error:") == 1


def test_other_refusals(runs, tmp_path):
    toy = trained("rings", tmp_path / "rings", MLP)
    with pytest.raises(ValueError, match="learned different data, so their distances cannot be compared"):
        robustness([runs[0], toy], n=N)
    with pytest.raises(ValueError, match="no study was asked for; choose from noise, steps, weights"):
        robustness(runs, studies=[])
    with pytest.raises(ValueError, match="the study of steps needs one setting or more, such as 5"):
        robustness(runs, studies={"steps": ()})
    with pytest.raises(ValueError, match="is given twice"):
        robustness([runs[0], runs[0]], n=N)
    assert set(STUDIES) == {"noise", "steps", "weights"}
    assert torch.is_grad_enabled()
