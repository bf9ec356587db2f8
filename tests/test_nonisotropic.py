"""CLD and Blur from end to end: grids, sampling, preconditioning, training, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch

import driftfield as df
from driftfield.denoise.preconditioned import Preconditioned
from driftfield.field.reverse import Reverse
from driftfield.grid import GRIDS
from driftfield.network.unet import UNet
from driftfield.objective.base import Batch
from driftfield.objective.laws import Balanced, NoiseMatching, VelocityMatching
from driftfield.plain import Build
from driftfield.rng import normal, rows, seeded
from driftfield.train.fit import fit

F64 = torch.float64
SHAPE = (1, 4, 4)
each = pytest.mark.parametrize("process", [df.CLD(), df.CLD(factor="L"), df.Blur()], ids=repr)


@each
@pytest.mark.parametrize("grid", ["karras", "geometric", "uniform", "power", "natural"])
def test_grids_fall_to_the_least_time(process, grid):
    times = GRIDS[grid](process, 7)
    assert len(times) == 8
    assert bool((times.diff() < 0).all())
    ends = torch.tensor(process.span[::-1], dtype=F64)
    torch.testing.assert_close(times[[0, -1]], ends, rtol=1e-10, atol=0)


@each
def test_every_runge_kutta_method_returns_to_the_data(process):
    """The ideal denoiser of 8 data: samples end at data, within 5 times the noise that `span[0]` leaves."""
    data = normal(torch.empty(8, *SHAPE), seeded(1))
    exact = df.Empirical(process, data)
    left = process.covariance(torch.tensor(process.span[0], dtype=F64))
    deviation = process.data(left(process.lift(torch.ones(1, *SHAPE, dtype=F64)))).max().item() ** 0.5
    for solver, nfe in (("heun", 299), ("rk4", 300)):
        x = df.generate(process, exact, (12, *SHAPE), solver=solver, nfe=nfe, seed=3, batch=5)
        assert x.shape == (12, *SHAPE)
        assert x.nfe <= nfe
        nearest = (x[:, None] - data).square().flatten(2).mean(2).sqrt().amin(1)
        assert nearest.max() < 5 * deviation + 0.01
    alone = df.generate(process, exact, (2, *SHAPE), solver="rk4", nfe=300, seed=3, first=7)
    torch.testing.assert_close(alone, x[7:9], rtol=0, atol=1e-4)


@each
def test_starts_climbs_and_their_noise(process):
    """`start` comes back from a low level; a restart on the way runs; `s_noise` scales the noise of a climb."""
    data = normal(torch.empty(8, *SHAPE), seeded(1))
    exact = df.Empirical(process, data)
    x = df.generate(process, exact, (3, *SHAPE), nfe=60, start=data[:3], level=0.15)
    torch.testing.assert_close(x, data[:3], rtol=0, atol=0.05)
    path = df.restart(df.karras(process, 40), [(6, 2, 0.1, 1.0)], process=process)
    x = df.generate(process, exact, (6, *SHAPE), grid=path, solver="heun")
    nearest = (x[:, None] - data).square().flatten(2).mean(2).sqrt().amin(1)
    assert nearest.max() < 0.2
    state = process.perturb(data[:3], torch.tensor(0.2), seeded(2))
    s, t = torch.tensor(0.2), torch.tensor(0.4)
    calm = Reverse(process, exact, s_noise=0.0).diffuse(state, s, t, seeded(3))
    torch.testing.assert_close(calm, process.transition(t, s)(state), rtol=1e-5, atol=1e-6)


@each
def test_a_fresh_network_is_the_best_linear_estimate(process):
    """A network that says 0 makes the posterior mean of white data of `sigma_data`; its target is of unit size."""
    network = UNet(SHAPE, width=8, multipliers=(1,))
    model = Preconditioned(network, process, sigma_data=0.7)
    exact = df.Mixture(process, torch.ones(1), torch.zeros(1, *SHAPE), 0.49 * torch.eye(16, dtype=F64)[None])
    x0 = 0.7 * normal(torch.empty(4000, *SHAPE, dtype=F64), seeded(4))
    for t in process.time(torch.tensor([0.05, 0.5, 5.0], dtype=F64)):
        x = process.perturb(x0, t, seeded(5))
        torch.testing.assert_close(model(x[:9].float(), t).double(), exact(x[:9], t), rtol=0, atol=3e-5)
        torch.testing.assert_close(
            model(x[:9].float(), t.float().expand(9)), model(x[:9].float(), t), rtol=0, atol=1e-4
        )
        # The output a network should learn has mean square 1: 64,000 numbers, a standard error of 0.6 per cent.
        w, g = process.observe(x, t)
        unit = (1 + (0.7 * g).square()).rsqrt()
        wanted = (process.modes(x0) - process.modes(exact(x, t))) / (0.7 * unit)
        assert abs(wanted.square().mean().item() - 1) < 0.025
        assert abs((unit * w).square().mean().item() - 1) < 0.025


def test_a_network_of_edm_is_a_network_of_cld():
    """What a state of CLD says of the datum is what EDM says at the same level: the estimates are equal."""
    torch.manual_seed(0)
    network = UNet(SHAPE, width=8, multipliers=(1,))
    torch.nn.init.normal_(network.out.weight, generator=seeded(1))
    cld, edm = Preconditioned(network, df.CLD(), 0.6), Preconditioned(network, df.EDM(), 0.6)
    x = df.CLD().perturb(normal(torch.empty(4, *SHAPE), seeded(2)), torch.tensor(0.2), seeded(3))
    t = torch.tensor(0.2, dtype=F64)
    w, g = df.CLD().observe(x.double(), t)
    torch.testing.assert_close(cld(x, t), edm((w / g).float(), 1 / g), rtol=1e-4, atol=1e-5)


@each
def test_objectives(process):
    """Matching trains on states; the balanced weight is `1 / sigma_data^2 + 1 / level^2`; a velocity's is refused."""
    model = Preconditioned(UNet(SHAPE, width=8, multipliers=(1,)), process, sigma_data=0.7)
    x0 = 0.7 * normal(torch.empty(400, *SHAPE), seeded(4))
    objective = df.Matching(process, weight=Balanced(0.7))
    losses = objective({"denoiser": model}, Batch(x0), seeded(5))
    assert losses.shape == (400,)
    losses.mean().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    if hasattr(process, "factor"):  # one level for all directions: every loss has mean 1, of deviation sqrt(2 / 16)
        assert abs(losses.mean().item() - 1) < 4 * math.sqrt(2 / 16 / 400)
    t = process.time(torch.tensor([0.2, 3.0], dtype=F64))
    level = process.level(t)
    torch.testing.assert_close(Balanced(0.7)(process, t), 1 / 0.49 + level**-2)
    torch.testing.assert_close(NoiseMatching()(process, t), level**-2)
    with pytest.raises(TypeError, match="use another weight, such as Balanced"):
        VelocityMatching()(process, t)


