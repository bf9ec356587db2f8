"""Likelihood: closed forms, exact mixtures under every process, unbiased estimates, and errors that are said."""

from __future__ import annotations

import math

import pytest
import torch

import driftfield as df
from driftfield.likelihood import PIXEL, _state
from driftfield.rng import normal, seeded

F64 = torch.float64
PROCESSES = [df.VP(), df.SubVP(), df.VE(), df.EDM(), df.Rectified(), df.PFGMPP(D=4.0), df.PFGMPP(D=128.0)]
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def ends(process):
    return (torch.tensor(t, dtype=F64) for t in process.span)


def mixture(process):
    """Two Gaussians in the plane with mean (-0.26, 0.27)."""
    weights = torch.tensor([0.3, 0.7], dtype=F64)
    means = torch.tensor([[1.0, -0.5], [-0.8, 0.6]], dtype=F64)
    covariances = torch.stack((0.2 * torch.eye(2, dtype=F64), torch.tensor([[0.3, 0.1], [0.1, 0.15]], dtype=F64)))
    return df.Mixture(process, weights, means, covariances)


def test_one_gaussian_in_closed_form():
    """spec/deis.md 8.11: VP, data N(0, 0.25), 0.7: -1.205633112735, of which the integral is 5.717911 - 5.024945."""
    process = df.VP()
    model = df.Normal(process, 0.0, 0.5)
    _, top = ends(process)
    spread = (process.sigma(top).square() + (process.alpha(top) / 2).square()).sqrt()
    x = torch.tensor([[0.7]], dtype=F64)
    exact = lambda z: torch.distributions.Normal(0.0, spread).log_prob(z).sum(1)
    assert df.log_prob(process, model, x, rtol=1e-10, atol=1e-10, prior=exact).item() == pytest.approx(
        -1.205633112735, abs=1e-9
    )
    assert df.log_prob(process, model, x, **TIGHT).item() == pytest.approx(-1.2056331, abs=1e-5)  # N(0, 1) at the top


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_mixture_is_exact_at_the_low_end(process):
    """With the exact law at the top: the density of the mixture under the least noise, to 1e-6 nats."""
    model = mixture(process)
    low, top = ends(process)
    x = model.sample(3, seeded(0))
    found = df.log_prob(process, model, x, prior=lambda z: model.log_prob(z, top), **TIGHT)
    torch.testing.assert_close(found, model.log_prob(x, low), rtol=0, atol=1e-6)
    assert found.shape == (3,)
    assert torch.equal(found.error, torch.zeros(3, dtype=F64))


def test_a_mixture_of_pictures_that_blur():
    """Blur, whose noise levels differ from frequency to frequency: exact at the low end as well."""
    process = df.Blur()
    means = 0.5 * normal(torch.empty(3, 1, 2, 3, dtype=F64), seeded(1))
    model = df.Mixture(process, torch.ones(3, dtype=F64) / 3, means, 0.1 * torch.eye(6, dtype=F64).expand(3, 6, 6))
    low, top = ends(process)
    x = model.sample(3, seeded(0))
    found = df.log_prob(process, model, x, prior=lambda z: model.log_prob(z, top), **TIGHT)
    torch.testing.assert_close(found, model.log_prob(x, low), rtol=0, atol=1e-6)


def test_the_prior_costs_what_the_mean_says():
    """At noise 80 the prior is centred on 0 and the law on `m`: an error of `m . z / 80`, `z` normal, in each density.

    Its deviation is `|m| / 80`, here 0.0047 nats; the mixture's variance adds `0.9 / 2 / 80^2 (|z|^2 - 2)` = 1.4e-4.
    """
    process = df.EDM()
    model = mixture(process)
    low, _ = ends(process)
    x = model.sample(200, seeded(0))
    error = df.log_prob(process, model, x, rtol=1e-6, atol=1e-6) - model.log_prob(x, low)
    deviation = math.hypot(0.26, 0.27) / 80
    assert error.square().mean().sqrt().item() == pytest.approx(deviation, rel=0.2)  # 4 / sqrt(2 * 200)
    assert error.abs().max() < 4 * deviation
    assert deviation < 7e-3


