"""Power-function averages: what their profiles are, and how one is rebuilt from others."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from driftfield.recipe import WIDEST, Training
from driftfield.train.ema import Profile, average_of, combination, follow, gamma_of, inner, spread_of, width_of

WIDTHS = [1e-4, 0.005, 0.03, 0.05, 0.1, 0.2, 0.28, WIDEST]


def profile(p: Profile):
    g = gamma_of(p.sigma_rel)
    return lambda u: (g + 1) / p.step * (u / p.step) ** g if u <= p.step else 0.0


def evenly(steps, count, widths=(0.1, 0.05)):
    return [Profile(w, round(k * steps / count)) for k in range(1, count + 1) for w in widths]


def test_the_exponent_and_the_width_are_each_others_inverse():
    for width in WIDTHS:
        assert width_of(gamma_of(width)) == pytest.approx(width, rel=1e-13)
        t = width**-2
        roots = np.roots([1, 7, 16 - t, 12 - t])  # the cubic of the paper's Algorithm 2
        assert gamma_of(width) == pytest.approx(max(roots.real), rel=1e-9, abs=1e-12)
    assert gamma_of(WIDEST) == pytest.approx(0, abs=1e-14)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)  # the values that the paper prints
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2, WIDEST])
def test_the_width_is_the_standard_deviation_of_the_profile(width):
    p = profile(Profile(width, 10))
    moment = [quad(lambda u, k=k: u**k * p(u), 0, 10, epsabs=1e-13)[0] for k in range(3)]
    assert moment[0] == pytest.approx(1, rel=1e-10)  # to the accuracy of the quadrature
    assert (moment[2] - moment[1] ** 2) ** 0.5 / 10 == pytest.approx(width, rel=1e-8)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.2888, float("nan"), float("inf")])
def test_widths_that_no_profile_has_are_refused(width):
    with pytest.raises(ValueError, match=r"above 0 and at most 0\.2887"):
        gamma_of(width)
    with pytest.raises(ValueError, match=r"ema lists different widths"):
        Training(ema=(0.1, width))


def test_training_takes_one_width_or_more_each_once():
    for wrong in ((), (0.1, 0.1)):
        with pytest.raises(ValueError, match="ema lists different widths"):
            Training(ema=wrong)
    with pytest.raises(ValueError, match="snapshots counts"):
        Training(snapshots=-1)


@pytest.fixture(scope="module")
def walk():
    """Weights that a training might take: 400 steps of a random walk that settles, float64 `(401, 5)`."""
    rng = torch.Generator().manual_seed(0)
    moves = torch.randn(401, 5, generator=rng, dtype=torch.float64) * torch.linspace(1, 0.05, 401)[:, None].double()
    return 3 + moves.cumsum(0)


def tracked(walk, width):
    """The average after every step, as the loop makes it: `walk[0]` is the start, `walk[k]` the weights at step k."""
    model = torch.nn.Linear(5, 1, bias=False).double()
    model.weight.data[0] = walk[0]
    average, found = average_of(model), [walk[0]]
    for k in range(1, len(walk)):
        model.weight.data[0] = walk[k]
        follow(average, model, k, width)
        found.append(average.weight[0].clone())
    return torch.stack(found)


@pytest.mark.parametrize("width", [0.02, 0.1, WIDEST])
def test_following_is_the_integral_of_the_profile(walk, width):
    """The weight of step k is the integral of the profile over (k - 1, k], to rounding; they sum to 1."""
    found = tracked(walk, width)
    for t in (1, 2, 7, 400):
        edges = (torch.arange(t + 1, dtype=torch.float64) / t) ** (gamma_of(width) + 1)
        shares = edges.diff()
        assert shares.sum().item() == pytest.approx(1, abs=1e-14)
        torch.testing.assert_close(found[t], shares @ walk[1 : t + 1], rtol=1e-12, atol=1e-12)


def test_the_widest_average_is_the_plain_mean_and_the_first_step_is_forgotten(walk):
    torch.testing.assert_close(tracked(walk, WIDEST)[400], walk[1:].mean(0), rtol=1e-12, atol=0)
    other = walk.clone()
    other[0] += 1e6
    assert torch.equal(tracked(other, 0.1)[1:], tracked(walk, 0.1)[1:])


def test_buffers_are_copied():
    model = torch.nn.BatchNorm1d(3)
    average = average_of(model)
    model.running_mean.fill_(7.0)
    model.num_batches_tracked.fill_(5)
    follow(average, model, 100, 0.1)
    assert torch.equal(average.running_mean, model.running_mean)
    assert average.num_batches_tracked.item() == 5


def test_inner_products_against_quadrature():
    ps = [Profile(w, s) for w in (0.03, 0.1, 0.25, WIDEST) for s in (3, 40, 100)]
    found = inner(ps, ps[::-1])
    for i, a in enumerate(ps):
        for j, b in enumerate(ps[::-1]):
            p, q = profile(a), profile(b)
            exact = quad(lambda u, p=p, q=q: p(u) * q(u), 0, min(a.step, b.step), epsrel=1e-12)[0]
            assert found[i, j] == pytest.approx(exact, rel=1e-7)  # what the quadrature of u^gamma gives


def test_a_stored_profile_is_given_back_exactly():
    for steps, count in ((24, 24), (900, 16), (10**7, 64)):
        stored = evenly(steps, count)
        for i in (len(stored) - 1, len(stored) // 2):
            weights, error = combination(stored, stored[i])
            np.testing.assert_allclose(weights, np.eye(len(stored))[i], atol=1e-8)
            assert error < 1e-7


@pytest.mark.parametrize("wanted", [Profile(0.07, 900), Profile(0.2, 900), Profile(0.03, 900), Profile(0.07, 450)])
def test_the_combination_is_the_nearest_of_those_that_sum_to_1(wanted):
    """At the least, no direction that keeps the sum goes down: the gradient has equal entries."""
    stored = evenly(900, 16)
    weights, error = combination(stored, wanted)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    slope = inner(stored, stored) @ weights - inner(stored, [wanted])[:, 0]
    scale = np.sqrt(inner([wanted], [wanted])[0, 0] * np.diag(inner(stored, stored)).max())
    assert np.ptp(slope) < 1e-11 * scale
    assert 0 < error < 0.1


@pytest.mark.parametrize("wanted", [0.01, 0.07, 0.25])
def test_rounding_is_part_of_what_is_least(wanted):
    """The same of the sum of both squares, for a rounding of a hundredth of the scatter of single steps: no stored
    average is expected to be nearer, nor is what least squares alone would take."""
    stored, p, spread, rounding = evenly(1024, 32, (0.05, 0.1, 0.15, 0.2)), Profile(wanted, 1024), 0.1, 1e-3
    weights, error = combination(stored, p, spread, rounding)
    gram = inner(stored, stored)
    slope = spread**2 * (gram @ weights - inner(stored, [p])[:, 0]) + rounding**2 * weights
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.ptp(slope) < 1e-11 * spread**2 * np.sqrt(inner([p], [p])[0, 0] * np.diag(gram).max())
    total = lambda w: spread**2 * (w @ gram @ w - 2 * w @ inner(stored, [p])[:, 0]) + rounding**2 * w @ w
    assert all(total(weights) < total(one) for one in np.eye(len(stored)))
    plain, closer = combination(stored, p)
    assert closer < error
    assert total(weights) < total(plain)


def test_the_spread_of_single_steps_is_found():
    """From two averages of steps that scatter independently about a constant, in 20,000 places: to 4 / sqrt(40,000)."""
    rng = torch.Generator().manual_seed(1)
    path = 1 + 0.2 * torch.randn(400, 20_000, generator=rng, dtype=torch.float64)
    p, q = Profile(0.1, 400), Profile(0.05, 400)
    a, b = ((torch.arange(401, dtype=torch.float64) / 400).pow(gamma_of(x.sigma_rel) + 1).diff() @ path for x in (p, q))
    assert spread_of(p, [a], q, [b]) == pytest.approx(0.2, rel=0.02)
    assert spread_of(p, [a[:7], a[7:]], q, [b[:7], b[7:]]) == pytest.approx(spread_of(p, [a], q, [b]), rel=1e-12)
    assert spread_of(p, [a], q, [a]) == spread_of(p, [0 * a], q, [0 * a]) == 0


def test_the_error_is_that_of_the_profile():
    stored, wanted = evenly(60, 4), Profile(0.07, 60)
    weights, error = combination(stored, wanted)
    ps, p = [profile(s) for s in stored], profile(wanted)
    miss = lambda u: (sum(w * q(u) for w, q in zip(weights, ps, strict=True)) - p(u)) ** 2
    cuts = sorted({s.step for s in stored})
    exact = sum(quad(miss, a, b, epsabs=1e-14)[0] for a, b in zip([0, *cuts], cuts, strict=False))
    assert error**2 == pytest.approx(exact / inner([wanted], [wanted])[0, 0], rel=1e-6)


@pytest.mark.parametrize("count", [8, 16, 32])
@pytest.mark.parametrize("wanted", [0.03, 0.07, 0.15, 0.2])
def test_a_rebuilt_average_is_near_the_one_tracked_directly(walk, count, wanted):
    """Averages are integrals of a profile times the path of the weights, constant over each step. By Cauchy and
    Schwarz the rebuilt one is off by at most the profile's error, times the norm of the profile, times that of the path
    about any constant, for the weights of the combination sum to 1."""
    every = {w: tracked(walk, w) for w in (0.1, 0.05, wanted)}
    stored = evenly(400, count)
    weights, error = combination(stored, Profile(wanted, 400))
    rebuilt = sum(w * every[s.sigma_rel][s.step] for w, s in zip(weights, stored, strict=True))
    off = (rebuilt - every[wanted][400]).abs()
    norm = inner([Profile(wanted, 400)], [Profile(wanted, 400)])[0, 0] ** 0.5
    about = walk[1:] - every[wanted][400]
    bound = error * norm * about.square().sum(0).sqrt()
    assert (off <= bound + 1e-9).all()


@pytest.mark.parametrize("wanted", [0.03, 0.07, 0.15, 0.2])
def test_twice_the_snapshots_are_a_quarter_of_the_error(wanted):
    """Between two snapshots two profiles of different widths meet a smooth one to second order in their distance."""
    errors = [combination(evenly(32_000, n), Profile(wanted, 32_000))[1] for n in (32, 64, 128)]
    for wide, narrow in pairwise(errors):
        assert 3.4 < wide / narrow < 4.2
