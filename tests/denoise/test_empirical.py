import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from driftfield.denoise.empirical import Empirical
from driftfield.process.gaussian import EDM, VE, VP, Rectified, SubVP
from driftfield.process.helmholtz import Helmholtz
from driftfield.process.poisson import PFGM, PFGMPP
from driftfield.process.screened import ScreenedPoisson
from driftfield.process.yukawa import MixedDiffusionPoisson, Yukawa
from driftfield.rng import integers, normal, seeded

GAUSSIAN = [EDM(), VE(), VP(), SubVP(), Rectified()]
STUDENT = [PFGMPP(D=0.5), PFGM(), PFGMPP(D=128.0), PFGMPP(D=1e9)]
every_process = pytest.mark.parametrize("process", GAUSSIAN + STUDENT, ids=repr)


def naive(process, data, x, t):
    """The softmax of the log-kernels and its logarithm, by differences in float64, one datum at a time."""
    data, x, t = data.double(), x.double(), t.double()
    t = t[:, None] if t.ndim else t
    d2 = torch.stack([(x - process.alpha(t) * y).square().sum(1) for y in data], 1)
    log = process.log_profile(d2, t, x.shape[1])
    log_prob = process.log_peak(t, x.shape[1]).reshape(-1) + log.logsumexp(1) - math.log(len(data))
    return log.softmax(1) @ data, log_prob


def crowded(m, n, seed, gap=1e-3):
    """Normal data with pairs `gap` apart, and a crowd of 40 within `gap`: more than are ever recomputed."""
    rng = seeded(seed)
    data = normal(torch.empty(m, n, dtype=torch.float64), rng)
    data[50:60] = data[40:50] + gap * normal(data[:10], rng)
    data[100:140] = data[100] + gap * normal(data[:40], rng)
    return data


def states(process, data, seed, each=6, levels=9):
    """States of random data, a third of them from the crowd, at times from one end of the span to the other."""
    rng = seeded(seed)
    low, high = process.span
    t = torch.tensor([low * (high / low) ** (k / (levels - 1)) for k in range(levels)], dtype=torch.float64)
    t = t.repeat_interleave(each)
    x0 = data[integers(torch.empty(len(t)), len(data), rng)]
    x0[::3] = data[110]
    return process.perturb(x0, t, rng), t


@every_process
@pytest.mark.parametrize(("m", "n"), [(500, 2), (200, 12)])
def test_float64_equals_the_naive_softmax(process, m, n):
    """To 1e-10, for data centred and a thousand spreads away, in tiles of any size, over the whole span."""
    for offset, tile in itertools.product((0.0, 1e3), (7, 64, 10_000)):
        data = crowded(m, n, 1) + offset
        x, t = states(process, data, 2)
        exact = Empirical(process, data, tile=tile)
        y, log_prob = naive(process, data, x, t)
        torch.testing.assert_close(exact(x, t), y, rtol=0, atol=1e-10)
        # An error of d2 by one part in 1e16 of n (spread + noise)^2 is divided by sigma^2, least 1e-8 (sub-VP).
        torch.testing.assert_close(exact.log_prob(x, t), log_prob, rtol=1e-12, atol=2e-6)


@every_process
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("m", "n"), [(1500, 2), (400, 300)])
def test_float32_is_safe(process, offset, m, n):
    """Within 1e-4 of the data's root mean square, near-duplicates and crowds of them included."""
    data = (crowded(m, n, 3) + offset).float()
    x, t = states(process, data.double(), 4)
    x, t = x.float(), t.float()
    rms = (data.double() - data.double().mean(0)).square().mean().sqrt()
    error = Empirical(process, data, tile=150)(x, t).double() - naive(process, data, x, t)[0]
    assert error.abs().max() < 1e-4 * rms


@pytest.mark.parametrize("process", [EDM(), PFGMPP(D=128.0)], ids=repr)
def test_float32_is_safe_for_images(process):
    """3072 dimensions, near-duplicates at every scale from a thousandth to a tenth of the data's."""
    rng = seeded(5)
    data = 2 * torch.rand(300, 3072, generator=rng) - 1
    for k, gap in enumerate((1e-3, 1e-2, 0.1)):
        part = slice(60 * k, 60 * k + 30)
        data[part] = data[60 * k] + gap * normal(data[part], rng)
    for level in (0.002, 0.02, 0.2, 1.0, 5.0, 20.0, 80.0):
        t = torch.tensor(level, dtype=torch.float64)
        x = process.perturb(data[:180:6], t, rng)
        error = Empirical(process, data)(x, t).double() - naive(process, data, x, t)[0]
        assert error.abs().max() < 1e-4 * data.std()


