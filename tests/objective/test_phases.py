"""Variances of training targets: closed forms, enumeration, and what is said of them."""

from __future__ import annotations

import math

import pytest
import torch

import driftfield as df
from driftfield.objective.laws import LogUniform
from driftfield.objective.phases import ROWS, Phases, phases, uneven
from driftfield.rng import normal, seeded

from .test_stable import TABLE

F64 = torch.float64
GROUPS = 16


def within(found, exact, error):
    """Within four standard errors, taken from 400 groups: one time in 16,000 further out."""
    assert abs(found - exact) < 4 * error


@pytest.mark.parametrize("level", TABLE)
def test_two_points_have_the_exact_variances(level):
    """spec/stf.md 10.4, at sizes that are drawn with replacement: 32 copies of each point are the two points."""
    x = torch.tensor([0.8, -0.8], dtype=F64).repeat(32)[:, None]
    found = phases(df.EDM(), x, [level], tuple(TABLE[level]), groups=400)
    within(found.single[0], TABLE[level][1], found.single_error[0])
    for size, stable, error in zip(found.sizes, found.stable, found.stable_error, strict=True):
        within(stable[0], TABLE[level][size], error[0])


def test_two_narrow_gaussians_have_the_closed_form():
    """spec/stf.md 10.5, with each Gaussian a point: the second term alone, in 64 dimensions."""
    mu = torch.full((64,), 0.1, dtype=F64)
    exact = {
        0.3: 0.92635,
        0.4: 1.7149,
        0.436: 1.7663,
        0.5: 1.6655,
        0.7: 0.97031,
        1.0: 0.37370,
        2.0: 0.034426,
        5.0: 9.984e-4,
    }
    found = phases(df.EDM(), torch.stack((mu, -mu)), tuple(exact), (), groups=400)
    for value, variance, error in zip(exact.values(), found.single, found.single_error, strict=True):
        within(variance, value, error)
    assert found.single_error[-1] < 1e-3 * found.single[-1]


def test_gaussian_data_have_the_gaussians_variance():
    """`Tr Cov = n s^2 sigma^2 / (s^2 + sigma^2)`, of data whose own variance is `s^2` to `sqrt(2 / n M)`."""
    s, n, m = 0.7, 3, 20_000
    data = s * normal(torch.empty(m, n, dtype=F64), seeded(3))
    found = phases(df.EDM(), data, [1.0, 2.0], (64,), groups=32)
    for level, variance, error in zip(found.levels, found.single, found.single_error, strict=True):
        exact = n * s**2 * level**2 / (s**2 + level**2) / level**4
        assert abs(variance - exact) < 4 * error + 4 * exact * (2 / (n * m)) ** 0.5


@pytest.mark.parametrize(
    "process", [df.EDM(), df.VP(), df.PFGM(), df.PFGMPP(D=8.0)], ids=lambda p: f"{type(p).__name__}{p.span}"
)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_against_the_definition(process, dtype):
    """The same draws by `log_kernel` and differences, for all data and for a reference, far from 0."""
    data = 5 + normal(torch.empty(60, 4, dtype=F64), seeded(1))
    level, size = 0.9, 7
    t = process.time(torch.tensor(level, dtype=F64))
    found = phases(process, data.to(dtype), [level], (size,))
    single, stable, among, everyone, uneven_ = [], [], [], [], []
    for group in range(GROUPS):
        rng = seeded(0, group)
        source = torch.empty(ROWS, dtype=torch.int64).random_(60, generator=rng)
        others = torch.empty(size - 1, dtype=torch.int64).random_(60, generator=rng)
        x0 = data[source]
        x = process.alpha(t) * x0 + process.perturb(torch.zeros_like(x0), t, seeded(0, group, 0))
        w = process.log_kernel(x, t, data).softmax(1)
        mean = w @ data
        single.append((w * (data[None] - mean[:, None]).square().sum(2)).sum(1))
        everyone.append(1 / w.square().sum(1))
        y = 1 / (60 * w)
        f = torch.where(y < 1.5, (1 / y - 1).square(), 8 * y / 27 - 1 / 3)
        uneven_.append((w * f).sum(1))
        for i in range(ROWS):
            which = torch.cat((source[i : i + 1], others))
            part = process.log_kernel(x[i : i + 1], t, data[which]).softmax(1)[0]
            stable.append((part @ data[which] - mean[i]).square().sum())
            once = torch.zeros(60, dtype=F64).index_add(0, which, part)
            among.append(1 / once.square().sum())
    # float32 rounds products of data of size 10 to 1e-6, which the weights divide by the squared level
    close = {"rel": 1e-10 if dtype == F64 else 1e-4}
    assert found.single[0] == pytest.approx(torch.cat(single).mean().item() / level**4, **close)
    assert found.stable[0][0] == pytest.approx(torch.stack(stable).mean().item() / level**4, **close)
    assert found.among_all[0] == pytest.approx(torch.cat(everyone).mean().item(), **close)
    assert found.among[0][0] == pytest.approx(torch.stack(among).mean().item(), **close)
    assert found.divergence[0] == pytest.approx(torch.cat(uneven_).mean().item(), **close)


