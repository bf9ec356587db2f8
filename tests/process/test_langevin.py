"""Critically damped Langevin diffusion against the numbers of spec/gddim.md 8, and its own quadrature and level."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import integrate, stats

from driftfield.process.langevin import CLD
from driftfield.rng import normal, seeded

F64 = torch.float64
TIMES = torch.tensor([1e-3, 0.01, 0.1, 0.5, 1.0], dtype=F64)


def matrix(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64).reshape(2, 2)


def near(a: torch.Tensor, b: torch.Tensor, tol: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


def test_transition():
    """8.1, and the exponential of the drift."""
    half, zero = torch.tensor(0.5, dtype=F64), torch.tensor(0.0, dtype=F64)
    near(CLD().transition(half, zero).m, matrix(0.0915781944, 0.1465251111, -0.0366312778, -0.0549469167), 1e-10)
    back = CLD().transition(torch.tensor(0.1, dtype=F64), half).m
    near(back, matrix(-53.9715664336, -157.0081932615, 39.2520483154, 103.0366268279), 1e-10)
    for process in (CLD(), CLD(beta=1.5, mass=0.6)):
        near(process.transition(half, zero).m, torch.linalg.matrix_exp(0.5 * process.drift(half).m), 1e-13)


def test_covariance_root_and_angle():
    """8.2 and 8.3."""
    sigma = CLD().covariance(TIMES).m
    xx = [4.194081e-6, 8.249289e-4, 0.2218112320, 0.9864607582, 0.9999839705]
    xv = [2.1919649e-4, 6.7081645e-3, 0.1298597596, 0.0052868796, 7.0762e-6]
    vv = [1.75585983e-2, 7.55362118e-2, 0.2157583909, 0.2479335546, 0.2499968760]
    for got, wanted, tol in ((sigma[:, 0, 0], xx, 1e-10), (sigma[:, 0, 1], xv, 1e-10), (sigma[:, 1, 1], vv, 1e-10)):
        near(got, torch.tensor(wanted, dtype=F64), tol)
    angle = [-1.1434690426, -2.7053794309, -4.9541413842, -8.4827475643, -12.4842206105]
    near(CLD().angle(TIMES), torch.tensor(angle, dtype=F64), 2e-10)
    root = CLD().root(TIMES).m
    wanted = [
        matrix(0.00084875, 0.00186379, -0.02673631, 0.12978354),
        matrix(-0.02603203, 0.01213516, -0.2728957, -0.03262133),
        matrix(0.11275192, -0.45727261, 0.4289476, -0.17821993),
        matrix(-0.58415205, 0.80326032, -0.40580997, -0.28853392),
        matrix(0.9966196, -0.08205698, 0.04103561, 0.4983101),
    ]
    near(root, torch.stack(wanted), 6e-9)
    near(root @ root.mT, sigma, 1e-14)
    rest = torch.diag(torch.tensor([1.0, 0.25], dtype=F64))
    f, q = CLD().drift(TIMES[0]).m, CLD().diffusion(TIMES[0]).m
    near(f @ rest + rest @ f.mT + q, torch.zeros(2, 2, dtype=F64), 1e-14)


def test_the_angle_depends_on_the_jitter():
    """7.2: the numbers of the pitfalls."""
    one = TIMES[-1]
    for jitter, angle in ((1e-4, -11.396), (1e-8, -13.157), (1e-10, -13.501)):
        assert abs(CLD(jitter=jitter).angle(one).item() - angle) < 6e-4


@pytest.mark.parametrize("process", [CLD(), CLD(jitter=1e-12), CLD(beta=0.5, mass=2.0, gamma=0.0)], ids=repr)
def test_the_angle_is_the_integral_of_its_rate(process):
    """Against scipy's adaptive quadrature in the logarithm of time, to 1e-11; and at rest."""
    rate = lambda u: math.exp(u) * process._turning(torch.tensor(math.exp(u), dtype=F64)).item()
    for t in (1e-5, 0.03, 1.0, 2.5):
        parts = [math.log(1e-14), *(math.log(v) for v in (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1) if v < t)]
        ends = [*parts, math.log(t)]
        wanted = sum(integrate.quad(rate, a, b, epsabs=1e-13, epsrel=1e-13)[0] for a, b in pairwise(ends))
        wanted += 1e-14 * process._turning(torch.tensor(0.0, dtype=F64)).item()
        assert abs(process.angle(torch.tensor(t, dtype=F64)).item() - wanted) < 1e-11
    far = process.angle(torch.tensor([50.0, 51.0], dtype=F64)).diff().item()  # at rest: -beta / sqrt(mass) a unit
    assert abs(far + process.beta / math.sqrt(process.mass)) < 1e-10


