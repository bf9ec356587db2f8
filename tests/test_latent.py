"""Data to latents and back, points between latents, temperatures; and what PFGM's flow says in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import driftfield as df
from driftfield.data.toys import EightGaussians
from driftfield.plain import Build
from driftfield.rng import seeded
from driftfield.train.loop import train

F64 = torch.float64


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def cauchy(s: float):
    """The exact denoiser of PFGM for Cauchy data of scale `s`: spec/pfgm.md 8.3."""
    return lambda x, t, cond=None: s * x / (df.PFGM().sigma(t).reshape(-1, *[1] * (x.ndim - 1)) + s)


def log_cauchy(x: Tensor, scale: float) -> Tensor:
    n = x.shape[1]
    constant = math.lgamma((n + 1) / 2) - (n + 1) / 2 * math.log(math.pi) + math.log(scale)
    return constant - (n + 1) / 2 * (x.square().sum(1) + scale**2).log()


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.VE(), df.SubVP(), df.PFGMPP(D=4.0)], ids=str)
def test_there_and_back(process):
    """Smooth data: the round trip is as exact as the steps, 1e-4 being asked of it."""
    if process.freedom == math.inf:
        denoiser = df.Normal(process, 0.3, 0.8)
    else:
        one = torch.ones(1, dtype=F64)
        denoiser = df.Mixture(process, one, 0.3 * normals(1, 3), 0.6 * torch.eye(3, dtype=F64)[None])
    x, solver = normals(5, 3, seed=1), df.DormandPrince(1e-6, 1e-6, clock="log")
    z = df.encode(process, denoiser, x, solver=solver)
    assert (z - x).abs().max() > 0.5
    torch.testing.assert_close(df.decode(process, denoiser, z, solver=solver), x, rtol=0, atol=1e-4)


def test_the_latent_of_a_normal_is_closed():
    """`x_T = mean + (x - mean) sqrt((s^2 + T^2) / (s^2 + t^2))` under EDM; on a grid by Heun, at its order."""
    process, x = df.EDM(span=(1e-3, 20.0)), normals(4, 3)
    denoiser = df.Normal(process, 1.0, 0.8)
    exact = 1 + (x - 1) * math.sqrt((0.64 + 400) / (0.64 + 1e-6))
    torch.testing.assert_close(df.encode(process, denoiser, x), exact, rtol=1e-4, atol=0)
    errors = []
    for steps in (40, 80):
        grid = df.geometric(process, steps)
        z = df.encode(process, denoiser, x, grid=grid, solver=df.Heun())
        errors.append((z / exact - 1).abs().max().item())
    assert 1.7 < math.log2(errors[0] / errors[1]) < 2.3


def test_pfgm_of_cauchy_data_is_a_scaling():
    """8.3: `x(z) = x(0) (z + s) / s`, there and back."""
    process, x = df.PFGM(), normals(6, 3)
    z = df.encode(process, cauchy(0.5), x)
    torch.testing.assert_close(z, x * (40.5 / 0.501), rtol=1e-4, atol=0)
    torch.testing.assert_close(df.decode(process, cauchy(0.5), z), x, rtol=0, atol=1e-4)


def test_pfgm_likelihood_of_cauchy_data():
    """8.3: exact with the law at z_max as prior; with PFGM's own, short by the listed numbers, like 1 / z_max."""
    x = torch.tensor([[0.3, -0.7, 1.1]], dtype=F64)
    for top, short in ((10.0, -0.0258), (40.0, -0.00638), (100.0, -0.00254), (1000.0, -0.000254)):
        process = df.PFGM(span=(1e-6, top))
        options = {"solver": df.DormandPrince(1e-9, 1e-9, 5000, "log")}
        shifted = lambda z, top=top: log_cauchy(z, top + 0.5)
        exact = log_cauchy(x, 0.5 + 1e-6)
        found = df.log_prob(process, cauchy(0.5), x, prior=shifted, **options)
        torch.testing.assert_close(found.detach(), exact, rtol=0, atol=1e-7)
        own = df.log_prob(process, cauchy(0.5), x, **options)
        assert (own - exact).item() == pytest.approx(short, rel=0.01)


def test_the_latent_of_one_dimension_keeps_its_quantile():
    """8.4: Psi / pi, the mass to the right, is the same at both ends, for every datum between the charges."""
    process, data = df.PFGM(span=(0.05, 30.0)), torch.tensor([[-1.0], [0.2], [1.5]], dtype=F64)
    x = torch.linspace(-2, 2.5, 9, dtype=F64)[:, None]
    z = df.encode(process, df.Empirical(process, data), x, solver=df.DormandPrince(1e-9, 1e-9, clock="log"))
    mass = lambda at, t: torch.atan2(torch.full((), t, dtype=F64), at - data.T).mean(1)
    torch.testing.assert_close(mass(z, 30.0), mass(x, 0.05), rtol=0, atol=1e-7)