@pytest.mark.parametrize("process", [df.VP(), df.EDM()], ids=str)
def test_the_low_end_costs_what_the_noise_says(process):
    """The density is that of data with noise `sigma_0`: for `N(0, s^2)` known, and small against the data's own."""
    model, (low, top) = df.Normal(process, 0.0, 0.5), ends(process)
    law = lambda t: torch.distributions.Normal(
        0.0, (process.sigma(t).square() + (process.alpha(t) / 2).square()).sqrt()
    )
    x = torch.linspace(-1, 1, 5, dtype=F64)[:, None]
    found = df.log_prob(process, model, x, prior=lambda z: law(top).log_prob(z).sum(1), **TIGHT)
    gap = found - torch.distributions.Normal(0.0, torch.tensor(0.5, dtype=F64)).log_prob(x).sum(1)
    wanted = (law(low).log_prob(x) - torch.distributions.Normal(0.0, torch.tensor(0.5, dtype=F64)).log_prob(x)).sum(1)
    torch.testing.assert_close(gap, wanted, rtol=0, atol=1e-7)
    assert 1e-6 < gap.abs().max() < 1e-3


@pytest.mark.parametrize(("top", "error"), [(10, -0.0258), (40, -0.00638), (100, -0.00254), (1000, -0.000254)])
def test_charges_of_a_cauchy_law(top, error):
    """spec/pfgm.md 8.3: data of a Cauchy law of scale s, whose field is that of one charge at depth s; N = 3, s = 0.5.

    With the law of scale `top + s` at the top the density is that of scale `low + s`; with the prior, scale `top`, it
    errs as published.
    """
    process, s = df.PFGM(span=(1e-6, float(top))), 0.5
    model = lambda x, t, cond=None: x * (s / (t + s))[..., None]
    law = lambda x, scale: process.log_profile(x.square().sum(1), scale, 3) + process.log_peak(scale, 3)
    x = torch.tensor([[0.3, -0.7, 1.1]], dtype=F64)
    low, high = ends(process)
    exact = df.log_prob(process, model, x, prior=lambda z: law(z, high + s), **TIGHT)
    torch.testing.assert_close(exact, law(x, low + s), rtol=0, atol=1e-6)
    off = (df.log_prob(process, model, x, **TIGHT) - exact).item()
    far = x * (high + s) / (low + s)
    assert off == pytest.approx((law(far, high) - law(far, high + s)).item(), abs=1e-6)
    assert off == pytest.approx(error, rel=0.01)  # the published numbers are rounded


@pytest.mark.parametrize("process", [df.EDM(), df.PFGM()], ids=str)
def test_densities_add_up_to_one(process):
    """The integral over a line of a mixture's density, by the trapezoidal rule; the prior's errors cancel in it."""
    weights, means = torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([[-1.0], [0.7]], dtype=F64)
    model = df.Mixture(process, weights, means, torch.tensor([[[0.09]], [[0.25]]], dtype=F64))
    x = torch.linspace(-4, 5, 91, dtype=F64)
    total = df.log_prob(process, model, x[:, None], rtol=1e-6, atol=1e-6).exp().sum() * (x[1] - x[0])
    assert total.item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("solver", "order"), [(df.Heun(), 2), (df.RK4(), 4)], ids=["heun", "rk4"])
