"""Preconditioning: the coefficients of Karras et al. Table 1, and the same network on every process."""

from __future__ import annotations

import math

import pytest
import torch

import driftfield as df
from driftfield.denoise.preconditioned import SCALINGS, iddpm_levels
from driftfield.objective.laws import Balanced

F64 = torch.float64
LEVELS = torch.logspace(-2, 1.5, 7, dtype=F64)


class Echo(torch.nn.Module):
    """A network that is a known function of its inputs, and remembers its noise labels."""

    def forward(self, x, noise, cond=None):
        self.noise, self.dtype = noise, x.dtype
        return torch.sin(3 * x) + noise.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def table(name, sigma, d=0.5):
    """Table 1 of Karras et al. on alpha = 1, and flow's own row."""
    one = torch.ones_like(sigma)
    t = df.VP().time(sigma)
    return {
        "edm": (
            d**2 / (sigma**2 + d**2),
            sigma * d / (sigma**2 + d**2).sqrt(),
            (sigma**2 + d**2).rsqrt(),
            sigma.log() / 4,
        ),
        "vp": (one, -sigma, (sigma**2 + 1).rsqrt(), 999 * t),
        "ve": (one, sigma, one, (sigma / 2).log()),
        "iddpm": (one, -sigma, (sigma**2 + 1).rsqrt(), None),
        "flow": (1 / (1 + sigma), -sigma / (1 + sigma), (sigma**2 + d**2).rsqrt(), 4 * sigma / (1 + sigma)),
        "identity": (0 * one, one, one, sigma),
    }[name]


@pytest.mark.parametrize("name", sorted(SCALINGS))
def test_coefficients_are_the_table(name):
    for process in (df.EDM(), df.PFGMPP(D=16.0)):
        found = df.Preconditioned(Echo(), process, 0.5, name).coefficients(LEVELS)
        for mine, theirs in zip(found, table(name, LEVELS), strict=True):
            if theirs is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)


def test_iddpm_levels():
    """From u_0 = 20291, past u_8 = 80.2, down to u_999 > 0 by the recursion; labels count from the least noise.

    u_8, about 80, is where Karras et al. start to sample (Table 1, j_0 = 8).
    """
    levels = iddpm_levels(torch.device("cpu"))
    assert len(levels) == 1000
    assert bool((levels.diff() < 0).all())
    assert levels[0].item() == pytest.approx(20291, abs=1)
    assert levels[8].item() == pytest.approx(80.2, abs=0.05)
    bar = lambda j: math.sin(math.pi / 2 * j / (1000 * 1.008)) ** 2
    expected = math.sqrt(1 / max(bar(999) / bar(1000), 0.001) - 1)
    assert levels[-1].item() == pytest.approx(expected, rel=1e-7)  # 1 - 4e-5 leaves eight digits
    denoiser = df.Preconditioned(Echo(), df.EDM(), 0.5, "iddpm")
    assert denoiser.coefficients(levels[[0, 10, 999]])[3].tolist() == [999, 989, 0]