def test_noise_of_one_datum():
    """8.4: along the flow of Gaussian data at (0.3, 0) the R-noise is fixed and the L-noise turns."""
    x0, eps = torch.tensor([[0.3]], dtype=F64), torch.tensor([[[0.5], [-1.2]]], dtype=F64)
    wanted = {
        1.0: (0.5968, -1.1549),
        0.8: (1.1370, 0.6303),
        0.6: (-0.6636, 1.1179),
        0.2: (0.8175, -1.0108),
        0.01: (-0.9602, 0.8764),
    }
    for t, turned in wanted.items():
        t = torch.tensor(t, dtype=F64)
        u = CLD().signal(t)(CLD().lift(x0)) + CLD().root(t)(eps)
        near(CLD().eps(u, t, x0), eps, 1e-11)
        near(-CLD().root(t).T(CLD().score(u, t, x0)), eps, 1e-11)
        near(CLD(factor="L").eps(u, t, x0)[0, :, 0], torch.tensor(turned, dtype=F64), 6e-5)
        near(CLD(factor="L").velocity(u, t, x0), CLD().velocity(u, t, x0), 1e-9)


def test_one_closed_step_is_the_flow():
    """8.5 and 8.11: `Psi(e, s)(u - R_s eps) + R_e eps`, from 1 to 1e-3, is the state of the same noise there."""
    x0, eps = torch.tensor([[0.3]], dtype=F64), torch.tensor([[[0.5], [-1.2]]], dtype=F64)
    low, high = TIMES[0], TIMES[-1]
    at = lambda t: CLD().signal(t)(CLD().lift(x0)) + CLD().root(t)(eps)
    step = CLD().transition(low, high)(at(high) - CLD().root(high)(eps)) + CLD().root(low)(eps)
    near(step, at(low), 1e-10)


def test_level_is_the_error_of_the_best_estimate():
    """`(A^T Sigma^-1 A)^(-1/2)`, from a dense inverse; the estimate `w / g` is the datum plus noise of that size."""
    a = CLD().transition(TIMES, torch.zeros_like(TIMES)).m[:, :, :1]
    wanted = (a.mT @ torch.linalg.inv(CLD().covariance(TIMES).m) @ a).flatten().rsqrt()
    torch.testing.assert_close(CLD().level(TIMES), wanted, rtol=1e-9, atol=0)
    assert math.isclose(CLD().level(torch.tensor(0.0, dtype=F64)).item(), 1e-3)
    x0 = torch.full((20_000, 1), 0.7, dtype=F64)
    for i, t in enumerate(TIMES):
        w, g = CLD().observe(CLD().perturb(x0, t, seeded(i)), t)
        torch.testing.assert_close(g, 1 / CLD().level(t))
        assert stats.kstest((w - g * 0.7).flatten().numpy(), stats.norm.cdf).pvalue > 1e-4  # 5 tests


def test_time_finds_the_first_time():
    levels = torch.tensor([0.0, 1e-5, 1e-3, 0.00101, 1.0, 80.0, 1e6, 1e30], dtype=F64)
    t = CLD().time(levels)
    assert (t[:3] == 0).all()
    torch.testing.assert_close(CLD().level(t[3:]), levels[3:], rtol=1e-10, atol=0)
    assert CLD().time(torch.tensor(0.3)).dtype == torch.float32


def test_hybrid_score_matching_hides_the_first_velocity():
    """`x_t` given `x_0` alone: the velocity at time 0 has the variance gamma mass. 40,000 draws: 4 deviations."""
    x = CLD().perturb(torch.zeros(20_000, 2, dtype=F64), torch.tensor(1e-9, dtype=F64), seeded(5))
    assert abs(x[:, 1].var().item() / 0.010001 - 1) < 4 * math.sqrt(2 / 40_000)
    prior = CLD().prior((20_000, 2), seeded(6), F64)
    for half, variance in ((0, 1.0), (1, 0.25)):  # the pitfall: the velocity's deviation is sqrt(mass)
        assert abs(prior[:, half].var().item() / variance - 1) < 4 * math.sqrt(2 / 40_000) + 2e-5


def test_upward_moves_have_the_marginal_law():
    x0 = torch.full((20_000, 1), 0.7, dtype=F64)
    s, t = torch.tensor(0.02, dtype=F64), torch.tensor(0.3, dtype=F64)
    x = CLD().diffuse(CLD().perturb(x0, s, seeded(1)), s, t, seeded(2))
    eps = CLD().eps(x, t, x0).flatten(1)
    for k in range(2):
        assert stats.kstest(eps[:, k].numpy(), stats.norm.cdf).pvalue > 1e-4
    assert abs((eps[:, 0] * eps[:, 1]).mean().item()) < 4 / math.sqrt(20_000)


def test_noise_keeps_its_shape_for_any_data():
    for event in ((), (3,), (2, 4, 4)):
        x0 = normal(torch.empty(3, *event), seeded(0))
        t = torch.rand(3, generator=seeded(1)) * 0.9 + 0.1
        assert CLD().perturb(x0, t, seeded(2)).shape == (3, 2, *event)
        assert CLD().velocity(CLD().lift(x0), t, x0).shape == (3, 2, *event)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="mass must be finite and > 0, got -1"):
        CLD(mass=-1.0)
    with pytest.raises(ValueError, match=r"gamma .* >= 0"):
        CLD(gamma=-0.1)
    with pytest.raises(ValueError, match=r"'R' or 'L'.*'Q'"):
        CLD(factor="Q")
    with pytest.raises(ValueError, match=r"\(B, 2, \.\.\.\), got \(4, 3\)"):
        CLD().observe(torch.zeros(4, 3), TIMES[0])
