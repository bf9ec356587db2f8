"""Laws of the Gaussian processes: curves, kernels, flows, upward moves, and the specs' numbers."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from driftfield.process.base import Isotropic
from driftfield.process.gaussian import EDM, VE, VP, Rectified, SubVP
from driftfield.rng import rows, seeded

PROCESSES = [EDM(), VE(), VP(), SubVP(), Rectified()]
each = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def times(process, count=9, ends=True):
    low, high = process.span
    top = high if math.isfinite(process.level(torch.tensor(high, dtype=torch.float64)).item()) else 0.999 * high
    t = torch.linspace(math.sqrt(low), math.sqrt(top), count, dtype=torch.float64).square()
    t[0], t[-1] = low, top
    return t if ends else t[1:-1]


@each
def test_level_and_time_are_inverse(process):
    t = times(process)
    torch.testing.assert_close(process.time(process.level(t)), t, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        process.log_snr(t), -2 * (process.sigma(t) / process.alpha(t)).log(), rtol=1e-11, atol=1e-12
    )
    assert bool((process.level(t).diff() > 0).all())


@each
def test_slopes_are_those_of_the_curves(process):
    t = times(process, ends=False)
    for closed, derived in zip(process.slopes(t), Isotropic.slopes(process, t), strict=True):
        torch.testing.assert_close(closed, derived, rtol=1e-11, atol=1e-12)


@each
@pytest.mark.parametrize("event", [(3,), (2, 4, 4)])
def test_velocity_keeps_eps_and_datum(process, event, rng):
    """For one datum the flow is `alpha x0 + sigma eps` with `eps` fixed: its slope is the velocity."""
    x0, eps = (torch.randn(4, *event, generator=rng, dtype=torch.float64) for _ in range(2))
    t = times(process, ends=False)[3]
    at = lambda u: process.alpha(u) * x0 + process.sigma(u) * eps
    h = 1e-5 * t
    slope = (at(t + h) - at(t - h)) / (2 * h)
    torch.testing.assert_close(process.velocity(at(t), t, x0), slope, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(process.eps(at(t), t, x0), eps, rtol=1e-10, atol=1e-10)
    rowwise = process.velocity(at(t), t.expand(4), x0)
    torch.testing.assert_close(rowwise, process.velocity(at(t), t, x0), rtol=1e-13, atol=1e-13)


@each
def test_kernel_is_the_normal_density(process, rng):
    """`log_profile + log_peak` against scipy, and `log_kernel` up to a term free of `x0`; at every time of the span."""
    x, x0 = (torch.randn(4, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    for t in times(process):
        x_t = process.alpha(t) * x0 + process.sigma(t) * x
        sd = process.sigma(t).item()
        d2 = (x_t[:, None] - process.alpha(t) * x0[None]).square().sum(-1)
        exact = torch.from_numpy(stats.norm(0, sd).logpdf((x_t[:, None] - process.alpha(t) * x0[None]).numpy())).sum(-1)
        torch.testing.assert_close(process.log_profile(d2, t, 3) + process.log_peak(t, 3), exact, rtol=1e-11, atol=1e-9)
        torch.testing.assert_close(process.log_kernel(x_t, t, x0), process.log_profile(d2, t, 3), rtol=1e-9, atol=1e-9)


@each
def test_score_is_the_gradient_of_the_kernel(process, rng):
    x0 = torch.randn(1, 3, generator=rng, dtype=torch.float64)
    x = torch.randn(4, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    t = times(process, ends=False)[2]
    (gradient,) = torch.autograd.grad(process.log_kernel(x, t, x0).sum(), x)
    torch.testing.assert_close(process.score(x, t, x0.expand(4, 3)), gradient, rtol=1e-11, atol=1e-11)


@each
def test_upward_move_has_the_marginal_law(process):
    """`x_s -> x_t` of one datum is `N(alpha_t x0, sigma_t^2)`: KS on 20,000 draws, 5 x 3 tests at level 1e-4 each."""
    x0 = torch.full((20_000, 1), 0.7, dtype=torch.float64)
    t = times(process)
    for i, j, seed in ((0, 1, 1), (2, 5, 2), (0, 8, 3)):
        rng = seeded(seed)
        x = process.diffuse(process.perturb(x0, t[i], rng), t[i], t[j], rng)
        law = stats.norm(process.alpha(t[j]).item() * 0.7, process.sigma(t[j]).item())
        assert stats.kstest(x[:, 0].numpy(), law.cdf).pvalue > 1e-4


@each
def test_tiny_upward_moves_do_not_cancel(process):
    """`sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2` at `t = s (1 + 1e-9)`: its derivative times the step."""
    s = times(process, ends=False)[3]
    t = s * (1 + 1e-9)
    x = torch.zeros(2000, 1, dtype=torch.float64)
    spread = process.diffuse(x, s, t, seeded(0)).square().mean()
    u = s.clone().requires_grad_()
    slope = torch.autograd.grad(process.level(u).square(), u)[0] * process.alpha(s).square()
    assert 0.85 < (spread / (slope * (t - s))).item() < 1.15  # 2,000 squares: deviation sqrt(2/2000) = 0.032


@each
def test_prior_is_where_the_process_ends(process):
    x = process.prior((20_000, 1), seeded(5), torch.float64)
    sd = process.sigma(torch.tensor(process.span[1], dtype=torch.float64)).item()
    assert stats.kstest(x[:, 0].numpy(), stats.norm(0, sd).cdf).pvalue > 1e-3
    torch.testing.assert_close(
        process.prior_log_prob(x[:5]), torch.from_numpy(stats.norm(0, sd).logpdf(x[:5, 0].numpy()))
    )
    assert process.prior((2, 3, 4, 4), rows(0, 0, 2)).dtype == torch.float32


@each
def test_float32_survives_both_ends(process, rng):
    x0 = torch.randn(4, 3072, generator=rng)
    for t in process.span:
        x = process.perturb(x0, torch.full((4,), t), rng)
        assert x.dtype == torch.float32
        assert bool(x.isfinite().all())
        assert bool(process.velocity(x, torch.tensor(t, dtype=torch.float64), x0).isfinite().all())
        assert process.velocity(x, torch.tensor(t, dtype=torch.float64), x0).dtype == torch.float32


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rowwise", [False, True])
def test_times_in_float64_never_promote_a_state(process, dtype, rowwise):
    """The state's dtype wins, also over one float64 time per row; and the numbers are those of float64 throughout."""
    x0 = torch.randn(4, 3, generator=seeded(6), dtype=torch.float64)
    s, t = (times(process)[k].expand(4) if rowwise else times(process)[k] for k in (3, 5))
    x = x0.to(dtype)
    for call in (
        lambda v: process.perturb(v, t, seeded(7)) - process.perturb(v, s, seeded(7)),
        lambda v: process.diffuse(0 * v, s, t, seeded(7)) / process.diffuse(0 * v, s, 2 * s, seeded(7)),
        lambda v: process.velocity(v, t, v.flip(0)),
        lambda v: process.eps(v, t, v.flip(0)),
        lambda v: process.score(v, t, v.flip(0)),
        lambda v: process.log_kernel(v, t, v[:2]),
    ):
        assert call(x).dtype == dtype
    for call in (process.velocity, process.eps):
        torch.testing.assert_close(call(x, t, x.flip(0)).double(), call(x0, t, x0.flip(0)), rtol=1e-5, atol=1e-5)