def test_no_variance_is_made_by_rounding():
    """At a level where no two data compete the variance is the true one, 1e-20 and less, also in float32."""
    data = normal(torch.empty(500, 50), seeded(1)) + 3
    found = phases(df.EDM(), data, [0.05], (100,))
    assert found.single[0] < 1e-20
    assert found.stable[0][0] < 1e-20
    assert found.among[0][0] == pytest.approx(1, abs=1e-12)


def test_how_uneven_weights_are():
    """spec/stf.md 10.6: 0 at y = 1, 1/9 at 1.5 from both sides with the same slope, (M - 1)^2 for one certain datum."""
    assert uneven(torch.full((1, 7), 1 / 7, dtype=F64)).item() == pytest.approx(0, abs=1e-30)
    certain = torch.zeros(1, 9, dtype=F64)
    certain[0, 0] = 1
    assert uneven(certain).item() == pytest.approx(8**2 + 8 * 8 / (27 * 9))
    f = lambda y: uneven(torch.tensor([[1 / y]], dtype=F64)).item() * y  # one datum: w f(1 / w)
    h = 1e-6
    assert f(1.5 - 1e-12) == pytest.approx(1 / 9, rel=1e-9)
    assert f(1.5 + 1e-12) == pytest.approx(1 / 9, rel=1e-9)
    for start in (1.5 - h, 1.5):
        assert (f(start + h) - f(start)) / h == pytest.approx(8 / 27, rel=1e-5)
    values = [f(0.2 + 0.1 * k) for k in range(40)]
    assert all(a + c >= 2 * b - 1e-12 for a, b, c in zip(values, values[1:], values[2:], strict=False))


@pytest.fixture(scope="module")
def found():
    data = normal(torch.empty(400, 20), seeded(1))
    return phases(df.EDM(), data, torch.logspace(-1.5, 2, 15).tolist(), (16, 128, 4096))


def test_three_phases_in_order(found):
    assert found.sizes == (16, 128)
    assert list(found.phase) == sorted(found.phase)
    assert set(found.phase) == {1, 2, 3}
    assert found.among_all[0] == pytest.approx(1)
    assert found.among_all[-1] == pytest.approx(400, rel=0.02)
    far = found.stable[1][-1] / found.single[-1]  # V_STF ~ V_DSM / n there: Theorem 2
    assert far == pytest.approx(1 / 128, rel=0.2)


def test_a_larger_reference_helps_from_lower_levels_on(found):
    small, large = (found.onset(n) for n in found.sizes)
    assert found.levels[0] < large < small < found.levels[-1]
    law = LogUniform(found.levels[0], found.levels[-1])
    whole = math.log(found.levels[-1] / found.levels[0])
    for size, onset in zip(found.sizes, (small, large), strict=True):
        exact = math.log(found.levels[-1] / onset) / whole
        assert found.share(df.EDM(), law, size) == pytest.approx(exact, abs=5 * 0.5 / 256)
        assert found.share(df.VP(), law, size) == pytest.approx(exact, abs=5 * 0.5 / 256)
    assert found.onset(128) == found.onset(128)
    with pytest.raises(ValueError, match="references of 16, 128 were measured, not of 5"):
        found.onset(5)


def test_onsets_at_the_ends(found):
    fields = {**{k: v for k, v in found.as_dict().items() if k != "phase"}, "sizes": (8,)}
    assert Phases(**{**fields, "among": ((2.0,) * 15,)}).onset(8) == found.levels[0]
    assert Phases(**{**fields, "among": ((1.0,) * 15,)}).onset(8) == math.inf
    assert Phases(**{**fields, "among": ((1.0,) * 15,)}).share(df.EDM(), LogUniform(), 8) == 0


def test_the_text_has_a_line_for_each_level(found):
    lines = str(found).splitlines()
    assert len(lines) == 16
    assert "V_STF(128)" in lines[0]
    assert lines[1].split()[1] == "1"
    assert lines[-1].split()[1] == "3"


def test_bad_questions_are_refused():
    with pytest.raises(ValueError, match="two data or more"):
        phases(df.EDM(), torch.zeros(1, 3), [1.0])
    with pytest.raises(ValueError, match="two groups or more, got groups=1"):
        phases(df.EDM(), torch.zeros(3, 3), [1.0], groups=1)
    for levels in ([], [0.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="levels must rise from above 0"):
            phases(df.EDM(), torch.zeros(3, 3), levels)