def test_the_log_clock_is_the_same_path_in_fewer_evaluations():
    process, data = df.PFGM(), normals(200, 2)
    found = {}
    for clock in ("t", "log"):
        solver = df.DormandPrince(1e-4, 1e-4, clock=clock)
        x = df.generate(
            process, df.Empirical(process, data), (20, 2), solver=solver, nfe=4000, grid="geometric", dtype=F64
        )
        found[clock] = x
    torch.testing.assert_close(found["t"], found["log"], rtol=0, atol=0.02)  # steps of error 1e-4
    assert found["log"].nfe < 0.6 * found["t"].nfe
    with pytest.raises(ValueError, match="clock"):
        df.DormandPrince(clock="level")
    with pytest.raises(ValueError, match=r"do not reach time 0\.001"):
        df.sample(
            df.Reverse(process, df.Empirical(process, data)),
            normals(2, 2),
            torch.tensor([40.0, 1e-3], dtype=F64),
            df.DormandPrince(clock="log", most=20),
            seeded(0),
        )


def test_interpolation_is_along_the_sphere():
    a, b = normals(4, 2, 3), 3 * normals(4, 2, 3, seed=1)
    share = torch.linspace(0, 1, 5, dtype=F64)
    path = df.interpolate(a, b, share)
    assert path.shape == (5, 4, 2, 3)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    lengths = path.flatten(2).norm(dim=2)
    torch.testing.assert_close(lengths, lengths[0] + share[:, None] * (lengths[-1] - lengths[0]))
    unit = path.flatten(2) / lengths[..., None]
    turn = (unit[1:] * unit[:-1]).sum(2).acos()
    torch.testing.assert_close(turn, turn[:1].expand_as(turn))  # equal angles
    torch.testing.assert_close(df.interpolate(a, 2 * a, [0.5])[0], 1.5 * a)  # one direction: no angle to divide by
    with pytest.raises(ValueError, match="opposite"):
        df.interpolate(a, -a, share)
    with pytest.raises(ValueError, match="length 0"):
        df.interpolate(a, 0 * b, share)
    with pytest.raises(ValueError, match="one shape"):
        df.interpolate(a, b[:2], share)
    for wrong in (0.5, [math.nan], [0.0, math.inf], [[0.5]]):
        with pytest.raises(ValueError, match="shares of the way should be a list of finite numbers"):
            df.interpolate(a, b, wrong)


def test_temperature_scales_lengths():
    z = normals(3, 2)
    torch.testing.assert_close(df.temper(z, [0.5, 2.0]), torch.stack((0.5 * z, 2 * z)))
    assert df.temper(z.float(), [0.5]).dtype == torch.float32
    with pytest.raises(ValueError, match="temperatures"):
        df.temper(z, [0.0, 1.0])


def test_what_cannot_be_inverted_is_refused():
    process, x = df.EDM(), normals(2, 3)
    denoiser = df.Normal(process)
    with pytest.raises(ValueError, match="adds noise"):
        df.encode(process, denoiser, x, solver=df.ReverseSDE())
    with pytest.raises(ValueError, match="give grid="):
        df.decode(process, denoiser, x, solver=df.Heun())
    with pytest.raises(ValueError, match="falls all the way"):
        df.encode(process, denoiser, x, grid=df.geometric(process, 4).flip(0), solver=df.Heun())
    with pytest.raises(ValueError, match="latents are states at"):
        df.encode(process, denoiser, x, grid=df.geometric(process, 4, high=10), solver=df.Heun())
    with pytest.raises(ValueError, match="finite"):
        df.encode(process, denoiser, x * math.nan)
    with pytest.raises(FloatingPointError):
        df.encode(process, lambda x, t, cond=None: x * math.nan, x)


def test_pfgm_learns_eight_gaussians():
    """After 400 steps of 128 most samples lie within 0.4 of a mode (discs that hold 7 % of the square around them),
    and data go to latents and come back to 1e-4."""
    recipe = df.Recipe(
        data=EightGaussians(radius=2.0),
        network=Build("driftfield.network.mlp:MLP", {"width": 64, "depth": 2}),
        objective=df.PoissonField(reference=512),
    ).with_fields(["training.steps=400", "training.batch=128", "training.optimizer.lr=4e-3"])
    source = recipe.data.load()
    recipe = recipe.resolved(replace(source.info, classes=()))

    class Unlabelled:
        slow = False

        def draw(self, n, rng):
            return source.draw(n, rng)[0], None

    angle = torch.arange(8) * (math.pi / 4)
    modes = 2 * torch.stack((angle.cos(), angle.sin()), 1)
    process = recipe.objective.process

    def near(model) -> float:
        x = df.generate(process, model, (500, 2), solver="heun", nfe=35, grid="geometric", batch=500)
        return (torch.cdist(x, modes).amin(1) < 0.4).double().mean().item()

    first = near(recipe.denoiser())
    *_, now = train(recipe, Unlabelled(), None, "cpu")
    model = now.average.eval().requires_grad_(False).double()  # float32 would be the coarsest part of the round trip
    assert first < 0.3
    assert near(model) > 0.5
    x = source.draw(4, seeded(5))[0].double()
    solver = df.DormandPrince(1e-7, 1e-7, 4000, "log")
    z = df.encode(process, model, x, solver=solver)
    torch.testing.assert_close(df.decode(process, model, z, solver=solver), x, rtol=0, atol=1e-4)