@each
@pytest.mark.parametrize("rowwise", [False, True])
def test_kernel_of_many_data_is_that_of_each(process, rowwise):
    """Chunks of data, some of them short, change no bit of a kernel: 5 x 70 x 4000 numbers are more than one holds."""
    x = torch.randn(5, 7, 10, generator=seeded(8), dtype=torch.float64)
    x0 = torch.randn(4000, 7, 10, generator=seeded(9), dtype=torch.float64)
    t = times(process)[2:7] if rowwise else times(process)[4]
    whole = process.log_kernel(x, t, x0)
    assert whole.shape == (5, 4000)
    for m in (0, 1, 2995, 2996, 3999):
        torch.testing.assert_close(whole[:, m : m + 1], process.log_kernel(x, t, x0[m : m + 1]), rtol=1e-13, atol=0)


def test_kernel_holds_a_bounded_number_of_differences():
    """10,000 data and 5 x 70 numbers of state: 3.5 million differences in all, of which 2^20 are held at a time."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max(largest, out.numel()) if isinstance(out, torch.Tensor) and out.ndim == 3 else largest
            return out

    with Watch():
        EDM().log_kernel(torch.zeros(5, 70), torch.tensor(1.0), torch.zeros(10_000, 70))
    assert 0.9 * 2**20 < largest <= 2**20


@each
@pytest.mark.parametrize("event", [(), (3,), (2, 4)])
@pytest.mark.parametrize("count", [0, 3])
def test_any_event_and_any_number_of_rows(process, event, count):
    """Scalar data are states of shape `(B,)`, and a batch may be empty."""
    n = math.prod(event)
    x = torch.randn(count, *event, generator=seeded(10), dtype=torch.float64)
    x0 = torch.randn(2, *event, generator=seeded(11), dtype=torch.float64)
    for t in (times(process)[4], times(process)[4].expand(count)):
        assert process.perturb(x, t, seeded(0)).shape == x.shape
        assert process.diffuse(x, t / 2, t, seeded(0)).shape == x.shape
        assert process.velocity(x, t, x).shape == process.score(x, t, x).shape == x.shape
        kernel = process.log_kernel(x, t, x0)
        assert kernel.shape == (count, 2)
        torch.testing.assert_close(kernel, process.log_kernel(x.reshape(count, n), t, x0.reshape(2, n)))
        assert process.log_kernel(x, t, x0[:0]).shape == (count, 0)
    assert process.prior_log_prob(x).shape == (count,)
    torch.testing.assert_close(process.prior_log_prob(x), process.prior_log_prob(x.reshape(count, n)))


@each
def test_a_downward_diffusion_is_refused(process):
    s, t = times(process)[5], times(process)[3]
    x = torch.zeros(2, 1)
    for low, high in ((s, t), (s.expand(2), t.expand(2)), (-t, t)):
        with pytest.raises(ValueError, match="0 <= s <= t"):
            process.diffuse(x, low, high, seeded(0))
    trusted = process.diffuse(x.to("meta"), s.to("meta"), t.to("meta"), seeded(0))  # values cannot be read there
    assert trusted.shape == (2, 1)


def test_linear_beta_numbers_of_the_spec():
    """spec/deis.md 8.1 (its alpha is the square of ours) and spec/pfgmpp.md 8.13."""
    t = torch.tensor([1e-3, 0.1, 0.5, 1.0], dtype=torch.float64)
    alpha2 = torch.tensor([0.999890056044, 0.896282164362, 0.0790638124532, 4.31857490603e-5], dtype=torch.float64)
    rho = torch.tensor([0.0104859927867, 0.340176529077, 3.41291830907, 152.166970284], dtype=torch.float64)
    torch.testing.assert_close(VP().alpha(t).square(), alpha2, rtol=1e-11, atol=0)
    torch.testing.assert_close(VP().level(t), rho, rtol=1e-11, atol=0)
    torch.testing.assert_close(VP().alpha(t).square() + VP().sigma(t).square(), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(SubVP().sigma(t), VP().sigma(t).square(), rtol=1e-14, atol=0)


def test_ve_is_geometric():
    t = torch.tensor([0.0, 0.443, 1.0], dtype=torch.float64)
    torch.testing.assert_close(VE().sigma(t), 0.01 * 5000**t)


def test_bad_spans_are_refused():
    with pytest.raises(ValueError, match=r"time 0 means no noise.*sigma_min=0.01"):
        VE(span=(0.0, 1.0))
    with pytest.raises(ValueError, match="0 <= least < most"):
        EDM(span=(1.0, 0.5))
    with pytest.raises(ValueError, match="at most 1"):
        Rectified(span=(0.1, 1.5))
    with pytest.raises(TypeError, match="no kernel between two noisy times"):
        Isotropic.__mro__[1].diffuse(EDM(), torch.zeros(1), torch.tensor(0.1), torch.tensor(0.2), seeded(0))
