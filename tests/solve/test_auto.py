"""The library's own choice: it fits every budget and process, and is better than what it is chosen over."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import driftfield as df
from driftfield.field.reverse import Reverse
from driftfield.generation import first_state
from driftfield.grid import karras, logistic, natural
from driftfield.process.base import Process
from driftfield.rng import normal, rows, seeded
from driftfield.solve.auto import auto, named_solver
from driftfield.solve.base import sample
from driftfield.solve.named import adaptive

PROCESSES = [
    df.EDM(),
    df.VP(),
    df.SubVP(),
    df.VE(),
    df.Rectified(),
    df.DiscreteVP(),
    df.PFGMPP(128.0),
    df.PFGM(),
    df.CLD(),
    df.CLD(factor="L"),
    df.Blur(),
]
SCALAR = PROCESSES[:8]


def double(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def mixture(process: Process) -> df.Mixture:
    """Six Gaussians in four dimensions, of deviation about 1/2."""
    means = normal(torch.empty(6, 4, dtype=torch.float64), seeded(1)) / 2
    return df.Mixture(
        process, torch.full((6,), 1 / 6, dtype=torch.float64), means, torch.eye(4).double().repeat(6, 1, 1) / 50
    )


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_every_budget_is_honoured(process):
    for nfe in range(1, 41):
        route = df.plan(process, solver="auto", nfe=nfe)
        assert route.nfe == nfe  # one evaluation a step on every process here: none is left unspent
        assert bool((route.path[1:] < route.path[:-1]).all())
        assert abs(route.path[0].item() - process.span[1]) < 1e-9 * process.span[1]
        assert route.path[-1] == natural(process, 1)[-1]


def test_the_rule_is_known():
    pictures = df.Exponential(2, "data", "flow")
    assert auto(df.EDM(), 5) == auto(df.EDM(), 11, (7,)) == (df.DEIS(3, "flow"), logistic)
    assert auto(df.EDM(), 11, (3, 8, 8)) == (pictures, logistic)
    assert auto(df.EDM(), 12, (3, 8, 8)) == (df.DEIS(4, "flow"), logistic)
    assert df.plan(df.VP(), solver="auto", nfe=5, shape=(3, 8, 8)).solver == pictures
    assert auto(df.PFGMPP(4.0), 20) == (df.DEIS(4, "flow"), logistic)
    assert auto(df.CLD(), 20)[0] == df.Exponential(3, "data", "t")
    assert auto(df.CLD(factor="L"), 20)[0] == df.GDDIM(3)
    assert named_solver("heun", df.EDM(), 5) == (df.Heun(), natural)
    assert not adaptive("auto")


def test_a_grid_asked_for_is_kept():
    route = df.plan(df.EDM(), solver="auto", nfe=9, grid="karras")
    assert torch.equal(route.path, karras(df.EDM(), 9))
    assert route.solver == df.DEIS(3, "flow")
    given = torch.tensor([80.0, 3.0, 0.0], dtype=torch.float64)
    assert torch.equal(df.plan(df.EDM(), solver="auto", grid=given).path, given)


def test_generate_goes_by_the_shape_of_the_data():
    """A patch of one pixel is a vector to the denoiser, and a picture to the choice of a solver."""
    process, mean = df.EDM(), torch.zeros(1, 2, dtype=torch.float64)
    exact = df.Mixture(process, torch.ones(1, dtype=torch.float64), mean + 0.3, torch.eye(2).double()[None] / 9)

    def flat(x, t, cond=None):
        return exact(x.flatten(1), t).reshape(x.shape)

    options = {"nfe": 6, "dtype": torch.float64, "seed": 1}
    vectors, pictures = (
        df.generate(process, flat, (5, 2), **options),
        df.generate(process, flat, (5, 2, 1, 1), **options),
    )
    as_vectors = df.generate(process, flat, (5, 2, 1, 1), solver=df.DEIS(3, "flow"), grid=logistic, **options)
    as_pictures = df.generate(process, flat, (5, 2), solver=df.Exponential(2, "data", "flow"), grid=logistic, **options)
    assert torch.equal(vectors, as_vectors.flatten(1))
    assert torch.equal(pictures.flatten(1), as_pictures)
    assert not torch.allclose(vectors, as_pictures, atol=1e-4)


def test_an_unknown_name_offers_auto():
    with pytest.raises(ValueError, match="did you mean 'auto'"):
        df.plan(df.EDM(), solver="outo", nfe=5)


def test_a_dear_denoiser_counts():
    """Twice the evaluations for each estimate: half the steps, and the order of that half."""
    route = df.plan(df.EDM(), solver="auto", nfe=12, each=2)
    assert route.nfe == 6
    assert route.solver == df.DEIS(3, "flow")


@pytest.mark.parametrize("process", SCALAR, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 7, 500])
def test_logistic_levels_are_quantiles_of_a_logistic_law(process, steps):
    """`logit u = (ln level - ln centre) / width` is that of even numbers, between the ends that it has to keep."""
    times = logistic(process, steps, centre=0.7, width=1.3)
    assert len(times) == steps + 1
    level = process.level(times[1:-1])
    u = 1 / (1 + (level / 0.7) ** (-1 / 1.3))
    assert torch.allclose(u[1:] - u[:-1], (u[1:] - u[:-1]).mean(), rtol=1e-5)
    least = process.level(double(process.span[0]))
    assert steps < 3 or bool(level[-1] >= least * (1 - 1e-9))


def test_the_flow_clock_is_the_time_of_rectified_flow():
    """DEIS in the clock "flow" on EDM is tAB on rectified flow: the same points, the states alike but for a factor."""
    edm, flow = df.EDM(), df.Rectified()
    x = normal(torch.empty(3, 4, dtype=torch.float64), seeded(2)) * 80
    path = logistic(edm, 9)
    ours = sample(Reverse(edm, mixture(edm)), x, path, df.DEIS(3, "flow"), seeded(0))
    times = path / (1 + path)
    theirs = sample(Reverse(flow, mixture(flow)), x / 81, times, df.DEIS(3, "t"), seeded(0))
    assert torch.allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("process", [df.EDM(), df.VP()], ids=repr)
def test_it_is_nearer_to_the_flow_than_others(process):
    """Against the library's other multistep methods on the natural grid, at a few and at many evaluations."""
    field, top = Reverse(process, mixture(process)), double(process.span[1])
    x = first_state(process, top, (64, 4), rows(0, 0, 64), torch.float64)
    exact = sample(field, x, natural(process, 300), df.RK4(), seeded(0))
    for nfe in (6, 10, 20):
        errors = {}
        for name in ("auto", "dpm++2m", "dpm++3m", "unipc", "deis", "heun"):
            route = df.plan(process, solver=name, nfe=nfe)
            end = sample(field, x, route.path, route.solver, seeded(0))
            errors[name] = (end - exact).square().mean().sqrt().item()
        assert math.isfinite(errors["auto"])
        assert min(errors, key=errors.get) == "auto", (nfe, errors)


@pytest.mark.parametrize("bad", [{"centre": 0.0}, {"width": -1.0}, {"low": 90.0}, {"centre": math.inf}])
def test_a_senseless_grid_is_refused(bad):
    with pytest.raises(ValueError, match=r"finite and > 0|runs from a level"):
        logistic(df.EDM(), 5, **bad)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        logistic(df.EDM(), 0)