@pytest.mark.parametrize("process", [df.CLD(), df.Blur()], ids=repr)
def test_a_small_training_run(process, tmp_path):
    """Smooth pictures are learned: the loss falls well below that of a fresh network, the estimate for white data."""
    base = normal(torch.empty(256, 1, 2, 2), seeded(1)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    network = Build("driftfield.network.unet:UNet", {"width": 16, "multipliers": (1,)})
    how = {"folder": tmp_path / "run", "settings": ["training.optimizer.lr=8e-3"], "progress": False, "device": "cpu"}
    run = fit(base, process=process, steps=120, network=network, **how)
    samples = run.sample(5, nfe=9)
    assert samples.shape == (5, *SHAPE)
    assert run.process == process
    assert df.load(tmp_path / "run")[0] == process
    lines = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1] < 0.7 * lines[0]


def test_vectors_have_no_grid_to_blur():
    with pytest.raises(ValueError, match=r"images or other grids"):
        fit(torch.zeros(64, 2) + torch.arange(64)[:, None], process=df.Blur(), steps=2, progress=False, device="cpu")
    run = fit(normal(torch.empty(64, 2), seeded(0)), process=df.CLD(), steps=2, progress=False, device="cpu")
    assert run.sample(3, nfe=5).shape == (3, 2)


def test_other_scalings_are_refused():
    network = UNet(SHAPE, width=8, multipliers=(1,))
    with pytest.raises(ValueError, match="CLD has one scaling, 'edm', got 'vp'"):
        Preconditioned(network, df.CLD(), scaling="vp")
    with pytest.raises(TypeError, match="not four numbers"):
        Preconditioned(network, df.Blur()).coefficients(torch.tensor(0.1))
    with pytest.raises(TypeError, match="isotropic or Gaussian process, got object"):
        Preconditioned(network, object())
    with pytest.raises(ValueError, match=r"\(B, 2, \.\.\.\), got \(3, 1, 4, 4\)"):
        Preconditioned(network, df.CLD())(torch.zeros(3, *SHAPE), torch.tensor(0.1))


def test_rows_do_not_depend_on_their_batch():
    process = df.Blur()
    x0 = normal(torch.empty(4, *SHAPE), seeded(0))
    whole = process.perturb(x0, torch.tensor(0.4), rows(7, 0, 4))
    torch.testing.assert_close(process.perturb(x0[2:], torch.tensor(0.4), rows(7, 2, 4)), whole[2:], rtol=0, atol=1e-6)


@pytest.mark.slow
@each
@pytest.mark.parametrize("rowwise", [False, True])
def test_a_denoiser_compiles_whole(process, rowwise):
    """One graph without a break, and no warning of a cache."""
    model = Preconditioned(UNet(SHAPE, width=8, multipliers=(1,)), process).eval()
    torch.nn.init.normal_(model.network.out.weight, generator=seeded(1))
    t = torch.tensor([0.3, 0.2, 0.5]) if rowwise else torch.tensor(0.3, dtype=F64)
    x = process.perturb(normal(torch.empty(3, *SHAPE), seeded(2)), t, seeded(3))
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, t), model(x, t))