def test_float32_notices_an_inexact_product():
    """A row between distant data, far more precise than its matrix product, is still split exactly."""
    data = torch.zeros(40, 64)
    data[:, 0] = torch.linspace(-1, 1, 40).sign()
    data[:, 1] = torch.linspace(0, 1, 40) * 1e-3
    x, t = torch.zeros(1, 64), torch.tensor(2e-3)
    x[0, 0] = 1e-6
    y = Empirical(EDM(), data)(x, t)
    torch.testing.assert_close(y.double(), naive(EDM(), data, x, t)[0], rtol=0, atol=1e-4)
    assert 0.1 < y[0, 0] < 0.9


def test_float32_distrusts_its_own_ranking():
    """A crowd of 40, finer than the product's error: which 16 look nearest is chance, so they are not enough."""
    rng = seeded(21)
    data = torch.zeros(80, 64)
    data[:40] = 30.0
    data[:40, 0] += 2.0**-14 * integers(torch.empty(40), 200, rng)  # exact in float32
    data[40:] = -30.0
    x, t = data[:8] + 1e-4 * normal(data[:8], rng), torch.tensor(2e-4)
    exact = Empirical(EDM((1e-4, 80.0)), data)
    want = naive(exact.process, data, x, t)[0]
    assert (want[:, 0] - x[:, 0].double()).abs().max() > 1e-5  # the posterior is not a single datum
    shift = (exact(x, t).double() - want)[:, 0].abs().max()
    assert shift < 4e-6  # the spacing of float32 at 30