def test_fixed_grids_converge_in_their_order(solver, order):
    process = df.EDM()
    model = mixture(process)
    low, top = torch.tensor(0.2, dtype=F64), torch.tensor(2.0, dtype=F64)
    x = model.sample(4, seeded(0))
    prior = lambda z: model.log_prob(z, top)
    exact = model.log_prob(x, low)
    errors = []
    for n in (40, 80):
        grid = df.geometric(process, n + 1, high=2.0, low=0.2)
        found = df.log_prob(process, model, x, grid=grid, solver=solver, prior=prior)
        assert found.nfe == order * n
        errors.append((found - exact).norm().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_a_grid_may_rise_or_fall_and_rk4_walks_it():
    process = df.EDM()
    model = mixture(process)
    x = model.sample(2, seeded(0))
    fall = df.karras(process, 41)
    found = [df.log_prob(process, model, x, grid=g) for g in (fall, fall.flip(0), fall[:-1])]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert found[0].nfe == 160
    torch.testing.assert_close(found[0], df.log_prob(process, model, x, **TIGHT), rtol=0, atol=1e-3)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_estimates_are_unbiased_and_know_their_error(noise):
    """One row many times: the mean within 5 standard errors of the exact value, which `error` states within 20 %.

    `error` is a deviation from 16 probes over `sqrt(16)`; the mean of its square over 200 rows is known to about
    `sqrt(2 / (200 * 15))` = 2.6 %, to 10 % for heavy tails.
    """
    process = df.EDM()
    model = mixture(process)
    x = model.sample(1, seeded(0)).expand(200, 2)
    exact = df.log_prob(process, model, x[:1], rtol=1e-6, atol=1e-6)
    found = df.log_prob(
        process, model, x, divergence="hutchinson", probes=16, noise=noise, seed=1, rtol=1e-4, atol=1e-4
    )
    assert abs(found.mean() - exact) < 5 * found.std() / math.sqrt(200)
    assert found.error.square().mean().sqrt().item() == pytest.approx(found.std().item(), rel=0.2)
    one = df.log_prob(process, model, x[:2], divergence="hutchinson", rtol=1e-4, atol=1e-4)
    assert one.error.isnan().all()


def test_signs_are_exact_in_one_dimension():
    process = df.VP()
    weights, means = torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([[-1.0], [0.7]], dtype=F64)
    model = df.Mixture(process, weights, means, torch.tensor([[[0.09]], [[0.25]]], dtype=F64))
    x = model.sample(5, seeded(0))
    exact = df.log_prob(process, model, x)
    signs = df.log_prob(process, model, x, divergence="hutchinson", probes=2)
    torch.testing.assert_close(signs, exact, rtol=0, atol=1e-10)
    assert (signs.error < 1e-10).all()


def test_a_row_does_not_depend_on_its_batch():
    """Its probes come from its own number, its steps from itself."""
    process = df.EDM()
    model = mixture(process)
    x = model.sample(7, seeded(0))
    ask = {"divergence": "hutchinson", "probes": 3, "seed": 4, "rtol": 1e-4, "atol": 1e-4}
    whole = df.log_prob(process, model, x, **ask)
    parts = df.log_prob(process, model, x, batch=2, **ask)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(df.log_prob(process, model, x[5:], first=5, **ask), whole[5:], rtol=0, atol=1e-10)
    assert not torch.allclose(df.log_prob(process, model, x, **{**ask, "seed": 5}), whole)
    assert parts.nfe == whole.nfe
    none = df.log_prob(process, model, x[:0])
    assert (none.shape, none.error.shape, none.nfe) == ((0,), (0,), 0)


def test_langevin_is_bounded_from_below():
    """`log p(x, v) - log q(v | x)` is exact for the state drawn; its mean is below `log p(x)`, by KL(q | p) here known.

    Gaussian data make the law of the state Gaussian: `p(v | x)` and `q` are normal, and so is KL.
    """
    process = df.CLD()
    s2, (low, top) = 0.01, ends(process)
    model = df.Mixture(process, torch.ones(1, dtype=F64), torch.zeros(1, 1, dtype=F64), torch.full((1, 1, 1), s2))
    x = torch.full((400, 1), 0.13, dtype=F64)
    state, log_q = _state(process, x, low, 0, 0)
    few = df.log_prob(process, model, x[:3], prior=lambda z: model.log_prob(z, top), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(few, (model.log_prob(state, low) - log_q)[:3], rtol=0, atol=1e-5)
    bound = model.log_prob(state, low) - log_q
    covariance = process.covariance(low).m
    root = process.signal(low).m[:, :1]
    (xx, xv), (_, vv) = (covariance + s2 * root @ root.mT).tolist()
    marginal = torch.distributions.Normal(0.0, math.sqrt(xx)).log_prob(x[0, 0].float()).item()
    mean, deviation = xv / xx * 0.13, math.sqrt(vv - xv**2 / xx)
    slope = (root[1] / root[0]).item()
    wide = math.sqrt(covariance[1, 1] - 2 * slope * covariance[0, 1] + slope**2 * covariance[0, 0])
    kl = math.log(deviation / wide) + (wide**2 + (slope * 0.13 - mean) ** 2) / (2 * deviation**2) - 0.5
    assert kl > 0
    assert bound.mean().item() == pytest.approx(marginal - kl, abs=5 * bound.std().item() / 20 + 1e-6)


def test_pixels_are_spread_over_their_cells():
    """A uniform law over a cell costs `log2` of the number of cells: 8 bits for the whole range."""
    x = torch.arange(256).float().div(127.5).sub(1).reshape(4, 64)
    wide = df.dequantized(x, seed=3)
    assert wide.dtype == F64
    assert ((wide - x).abs() <= PIXEL / 2 + 1e-7).all()
    assert (wide - x).std().item() == pytest.approx(PIXEL / math.sqrt(12), rel=0.15)
    assert torch.equal(df.dequantized(x[2:], seed=3, first=2), wide[2:])
    flat = torch.full((3,), -64 * math.log(256 / 127.5), dtype=F64)  # uniform on 256 cells in each of 64 dimensions
    torch.testing.assert_close(df.bits_per_dim(flat, 64), torch.full((3,), 8.0, dtype=F64))


def test_networks_and_conditions_and_float32():
    """A float32 network within float64 states; classes are split with the batch."""
    process = df.EDM()
    network = df.MLP((2,), classes=3, width=16)
    model = df.Preconditioned(network, process).eval()
    x, labels = normal(torch.empty(5, 2), seeded(0)), torch.arange(5) % 3
    found = df.log_prob(process, model, x, cond=labels)
    torch.testing.assert_close(df.log_prob(process, model, x, cond=labels, batch=2), found, rtol=0, atol=1e-3)
    assert found.dtype == F64
    single = df.log_prob(process, model, x, cond=labels, dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), found, rtol=0, atol=0.02)


def test_mistakes_earn_a_sentence():
    process = df.EDM()
    model, x = df.Normal(process, 0.0, 0.5), torch.zeros(2, 3)
    for bad, message in (
        ({"divergence": "trace"}, "unknown divergence 'trace'"),
        ({"noise": "uniform"}, "unknown noise 'uniform'"),
        ({"probes": 0}, "at least 1, got probes=0"),
        ({"solver": df.Heun()}, "Heun takes the steps of a grid"),
        ({"grid": torch.tensor([1.0])}, "rises or falls all the way"),
        ({"grid": torch.tensor([80.0, 1.0, 2.0, 0.1])}, "rises or falls all the way"),
        ({"grid": torch.tensor([40.0, 1.0])}, "the path ends at 40; give the log-density there as prior="),
        ({"solver": df.DormandPrince(most=20)}, "20 evaluations do not reach time 80"),
    ):
        with pytest.raises(ValueError, match=message):
            df.log_prob(process, model, x, **bad)
    with pytest.raises(ValueError, match="finite"):
        df.log_prob(process, model, x * math.nan)
    detached = lambda x, t, cond=None: model(x, t).detach()
    with pytest.raises(TypeError, match="carries no gradient"):
        df.log_prob(process, detached, x)
    point = df.log_prob(process, df.Point(torch.zeros(3)), x)  # one that is constant has none, and needs none
    exact = torch.full((2,), -3 * math.log(0.002 * math.sqrt(2 * math.pi)), dtype=F64)
    torch.testing.assert_close(point, exact, rtol=0, atol=1e-3)


def test_a_latent_beyond_the_noise_is_said():
    """Straight rays from one datum leave Helmholtz's ball: the row, the cause and the remedies."""
    process = df.Helmholtz(0.1, (0.01, 5.0))
    model = df.Point(torch.zeros(2, dtype=F64))
    inside = 0.9 * process.reach(2) * 0.01 / 5
    x = torch.tensor([[inside, 0.0], [0.0, 1.3 * inside], [9.0, 0.0]], dtype=F64)
    assert df.log_prob(process, model, x[:1]).isfinite().all()
    said = "row 1 has its latent beyond the reach of the noise of Helmholtz.*longer.*smaller wavenumber"
    for batch in (1, 3):
        with pytest.raises(FloatingPointError, match=said):
            df.log_prob(process, model, x, batch=batch)
