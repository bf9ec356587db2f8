"""Adapted models: whatever a model predicts, and in whatever coordinates, the denoiser is the same one."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import driftfield as df
from driftfield.adapt.model import PREDICTIONS

F64 = torch.float64
DATA = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(3), dtype=F64)
PROCESSES = [df.VP(), df.VE(), df.EDM(), df.SubVP(), df.Rectified(span=(1e-3, 0.999))]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def states(process, rng, n=5):
    """States at one time each across the span, and the times."""
    fraction = torch.linspace(0.05, 0.95, n, dtype=F64)
    t = process.span[0] + fraction * (process.span[1] - process.span[0])
    return process.perturb(DATA[:n], t, rng), t


def predicting(process, exact, what):
    """The published model of one kind, from the exact denoiser, by the definitions."""

    def model(x, t, cond=None):
        a, s = (c(t).reshape(-1, 1, 1) for c in (process.alpha, process.sigma))
        y = exact(x, t)
        eps = (x - a * y) / s
        return {"data": y, "noise": eps, "score": -eps / s, "v": a * eps - s * y, "flow": eps - y}[what]

    return model


@each_process
@pytest.mark.parametrize("what", sorted(PREDICTIONS))
def test_every_prediction_gives_the_same_denoiser(process, what, rng):
    x, t = states(process, rng)
    exact = df.Empirical(process, DATA)
    adapted = df.Adapted(predicting(process, exact, what), process, what)
    torch.testing.assert_close(adapted(x, t), exact(x, t), rtol=1e-9, atol=1e-9)


def test_flow_matching_follows_the_velocity_itself(rng):
    """On the straight path the field is the model: dx/dt = eps - x_0."""
    process = df.Rectified()
    x = torch.randn(4, 3, generator=rng, dtype=F64)
    for t in torch.tensor([1.0, 0.3], dtype=F64):
        field = df.Reverse(process, df.Adapted(lambda x, t: x.sin() + t[:, None], process, "flow"))
        torch.testing.assert_close(field.velocity(x, t), x.sin() + t, rtol=1e-12, atol=1e-12)


@each_process
def test_a_score_model_agrees_with_the_exact_score(process, rng):
    """Tweedie against the score of a mixture, which is differentiated from its density and not from its mean."""
    means, spread = torch.randn(2, 3, generator=rng, dtype=F64), 0.3 * torch.eye(3, dtype=F64).expand(2, 3, 3)
    law = df.Mixture(process, torch.ones(2, dtype=F64) / 2, means, spread)
    x, t = torch.randn(6, 3, generator=rng, dtype=F64), process.time(torch.tensor(0.7, dtype=F64))

    def score(x, t, cond=None):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(law.log_prob(x, t[0]).sum(), x)[0]

    torch.testing.assert_close(df.Adapted(score, process, "score")(x, t), law(x, t), rtol=1e-8, atol=1e-8)


def test_equal_levels_are_the_same_question(rng):
    """A denoiser moved to another process and back is itself, and agrees with the exact one there."""
    for trained in PROCESSES:
        for process in PROCESSES:
            levels = torch.tensor([0.02, 0.4, 3.0, 20.0], dtype=F64)
            t = process.time(levels)
            x = process.perturb(DATA[:4], t, rng)
            moved = df.AtLevel(df.Empirical(trained, DATA), trained, process)
            torch.testing.assert_close(moved(x, t), df.Empirical(process, DATA)(x, t), rtol=1e-8, atol=1e-8)


def test_the_far_end_without_signal_is_reached(rng):
    """At time 1 of the straight path alpha is 0 and the level infinite: the ratio of states is still finite."""
    half = df.Rectified()
    moved = df.AtLevel(df.Normal(half, 0.3, 1.0), half, half)
    x = torch.randn(4, 3, generator=rng, dtype=F64)
    torch.testing.assert_close(moved(x, torch.tensor(1.0, dtype=F64)), torch.full_like(x, 0.3))
    torch.testing.assert_close(moved(x, torch.tensor(0.0, dtype=F64)), x)


@pytest.mark.parametrize("process", [df.VP(), df.EDM(), df.SubVP()], ids=lambda p: type(p).__name__)
def test_k_diffusion_both_ways(process, rng):
    """Its Euler loop, in its own convention, ends where Euler on the levels does: to the model, and back again."""
    exact = df.Empirical(process, DATA)
    theirs = df.to_k_diffusion(exact, process)
    sigmas = torch.cat((torch.logspace(1, -1.5, 12, dtype=F64), torch.zeros(1, dtype=F64)))
    x = start = sigmas[0] * torch.randn(4, 2, 3, generator=rng, dtype=F64)
    for now, then in pairwise(sigmas):
        d = (x - theirs(x, now * x.new_ones([len(x)]))) / now
        x = x + d * (then - now)
    levels, back = df.from_k_diffusion(theirs, low=0.01, high=10.0)
    ours = df.sample(df.Reverse(levels, back), start, sigmas, df.Euler(), rng)
    torch.testing.assert_close(ours, x, rtol=1e-10, atol=1e-10)
    assert levels.span == (0.01, 10.0)
    y = theirs(start, torch.tensor([0.3, 0.3, 2.0, 2.0], dtype=F64))
    for sigma, rows in ((0.3, slice(0, 2)), (2.0, slice(2, 4))):
        one = theirs(start[rows], torch.tensor(sigma, dtype=F64))
        torch.testing.assert_close(one, y[rows], rtol=1e-12, atol=1e-12)


def test_extra_arguments_reach_the_model(rng):
    seen = []

    def model(x, sigma, **extra):
        seen.append((sigma.shape, extra))
        return x

    _, denoiser = df.from_k_diffusion(model, low=0.1, high=9.0)
    x = torch.randn(3, 2, generator=rng)
    denoiser(x, torch.tensor(1.0, dtype=F64), {"scale": 4})
    denoiser(x, torch.tensor(1.0, dtype=F64))
    assert seen == [((3,), {"scale": 4}), ((3,), {})]


def test_labels_and_dtypes():
    """`(B,)`, float32 at least, whole numbers as int64; the arithmetic stays in the dtype of the state."""

    class Net(torch.nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3, dtype=dtype))

        def forward(self, x, label):
            self.seen = x.dtype, label.dtype, label.shape
            return x + self.w

    t = torch.tensor(0.5, dtype=F64)
    for x, net, label, wanted in (
        (torch.zeros(4, 3), Net(torch.bfloat16), None, (torch.bfloat16, torch.float32)),
        (torch.zeros(4, 3, dtype=F64), Net(torch.float32), None, (torch.float32, F64)),
        (torch.zeros(4, 3), Net(F64), lambda t: (1000 * t).round().long(), (F64, torch.int64)),
    ):
        for time in (t, t.expand(4)):
            y = df.Adapted(net, df.VP(), "noise", label)(x, time)
            assert net.seen == (*wanted, (4,))
            assert y.dtype == x.dtype
    y = df.Adapted(lambda x, t: x, df.VP())(torch.zeros(4, 3, device="meta"), t)  # nothing waits for the device
    assert y.device.type == "meta"


def asked(model):
    return df.Adapted(model, df.VP())(torch.zeros(4, 3), torch.tensor(0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: df.Adapted(None, df.VP(), "nois"), "did you mean 'noise'"),
        (lambda: df.Adapted(None, df.Rectified(), "noise"), "keeps no signal at time 1.*span that ends before"),
        (lambda: df.Adapted(None, df.PFGMPP(D=8.0), "score"), "does not tell the data"),
        (lambda: df.AtLevel(None, df.VP(), df.PFGMPP(D=8.0)), "inf degrees of freedom, that of PFGMPP 8"),
        (lambda: df.from_k_diffusion(None, low=2.0, high=1.0), "least < most"),
        (lambda: asked(lambda x, t: x[:, :2]), r"returned shape \(4, 2\)"),
        (lambda: asked(lambda x, t: (x,)), "returned a tuple"),
    ],
)
def test_bad_requests_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_student_noise_is_read_as_well(rng):
    """At finite D a noise model still tells the data, and a level is still a level for two laws of one D."""
    process = df.PFGMPP(D=16.0)
    exact = df.Empirical(process, DATA)
    t = torch.tensor(1.3, dtype=F64)
    x = process.perturb(DATA, t, rng)
    adapted = df.Adapted(lambda x, label: (x - exact(x, label)) / label.reshape(-1, 1, 1), process)
    torch.testing.assert_close(adapted(x, t), exact(x, t))
    endless = df.AtLevel(df.Empirical(df.PFGMPP(D=math.inf), DATA), df.PFGMPP(D=math.inf), df.VP())
    u = df.VP().time(t)
    z = df.VP().perturb(DATA, u, rng)
    torch.testing.assert_close(endless(z, u), df.Empirical(df.VP(), DATA)(z, u), rtol=1e-8, atol=1e-8)
