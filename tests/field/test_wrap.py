"""The flow with its divergence: exact against a Jacobian's trace, estimates by their law."""

from __future__ import annotations

import math

import pytest
import torch

import driftfield as df
from driftfield.field.wrap import Counted, WithDivergence
from driftfield.likelihood import _NOISES
from driftfield.rng import normal, rows, seeded

F64 = torch.float64


def model(process):
    means = torch.tensor([[1.0, -0.5, 0.2], [-0.8, 0.6, 0.1]], dtype=F64)
    root = normal(torch.empty(2, 3, 3, dtype=F64), seeded(7))
    return df.Mixture(process, torch.tensor([0.3, 0.7], dtype=F64), means, 0.2 * root @ root.mT)


def traces(field, x, t):
    """The trace of each row's Jacobian."""
    one = lambda row: torch.autograd.functional.jacobian(lambda z: field.velocity(z[None], t)[0].flatten(), row)
    return torch.stack([one(row).reshape(row.numel(), row.numel()).trace() for row in x])


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.Rectified(), df.PFGMPP(D=4.0), df.PFGM()], ids=str)
@pytest.mark.parametrize("make", [model, lambda p: df.Empirical(p, normal(torch.empty(9, 3, dtype=F64), seeded(1)))])
def test_the_exact_divergence_is_the_trace(process, make):
    field = df.Reverse(process, make(process))
    x, t = normal(torch.empty(5, 3, dtype=F64), seeded(0)), process.time(torch.tensor(0.6, dtype=F64))
    flow = WithDivergence(field, (3,))
    z = flow.velocity(flow.pack(x), t)
    v, divergence = flow.unpack(z)
    torch.testing.assert_close(v, field.velocity(x, t))
    torch.testing.assert_close(divergence[:, 0], traces(field, x, t), rtol=1e-9, atol=1e-9)
    per_row = flow.velocity(flow.pack(x), t.expand(5))
    torch.testing.assert_close(per_row, z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_estimates_are_unbiased_with_the_variance_of_their_law(noise):
    """Mean within 5 deviations; variance `2 |S|^2` for normal probes, less the diagonal's part for signs, S symmetric.

    With 40,000 probes a variance is known to about `sqrt(kurtosis / n)` < 3 %, here allowed 15 %.
    """
    process, count = df.EDM(), 40_000
    field = df.Reverse(process, model(process))
    x, t = normal(torch.empty(1, 3, dtype=F64), seeded(0)), torch.tensor(0.6, dtype=F64)
    jacobian = torch.autograd.functional.jacobian(lambda z: field.velocity(z[None], t)[0], x[0])
    even = (jacobian + jacobian.mT) / 2
    square = even.square().sum() - (even.diagonal().square().sum() if noise == "rademacher" else 0)
    probes = _NOISES[noise](torch.empty(1, count, 3, dtype=F64), rows(0, 0, 1))
    estimates = (probes[0] * (probes[0] @ jacobian)).sum(1)  # what `velocity` gives, all at once
    few = WithDivergence(field, (3,), probes[:, :50])
    torch.testing.assert_close(few.unpack(few.velocity(few.pack(x), t))[1][0], estimates[:50])
    deviation = math.sqrt(2 * square)
    assert abs(estimates.mean() - jacobian.trace()) < 5 * deviation / math.sqrt(count)
    assert estimates.var().item() == pytest.approx(2 * square.item(), rel=0.15)


def test_signs_are_exact_in_one_dimension_and_where_coordinates_are_apart():
    """A diagonal Jacobian times signs squared: whatever the sign, and whatever the data's shape."""
    process, t = df.VP(), torch.tensor(0.4, dtype=F64)
    x = normal(torch.empty(4, 2, 3, dtype=F64), seeded(2))
    field = df.Reverse(process, df.Normal(process, 0.1, torch.linspace(0.2, 1, 6, dtype=F64).reshape(2, 3)))
    exact = WithDivergence(field, (2, 3))
    signs = WithDivergence(field, (2, 3), _NOISES["rademacher"](torch.empty(4, 2, 2, 3, dtype=F64), seeded(0)))
    one, two = (w.unpack(w.velocity(w.pack(x), t))[1] for w in (exact, signs))
    assert two.shape == (4, 2)
    torch.testing.assert_close(two, one.expand(4, 2), rtol=1e-12, atol=1e-12)


def test_errors_of_the_integral_are_not_diluted():
    """One number beside a thousand: the norm is at least its own."""
    flow = WithDivergence(df.Reverse(df.EDM(), df.Point(torch.zeros(1000))), (1000,))
    error = torch.zeros(2, 1001)
    error[0, -1], error[1, 0] = 3.0, 3.0
    torch.testing.assert_close(flow.size(error), torch.tensor([3.0, 3 / math.sqrt(1000)]))


def test_what_does_not_fit_is_refused():
    field = df.Reverse(df.EDM(), df.Point(torch.zeros(3)))
    for shape in ((2, 3), (2, 0, 3), (2, 1, 4)):
        with pytest.raises(ValueError, match=r"probes should be \(B, P, 3\)"):
            WithDivergence(field, (3,), torch.zeros(shape))
    with pytest.raises(TypeError, match="climbs by noise"):
        WithDivergence(field, (3,)).diffuse(torch.zeros(1, 4), torch.tensor(0.1), torch.tensor(1.0), seeded(0))


def test_calls_are_counted():
    counted = Counted(df.Point(torch.zeros(3)))
    df.generate(df.EDM(), counted, (5, 3), nfe=9)
    assert counted.calls == 9