@pytest.mark.parametrize("process", STUDENT[:3], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_states_keep_their_direction(process, dtype):
    """As `|x|` grows at finite D, `E[x_0] = mean + (N + D) Cov x / |x|^2`: small, but not lost to `|x|^2`."""
    data = crowded(500, 6, 6).to(dtype)
    x = torch.zeros(1, 6, dtype=dtype)
    x[0, 2] = 1e7
    y = Empirical(process, data)(x, torch.tensor(1.0))
    assert torch.isfinite(y).all()
    mean = data.double().mean(0)
    if dtype == torch.float64:
        want = (6 + process.D) * torch.cov(data.T, correction=0)[2] / 1e7
        torch.testing.assert_close(y[0] - mean, want, rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(y[0].double(), mean, rtol=0, atol=1e-4)


@every_process
@pytest.mark.parametrize("n", [1, 5])
def test_score_is_the_gradient_of_log_prob(process, n):
    data = normal(torch.empty(40, n, dtype=torch.float64), seeded(7))
    x, t = states(process, torch.cat((data, data, data)), 8, levels=4)
    exact = Empirical(process, data, tile=9)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(exact.log_prob(x, t).sum(), x)
    score = exact.score(x.detach(), t)
    torch.testing.assert_close(score, slope, rtol=1e-6, atol=1e-9)
    (naive_slope,) = torch.autograd.grad(naive(process, data, x, t)[1].sum(), x)
    torch.testing.assert_close(score, naive_slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("process", GAUSSIAN, ids=repr)
def test_score_follows_from_the_mean_under_gaussian_noise(process):
    data = normal(torch.empty(200, 3, dtype=torch.float64), seeded(9))
    x, t = states(process, data, 10)
    exact = Empirical(process, data)
    torch.testing.assert_close(exact.score(x, t), process.score(x, t, exact(x, t)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", [EDM(), VP(), PFGMPP(D=3.0)], ids=repr)
def test_density_has_mass_one(process):
    """By the trapezoidal rule in `x = sinh u`, which reaches out to 5e8 and so cuts a tail of 1e-24 at D = 3."""
    u = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    exact = Empirical(process, torch.tensor([[-0.7], [0.1], [0.9]], dtype=torch.float64))
    t = torch.tensor(0.4, dtype=torch.float64)
    mass = torch.trapezoid(exact.log_prob(u.sinh()[:, None], t).exp() * u.cosh(), u)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-12)


def test_two_points_on_the_line():
    """`E[x_0 | x] = a tanh(a x / sigma^2)` for data at `a` and `-a`."""
    a = 0.8
    exact = Empirical(EDM(), torch.tensor([[a], [-a]], dtype=torch.float64))
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    for sigma in (0.3, 0.5, 1.0, 30.0):
        want = a * (a * x / sigma**2).tanh()
        torch.testing.assert_close(exact(x, torch.tensor(sigma, dtype=torch.float64)), want, rtol=0, atol=1e-14)


@every_process
def test_gradients_reach_the_state(process):
    """Likelihoods and guidance differentiate the estimate: its Jacobian is that of the naive softmax."""
    data = normal(torch.empty(60, 4, dtype=torch.float64), seeded(11))
    x, t = states(process, torch.cat((data, data)), 12, each=2, levels=4)
    v = normal(x, seeded(13))
    x.requires_grad_()
    (got,) = torch.autograd.grad(Empirical(process, data, tile=17)(x, t), x, v)
    (want,) = torch.autograd.grad(naive(process, data, x, t)[0], x, v)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)


def test_a_condition_keeps_the_data_of_its_class():
    data, rng = crowded(200, 5, 14), seeded(15)
    labels = integers(torch.empty(200), 3, rng)
    labels[labels == 2] = 3  # class 2 has no data
    labels[7] = 4  # class 4 has one
    exact = Empirical(PFGMPP(D=8.0), data, labels, tile=19)
    x, t = states(exact.process, data, 16)
    cond = torch.tensor([-1, 0, 1, 3, 4]).repeat(len(x))[: len(x)]
    y, log_prob = exact(x, t, cond), exact.log_prob(x, t, cond)
    for c in (-1, 0, 1, 3, 4):
        part = Empirical(exact.process, data if c < 0 else data[labels == c])
        at = cond == c
        torch.testing.assert_close(y[at], part(x[at], t[at]), rtol=0, atol=1e-11)
        torch.testing.assert_close(log_prob[at], part.log_prob(x[at], t[at]), rtol=1e-11, atol=1e-8)
    torch.testing.assert_close(exact(x, t, torch.tensor(1)), Empirical(exact.process, data[labels == 1])(x, t))
    x32, t32 = x.float(), t.float()
    assert (Empirical(exact.process, data.float(), labels)(x32, t32, cond) - y).abs().max() < 1e-4
    for bad in (torch.tensor(2), torch.tensor(5), torch.tensor(-2), cond.int(), cond[:3]):
        with pytest.raises(ValueError, match="condition"):
            exact(x, t, bad)
    with pytest.raises(ValueError, match="no labels"):
        Empirical(EDM(), data)(x, t, cond)


def test_any_data_shape_dtype_and_number_of_rows():
    data = normal(torch.empty(30, 2, 3, 4), seeded(17))
    x, t = 2 * normal(torch.empty(2100, 2, 3, 4), seeded(18)), torch.tensor(0.9)
    flat = Empirical(EDM(), data.flatten(1))(x.flatten(1), t)
    exact = Empirical(EDM(), data)
    assert torch.equal(exact(x, t), flat.reshape(x.shape))
    torch.testing.assert_close(exact(x, t)[1500:1600], exact(x[1500:1600], t), rtol=0, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(exact(x, t), flat.reshape(x.shape))
    for dtype in (torch.bfloat16, torch.float64):
        y = exact(x[:9].to(dtype), t)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact(x[:9].to(dtype).double(), t), rtol=0, atol=0.02)
    assert exact(x[:0], t).shape == (0, 2, 3, 4)
    assert torch.equal(Empirical(EDM(), data[:1])(x, t), data[:1].expand(x.shape))
    assert torch.equal(Empirical(PFGMPP(D=math.inf), data)(x, t), exact(x, t))


@every_process
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_one_time_on_the_host_serves_a_state_elsewhere(process, offset):
    """A state without storage refuses to meet a tensor of the host that has axes, like an accelerator's would.

    Only `_posterior`'s autocast and the flag of float32 look at more than that, so its inside runs here.
    """
    data = normal(torch.empty(40, 3, dtype=torch.float64), seeded(22)) + offset
    exact = Empirical(process, data, torch.arange(40) % 2, tile=16)
    points = exact._points
    assert (points.origin is not None) == (offset > 0)
    for holder, names in ((points, ("data", "labels", "origin", "norms", "scale")), (exact, ("data", "_counts"))):
        for name in names:
            value = getattr(holder, name)
            object.__setattr__(holder, name, None if value is None else value.to("meta"))
    for dtype, label in itertools.product((torch.float32, torch.float64), (None, torch.zeros(5, dtype=torch.int64))):
        x, t = torch.empty(5, 3, dtype=dtype, device="meta"), torch.tensor(0.3, dtype=torch.float64)
        y, log_prob, sound, _ = exact._rows(x, t, None if label is None else label.to("meta"), 3, None)
        assert {v.device.type for v in (y, log_prob, sound)} == {"meta"}
        assert (y.shape, log_prob.shape, sound.shape) == ((5, 3), (5,), (5,))


PULLING = [Yukawa(mass=0.7), MixedDiffusionPoisson(a=0.5, b=1.5)]


@pytest.mark.parametrize("process", PULLING, ids=repr)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_target_that_is_pulled(process, offset):
    """`sum_i w_i (x - pull_i (x - x_i))`, datum by datum: in float64, and from float32 states and data."""
    data = crowded(200, 3, 23) + offset
    x, t = states(process, data, 24)
    log = process.log_kernel(x, t, data)
    targets = torch.stack([process.target(x, t, y.expand_as(x)) for y in data], 1)
    want = (log.softmax(1)[..., None] * targets).sum(1)
    tolerance = 1e-6 * (1 + (x - want).abs().amax(1, keepdim=True))  # tables of pulls are good to 1e-7
    assert bool(((Empirical(process, data, tile=37)(x, t) - want).abs() < tolerance).all())
    x32, data32 = x.float(), data.float()
    y = Empirical(process, data32)(x32, t)
    assert y.dtype == torch.float32
    exact = Empirical(process, data32.double())(x32.double(), t)
    assert bool(((y - exact).abs() <= 1e-6 * (1 + exact.abs())).all())


@pytest.mark.parametrize("process", [Helmholtz(), ScreenedPoisson(mass=0.3)], ids=repr)
def test_rate_is_the_mean_of_the_rates(process):
    data = crowded(200, 2, 25)
    x, t = states(process, data, 26)
    d2 = (x[:, None] - data).square().sum(2)
    want = (process.log_kernel(x, t, data).softmax(1) * process.rate(d2, t[:, None], 2)).sum(1)
    exact = Empirical(process, data, torch.arange(200) % 2, tile=37)
    torch.testing.assert_close(exact.rate(x, t), want, rtol=1e-9, atol=1e-9)
    half = Empirical(process, data[::2])
    torch.testing.assert_close(exact.rate(x, t, torch.tensor(0)), half.rate(x, t), rtol=1e-9, atol=1e-9)
    assert exact.rate(x.float(), t).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch, importing its compiler
def test_compiled_is_the_same():
    """To the rounding of a sum of 2000 terms, at any law, number of rows and rest of a tile."""
    data = crowded(1500, 5, 27).float()
    for process in (EDM(), PFGMPP(D=128.0)):
        x, t = states(process, data.double(), 28)
        plain, fast = Empirical(process, data, tile=400), Empirical(process, data, tile=400, compiled=True)
        with torch.no_grad():
            torch.testing.assert_close(fast(x.float(), t), plain(x.float(), t), rtol=0, atol=1e-5)


def test_the_kernel_for_accelerators_agrees():
    """Interpreted on the CPU, in a process of its own: it has to know before Triton is imported."""
    pytest.importorskip("triton", reason="Triton is not here")
    code = (
        "import torch, driftfield as df\n"
        "from driftfield.denoise.fused import fused_mean\n"
        "from driftfield.rng import seeded\n"
        "for n in (1, 2, 7, 64):\n"
        "    for offset in (0.0, 100.0):\n"
        "        for p in (df.EDM(), df.VP(), df.PFGM(), df.PFGMPP(D=128.0), df.PFGMPP(D=1e9)):\n"
        "            data = torch.randn(150, n, generator=seeded(0)) + offset\n"
        "            t = torch.tensor([0.002, 0.01, 0.1, 0.5, min(p.span[1], 2.0)] * 7)\n"
        "            x = p.perturb(data[:35], t.double(), seeded(1)).float()\n"
        "            y, sound = fused_mean(p, df.Empirical(p, data)._points, x, t)\n"
        "            exact = df.Empirical(p, data.double())(x.double(), t.double())\n"
        "            assert sound.all() and (y - exact).abs().max() < 2e-5, (n, offset, p)\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_memory_is_bounded_by_the_tiles():
    """No tensor is larger than the data, 1024 rows by a tile, or a tile by N: B M N would be 30 times that."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.untyped_storage().nbytes() // tensor.element_size())
            return out

    data = normal(torch.empty(4000, 50), seeded(19))
    x = normal(torch.empty(1500, 50), seeded(20))
    exact = Empirical(EDM(), data, tile=256)
    with Watch():
        exact(x, torch.tensor(0.5))
    assert largest <= max(data.numel(), 1 << 20, 1024 * 256)


def test_bad_input_is_refused():
    data = torch.zeros(5, 3)
    with pytest.raises(TypeError, match="isotropic"):
        Empirical(object(), data)
    for bad in (torch.zeros(5), torch.zeros(0, 3), torch.zeros(5, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="data must be"):
            Empirical(EDM(), bad)
    for labels in (torch.zeros(4, dtype=torch.int64), torch.zeros(5), torch.full((5,), -1)):
        with pytest.raises(ValueError, match="labels must be"):
            Empirical(EDM(), data, labels)
    with pytest.raises(ValueError, match="tile"):
        Empirical(EDM(), data, tile=0)
    exact = Empirical(EDM(), data)
    with pytest.raises(ValueError, match="x must be"):
        exact(torch.zeros(2, 4), torch.tensor(1.0))
    with pytest.raises(ValueError, match="t must be"):
        exact(torch.zeros(2, 3), torch.ones(3))
