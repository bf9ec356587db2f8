"""Figures of equations, and comparisons: what is computed for them is right, and what cannot be drawn is said."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from driftfield import pde
from driftfield.cli import app
from driftfield.data.recognise import find
from driftfield.report.compare import compare, side_by_side
from driftfield.report.physics import Portrait, field_of, plain, portrait, trajectories
from driftfield.report.style import png

DATA = find("swiss-roll").load().train()[0][:300]


def test_the_density_of_a_portrait_has_its_mass():
    """1 on the periodic grid whatever the equation: that of Yukawa, `exp(-m t)`, is divided out."""
    for equation, mass in (
        (pde.Poisson(), 1.0),
        (pde.IdealWave(), 1.0),
        (pde.Yukawa(2.0), 1.0),
        (pde.Yukawa(1e4), 1.0),
    ):
        axis, density, flux = field_of(Portrait.of(equation, DATA, (0.5,)), 0.5)
        cell = float(axis[1] - axis[0]) ** 2
        assert float(density.sum()) * cell == pytest.approx(mass, rel=1e-9)
        assert abs(float(flux.sum())) * cell < 1e-9


def test_trajectories_follow_the_flow():
    """Under Poisson's equation a particle far away moves on a straight line through the data: `x / t` is constant."""
    of = Portrait.of(pde.Poisson(), DATA, (0.1, 1.0, 300.0))
    times, states = trajectories(of, 1)
    assert states.shape == (len(times), states.shape[1], 2)
    late, later = states[-10] / times[-10], states[-1] / times[-1]
    torch.testing.assert_close(late, later, rtol=2e-2, atol=2e-3)
    torch.testing.assert_close(states[0], trajectories(of, 1)[1][0])


def test_only_equations_that_generate_have_trajectories():
    heights = [
        portrait(Portrait.of(e, DATA, (0.2, 0.6))).get_size_inches()[1] for e in (pde.Poisson(), pde.IdealWave())
    ]
    assert heights[0] > heights[1] + 2


def test_what_has_died_out_is_still_drawn():
    """Of mass exp(-1e5) and less: the response and the times come from what is left, not from its share."""
    of = Portrait.of(pde.Yukawa(200.0), DATA)
    assert of.pde.total_mass(of.times[0]) == 0
    assert png(portrait(of), 50).startswith(b"\x89PNG")


def test_an_atom_is_drawn_as_a_blob():
    """The kernel of a bounded symbol is infinite at its source; this took minutes, then drew trajectories of it."""
    figure = portrait(Portrait.of(pde.Custom(symbol="k**2/(1+k**2)"), DATA, (1.0,)))
    assert [ax.get_title() for ax in figure.axes][1] == "response to a blob"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(pde.CATALOGUE))
def test_every_equation_is_drawn(name):
    assert png(portrait(Portrait.of(pde.named(name), DATA)), 50).startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="points in the plane"):
        Portrait.of(pde.Poisson(), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="times must increase from above 0"):
        Portrait.of(pde.Poisson(), DATA, (1.0, 0.5))
    with pytest.raises(ValueError, match="six times fit"):
        Portrait.of(pde.Poisson(), DATA, (1, 2, 3, 4, 5, 6, 7))
    for never in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="times must increase from above 0 and be finite"):
            Portrait.of(pde.Poisson(), DATA, (1.0, never))
    with pytest.raises(ValueError, match="grow under this equation"):
        Portrait.of(pde.Custom(dispersion="I*k**2"), DATA)
    assert plain("phi_tt + lap(phi) - m^2 phi = 0") == "∂ₜ²φ + ∇²φ - m² φ = 0"


def test_equations_are_named_with_their_numbers():
    assert pde.spelled("yukawa(mass=2)") == pde.Yukawa(2.0)
    assert pde.spelled("mixed( a=2 , b=0.5)") == pde.Mixed(2.0, 0.5)
    assert pde.spelled("third-order") == pde.ThirdOrder()
    for bad in ("yukawa(mass)", "yukawa(mass=x)", "a b", ""):
        with pytest.raises(ValueError, match="an equation is a name with numbers"):
            pde.spelled(bad)


def test_exact_fields_are_compared(tmp_path):
    """A sample of the exact field is one of the data: its score is that of a resample, far below that of the prior."""
    found = compare(["poisson", "diffusion"], ["eight-gaussians"], tmp_path, exact=True, n=200)
    assert [(r["data"], r["equation"]) for r in found.records()] == [
        ("eight-gaussians", "poisson"),
        ("eight-gaussians", "diffusion"),
    ]
    # 200 points against 400: the floor, plus four standard errors
    for drawn in found.drawn:
        assert drawn.score < found.floors[drawn.data] + 4 * drawn.error
    assert png(side_by_side(found), 50).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="biharmonic equation cannot be trained"):
        compare(["poisson", "biharmonic"], ["eight-gaussians"], tmp_path, exact=True)
    with pytest.raises(ValueError, match="at least one equation"):
        compare([], ["digits"], tmp_path)


def test_the_list_is_for_people_and_for_machines():
    records = json.loads(CliRunner().invoke(app, ["physics", "list", "--json"]).output)
    assert [r["name"] for r in records] == list(pde.CATALOGUE)
    assert all(set(r) == {"name", "pde", "verdict", "condition", "reason"} for r in records)
    assert {r["verdict"] for r in records} == {"yes", "conditional", "no"}
    text = CliRunner().invoke(app, ["physics", "list"]).output
    assert all(r["pde"] in text and r["reason"] in text for r in records)


def test_show_writes_pictures(tmp_path):
    words = [
        "physics",
        "show",
        "yukawa",
        "--mass",
        "2",
        "--times",
        "0.2,0.6",
        "--out",
        str(tmp_path / "a" / "y"),
        "--json",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    record = json.loads(result.output)
    assert record["parameters"] == {"mass": 2.0}
    assert (tmp_path / "a" / "y.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "a" / "y.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["yukawa", "--mass", "-1"], "mass of yukawa must be a finite number above 0"),
        (["poisson", "--mass", "2"], "the poisson equation has no mass"),
        (["diffusion", "--times", "1,x"], "--times are numbers"),
        (["custom"], "one of the two"),
    ],
)
def test_mistakes_are_errors_of_one_sentence(words, message):
    error = CliRunner().invoke(app, ["physics", "show", *words]).exception
    assert isinstance(error, ValueError)
    assert message in str(error)