@pytest.mark.parametrize("name", ["edm", "vp", "ve", "iddpm"])
@pytest.mark.parametrize("process", [df.VP(), df.SubVP(), df.VE(), df.PFGMPP(D=8.0)], ids=str)
def test_one_network_serves_every_process_at_equal_level(name, process, rng):
    """The estimate at `x` of a process with `alpha` equals EDM's at `x / alpha` and the same level."""
    network = Echo()
    x = torch.randn(7, 2, 3, generator=rng, dtype=F64)
    t = process.time(LEVELS)
    there = df.Preconditioned(network, df.EDM(), 0.5, name)(x, LEVELS)
    a = process.alpha(t)[:, None, None]
    here = df.Preconditioned(network, process, 0.5, name)(a * x, t)
    torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-6)  # vp labels: 999 times a rounded time


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.Rectified()], ids=str)
def test_scalar_and_rowwise_times_agree(process, rng):
    denoiser = df.Preconditioned(Echo(), process)
    x = torch.randn(3, 2, generator=rng, dtype=F64)
    t = process.time(torch.tensor(0.7, dtype=F64))
    torch.testing.assert_close(denoiser(x, t), denoiser(x, t.expand(3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.SubVP()], ids=str)
def test_edm_scaling_has_unit_input_and_least_unit_target(process, rng):
    """Karras et al. App. B.6: what defines the coefficients, checked from the second moments of `(x, y)`.

    `Var y = d^2`, `Var x = a^2 d^2 + s^2`, `Cov = a d^2`. The input has variance 1, the network's target
    `(y - c_skip x) / c_out` too, and `c_skip` makes `c_out` least: then the target is not correlated with the input.
    The weight undoes `c_out`; and the estimate goes to the state as the noise vanishes.
    """
    d, t = 0.7, process.time(LEVELS)
    a, s = process.alpha(t), process.sigma(t)
    denoiser = df.Preconditioned(Echo(), process, d, "edm")
    c_skip, c_out, c_in, _ = denoiser.coefficients(t)
    one, var_x, cov = torch.ones_like(t), (a * d).square() + s.square(), a * d**2
    torch.testing.assert_close(c_in.square() * var_x, one, rtol=1e-12, atol=0)
    target = d**2 - 2 * c_skip * cov + c_skip.square() * var_x
    torch.testing.assert_close(target / c_out.square(), one, rtol=1e-8, atol=0)  # cancels like (level / d)^2 = 2e-4
    torch.testing.assert_close(cov - c_skip * var_x, 0 * one, rtol=0, atol=1e-13)
    torch.testing.assert_close(Balanced(d)(process, t) * c_out.square(), one, rtol=1e-12, atol=0)
    x = torch.randn(7, 3, generator=rng, dtype=F64)
    torch.testing.assert_close(denoiser(x, process.time(torch.tensor(1e-9, dtype=F64))), x, rtol=0, atol=1e-7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("name", sorted(SCALINGS))
@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=8.0)], ids=str)
def test_one_graph_at_one_time_and_at_one_per_row(process, name, rng):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        denoiser = df.Preconditioned(df.MLP((3,), width=8, depth=1), process, 0.5, name)
    x = torch.randn(4, 3, generator=rng)
    for t in (process.time(torch.tensor(0.7, dtype=F64)), process.time(LEVELS[:4])):
        torch._dynamo.reset()
        out = torch.compile(denoiser, fullgraph=True, backend="eager")(x, t)
        torch.testing.assert_close(out, denoiser(x, t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(SCALINGS))
def test_a_time_in_float64_never_promotes_and_needs_no_device(name):
    x = torch.zeros(4, 3)
    for t in (torch.tensor(0.7, dtype=F64), torch.full((4,), 0.7, dtype=F64)):
        network = Echo()
        assert df.Preconditioned(network, df.VP(), 0.5, name)(x, t).dtype == torch.float32
        assert (network.noise.shape, network.noise.dtype) == ((4,), torch.float32)
    network = Echo()
    out = df.Preconditioned(network, df.VP(), 0.5, name)(x.to("meta"), torch.tensor(0.7, dtype=F64))
    assert out.device.type == network.noise.device.type == "meta"
    assert df.Preconditioned(network, df.VP(), 0.5, name)(x[:0], torch.tensor(0.7, dtype=F64)).shape == (0, 3)


def test_rectified_network_predicts_the_velocity(rng):
    """In "flow" scaling the field's velocity is the network's output itself."""
    network, process = Echo(), df.Rectified()
    x = torch.randn(4, 3, generator=rng, dtype=F64)
    for t in (0.3, 1.0):
        t = torch.tensor(t, dtype=F64)
        denoiser = df.Preconditioned(network, process, 0.5)
        assert denoiser.scaling == "flow"
        c_in, c_noise = denoiser.coefficients(t)[2:]
        expected = network(c_in * x, c_noise.expand(4))
        torch.testing.assert_close(df.Reverse(process, denoiser).velocity(x, t), expected, rtol=1e-9, atol=1e-9)


def test_dtypes_and_autocast():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(3, 3)

        def forward(self, x, noise, cond=None):
            out = self.line(x)
            self.seen = out.dtype
            return out

    net = Net()
    x = torch.randn(2, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(0.5, dtype=F64)
    assert df.Preconditioned(net, df.EDM())(x, t).dtype == F64
    assert net.seen == torch.float32
    assert (
        df.Preconditioned(net, df.EDM())(x.float(), t).dtype == torch.float32
    )  # a 0-dim float64 time promotes nothing
    cast = df.Preconditioned(net, df.EDM(), autocast=torch.bfloat16)(x.float(), t)
    assert net.seen == torch.bfloat16
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, df.Preconditioned(net, df.EDM())(x.float(), t), rtol=0.05, atol=0.05)


def test_bad_preconditioning_is_refused():
    with pytest.raises(ValueError, match="sigma_data"):
        df.Preconditioned(Echo(), df.EDM(), 0.0)
    with pytest.raises(ValueError, match="did you mean 'edm'"):
        df.Preconditioned(Echo(), df.EDM(), 0.5, "emd")
    with pytest.raises(ValueError, match="use scaling='flow'"):
        df.Preconditioned(Echo(), df.Rectified(), 0.5, "edm")


@pytest.mark.parametrize("process", [df.PFGM(), df.PFGMPP(D=4.0), df.Fractional(1 / 3)], ids=repr)
@pytest.mark.parametrize("n", [1, 2, 64])
def test_heavy_tailed_noise_is_scaled_by_how_far_a_state_is(process, n):
    """What is usual at its level is told the time; what is far is told the time of its distance, and shrunk by it."""
    echo = Echo()
    denoiser = df.Preconditioned(echo, process, 0.5)
    x = torch.ones(4, n, dtype=F64) * torch.tensor([0.1, 0.9, 1e4, 1e12], dtype=F64)[:, None]
    t = process.time(torch.tensor(0.3, dtype=F64))
    y = denoiser(x, t)
    usual = 4 * (0.3**2 + 0.5**2)
    level = (0.3**2 + (x[:, 0].square() - usual).clamp(min=0)).sqrt()
    torch.testing.assert_close(echo.noise, level.log() / 4)
    c_skip, c_out, c_in, c_noise = (c[:, None] for c in table("edm", level))
    torch.testing.assert_close(y, c_skip * x + c_out * (torch.sin(3 * c_in * x) + c_noise))
    assert float(y.abs().max()) < 0.5 * (1 + math.log(1e12) / 4) + 1e-6
    torch.testing.assert_close(denoiser.skip(x, t), c_skip * x)
    each = denoiser(x, t.expand(4))
    torch.testing.assert_close(each, y)
