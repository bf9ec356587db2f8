"""PFGM: the field of charges, the law of the training points, the target, and a network that predicts it."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

import driftfield as df
from driftfield.objective.base import Batch
from driftfield.plain import from_plain, to_plain
from driftfield.rng import rows, seeded
from driftfield.settings import read

F64 = torch.float64


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def ready(n: int = 3, sigma_data: float = 1.0, **given) -> df.PoissonField:
    """The objective for data `(n,)`, resolved."""
    return df.PoissonField(**given).resolved(sigma_data, (n,))


# --- the field ----------------------------------------------------------------------------------------------------


def raw_field(at: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """`1 / S_N(1)` times the mean of the charges' fields at points `(B, N + 1)`, by the formula itself."""
    n = data.shape[1]
    area = 2 * math.pi ** ((n + 1) / 2) / math.gamma((n + 1) / 2)
    gap = at[:, None] - torch.cat((data, torch.zeros(len(data), 1, dtype=F64)), 1)
    return (gap / gap.norm(dim=2, keepdim=True) ** (n + 1)).mean(1) / area


def test_the_empirical_field_is_the_coulomb_field_up_to_length():
    """`E = (x - mean, z)` is parallel to the field by its formula, at any reference."""
    data, x = normals(20, 3), normals(50, 3, seed=1)
    z = torch.logspace(-2, 1, 50, dtype=F64)
    v = ready().target(x, z, data)
    e = raw_field(torch.cat((x, z[:, None]), 1), data)
    torch.testing.assert_close(
        v / v.norm(dim=1, keepdim=True), -e / e.norm(dim=1, keepdim=True), rtol=1e-11, atol=1e-11
    )


def test_one_charge_is_radial():
    """spec/pfgm.md 8.1: the field points away from it, and Euler in z is exact in any number of steps."""
    y, x = normals(1, 4), 10 * normals(6, 4, seed=1)
    z = torch.full((6,), 3.0, dtype=F64)
    v = ready(4).target(x, z, y)
    away = torch.cat((x - y, z[:, None]), 1)
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(v, -away), torch.ones(6, dtype=F64))
    process = df.PFGM()
    grid = df.geometric(process, 4)[:-1]
    end = df.sample(df.Reverse(process, df.Empirical(process, y)), x, grid, df.Euler(), seeded(0))
    torch.testing.assert_close(end, y + (x - y) * (1e-3 / 40), rtol=1e-12, atol=1e-12)


def test_flux_through_a_closed_surface_is_the_enclosed_charge():
    """Gauss: over spheres in R^3 (N = 2), half above and half below the plane; 0, 1 or 3 of 5 charges inside (8.13)."""
    data = torch.tensor([[0.0, 0.0], [0.5, 0.2], [0.3, -0.4], [3.0, 0.0], [0.0, 4.0]], dtype=F64)
    cos, weight = map(torch.from_numpy, __import__("numpy").polynomial.legendre.leggauss(60))
    angle = torch.arange(120, dtype=F64) * (2 * math.pi / 120)
    sin = (1 - cos**2).sqrt()
    normal = torch.stack(
        ((sin[:, None] * angle.cos()).flatten(), (sin[:, None] * angle.sin()).flatten(), cos.repeat_interleave(120)), 1
    )
    patch = weight.repeat_interleave(120) * (2 * math.pi / 120)
    for centre, radius, inside in (((0.2, 0.0, 0.1), 1.5, 3), ((3.0, 0.0, 0.0), 1.0, 1), ((0.0, 0.0, 3.0), 1.5, 0)):
        at = torch.tensor(centre, dtype=F64) + radius * normal
        flux = (patch * radius**2 * (raw_field(at, data) * normal).sum(1)).sum().item()
        assert flux == pytest.approx(inside / 5, abs=1e-9)


def test_the_raw_field_has_no_divergence_off_the_data():
    data, at = normals(7, 3), normals(5, 4, seed=2) + 3
    jacobian = torch.autograd.functional.jacobian(lambda p: raw_field(p, data).sum(0), at)
    divergence = torch.stack([jacobian[i, :, i] for i in range(4)]).sum(0)
    assert divergence.abs().max() < 1e-14


def test_target_length_and_its_inverse():
    """8.9, and 8.2: E_z is z, whatever gamma, which never changes the direction; -v_z is positive."""
    data, x, z = normals(30, 3), 2 * normals(9, 3, seed=1), torch.logspace(-3, 1, 9, dtype=F64)
    mean = df.Empirical(df.PFGM(), data)(x, z)
    e = torch.cat((x - mean, z[:, None]), 1)
    for gamma in (0.05, 5.0):
        v = ready(gamma=gamma).target(x, z, data)
        a = v.norm(dim=1) / math.sqrt(3)
        torch.testing.assert_close(a, e.norm(dim=1) / (e.norm(dim=1) + gamma))
        torch.testing.assert_close(gamma * a / (1 - a), e.norm(dim=1))
        torch.testing.assert_close(v[:, :-1] / v[:, -1:], (x - mean) / z[:, None], rtol=1e-9, atol=1e-9)


def test_it_is_the_direction_of_pfgm_plus_plus_at_one_extra_dimension():
    """8.12: same weights, same mean, same flow, by the general process."""
    data, x, t = normals(40, 3), normals(8, 3, seed=1), torch.logspace(-2, 1, 8, dtype=F64)
    v = ready().target(x, t, data)
    general = df.PFGMPP(D=1.0)
    flow = general.velocity(x, t, df.Empirical(general, data)(x, t))
    torch.testing.assert_close(v[:, :-1] / v[:, -1:], flow, rtol=1e-9, atol=1e-9)


def test_divergence_of_the_drift():
    """8.10: `N + (N + 1) sum_i w_i (x_i - mean) . (x - x_i) / rho_i^2`, against autograd."""
    data, x, z = normals(12, 3), normals(1, 3, seed=1), number(0.7)
    drift = lambda p: (p - df.Empirical(df.PFGM(), data)(p, z)).sum(0)
    trace = torch.autograd.functional.jacobian(drift, x)[:, 0].trace()
    square = (x - data).square().sum(1) + z**2
    w = torch.softmax(-2 * square.log(), 0)
    rest = (w * ((data - w @ data) * (x - data)).sum(1) / square).sum()
    assert trace.item() == pytest.approx(3 + 4 * rest.item(), rel=1e-10)


def test_stream_function_in_one_dimension():
    """8.4: the flow is a quantile map; data {-1, 0.2, 1.5}, from x = 2 at z = 5 to 0.55481238 at z = 0.3."""
    process, data = df.PFGM(), torch.tensor([[-1.0], [0.2], [1.5]], dtype=F64)
    left = lambda x, z: 1 - torch.atan2(number(z), x - data[:, 0]).mean().item() / math.pi
    field = df.Reverse(process, df.Empirical(process, data))
    grid = torch.tensor([5.0, 0.3], dtype=F64)
    solver = df.DormandPrince(1e-11, 1e-11, clock="log", most=20_000)
    end = df.sample(field, torch.tensor([[2.0]], dtype=F64), grid, solver, seeded(0)).item()
    assert end == pytest.approx(0.55481238, abs=1e-8)
    assert left(2.0, 5.0) == pytest.approx(0.60458005, abs=1e-8)
    assert left(end, 0.3) == pytest.approx(0.60458005, abs=1e-8)


def test_the_disk_collapses_without_the_extra_dimension_and_not_with_it():
    """6.1: a uniform disk of radius a, from 5 a. In the plane every path ends in the centre; with z, in the disk.

    The disk is 2,400 points on a sunflower spiral, whose moments are those of the disk to 1e-3. The latents are 600
    quantiles of the prior's radius, evenly around, so nothing is random; landing points then have the moments
    E r = 2 a / 3 and E r^2 = a^2 / 2 within 3 %, the spacing of the latents.
    """
    index = torch.arange(2400, dtype=F64) + 0.5
    spiral = lambda radius, k: torch.stack((radius * (2.399963 * k).cos(), radius * (2.399963 * k).sin()), 1)
    disk = spiral((index / 2400).sqrt(), index)
    x = spiral(torch.full((12,), 5.0, dtype=F64), torch.arange(12, dtype=F64))
    for _ in range(400):  # dx/dt = -E of a uniform disk, unscaled: x / (2 pi a^2) inside, x / (2 pi r^2) outside
        x = x - 0.5 * x / (2 * math.pi * x.norm(dim=1, keepdim=True).clamp(min=1) ** 2)
    assert x.norm(dim=1).max() < 1e-5
    process = df.PFGM(span=(1e-3, 20.0))
    k = torch.arange(600, dtype=F64)
    radius = 20 * (1 / (1 - (k + 0.5) / 600) ** 2 - 1).sqrt()  # P(R > r) = z / sqrt(r^2 + z^2)
    field = df.Reverse(process, df.Empirical(process, disk))
    end = df.sample(field, spiral(radius, k), df.geometric(process, 60), df.Heun(), seeded(0)).norm(dim=1)
    assert end.mean().item() == pytest.approx(2 / 3, rel=0.03)
    assert end.square().mean().item() == pytest.approx(1 / 2, rel=0.03)


# --- the points of training ---------------------------------------------------------------------------------------


def moved(objective: df.PoissonField, n: int, N: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """The points at which a network is trained for `n` sources at 0: what it is asked."""
    seen = {}

    def network(x, z, cond=None, field=False):
        seen["x"], seen["z"] = x, z
        return torch.zeros(len(x), N + 1, dtype=F64)

    x0 = torch.zeros(n, N, dtype=F64)
    objective({"denoiser": network}, Batch(x0, None, x0[:1], None), seeded(seed))
    return seen["x"], seen["z"]


def test_training_points_are_uniform_on_hemispheres():
    """8.5: at fixed m, `z^2 / (|x|^2 + z^2)` is Beta(1/2, N/2), mean 1 / (N + 1): the forward marginal given z."""
    objective = ready(3, M=1e-9, sigma=1.0, restrict=1.0)
    x, z = moved(objective, 20_000, 3)
    share = z**2 / (x.square().sum(1) + z**2)
    assert stats.kstest(share.numpy(), stats.beta(0.5, 1.5).cdf).pvalue > 1e-3
    assert abs(share.mean().item() - 1 / 4) < 5 * stats.beta(0.5, 1.5).std() / 20_000**0.5
    assert stats.kstest((z**2).numpy(), stats.chi2(1).cdf).pvalue > 1e-3


def test_large_displacements_are_restricted_where_z_is_small():
    """`P(|h| < 1/2) = 0.38292` (8.5): there, and only there, m stays below 0.7 M."""
    objective = ready(1, M=200.0, sigma=0.01, restrict=0.7)
    n = 40_000
    z, scale = objective._draw(torch.empty(n, 1, dtype=F64), seeded(4))
    h, m = z / scale, (scale / 0.01).log() / math.log(1.03)
    small = h < 0.5
    assert abs(small.double().mean().item() - 0.38292) < 5 * (0.38292 * 0.61708 / n) ** 0.5
    assert stats.kstest((m[~small] / 200).numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest((m[small] / 140).numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(objective.times(objective.process, torch.empty(n, 1, dtype=F64), seeded(4)), z)


def test_rules_of_thumb():
    """8.7 and 6.3: published M give the published spans and clips; the toy's M is 243, z up to 10.5, clip 18.6."""
    published = df.PoissonField(sigma=0.01, M=291.0).resolved(0.5, (3, 32, 32)).process
    assert published.span[1] == pytest.approx(43.41, abs=0.01)
    assert published.clip == pytest.approx(3015.4, abs=0.1)
    assert df.PoissonField(sigma=0.01, M=291.0).resolved(0.5, (3, 64, 64)).process.clip == pytest.approx(6031, abs=1)
    bedroom = df.PoissonField(sigma=0.01, M=356.0).resolved(0.5, (3, 256, 256)).process
    assert bedroom.span[1] == pytest.approx(296.5, abs=0.1)
    assert bedroom.clip == pytest.approx(1.648e5, rel=1e-3)
    cifar = df.PoissonField(sigma=0.01).resolved((900 / 3072) ** 0.5, (3, 32, 32))
    assert abs(cifar.M - 286.8) < 0.1
    toy = df.PoissonField(sigma=0.01).resolved((4.02 / 2) ** 0.5, (2,))
    assert abs(toy.M - 243) < 1
    assert toy.process.span[1] == pytest.approx(10.5, abs=0.15)
    assert toy.process.clip == pytest.approx(18.6, abs=0.3)


def test_what_is_chosen_stays():
    process = df.PFGM(span=(0.01, 7.0))
    kept = df.PoissonField(process, sigma=0.1, M=50.0, gamma=0.3).resolved(2.0, (5,))
    assert (kept.process, kept.sigma, kept.M, kept.gamma) == (process, 0.1, 50.0, 0.3)
    small, large = (df.PoissonField().resolved(s, (4,)) for s in (1.0, 10.0))
    assert abs(large.M - small.M) < 1e-9  # all lengths scale with the data
    assert large.process.span == pytest.approx([10 * t for t in small.process.span])
    assert (large.gamma, large.process.clip) == pytest.approx((10 * small.gamma, 10 * small.process.clip))


def test_a_prior_without_a_clip_is_asked_for():
    """By an infinite clip, which keeps the published times and survives JSON; the default process is filled in."""
    whole = read(df.PoissonField, "PoissonField(process=PFGM(clip=inf))", "objective").resolved(0.5, (2,))
    assert whole.process == df.PFGM(span=(1e-3, 40.0), clip=math.inf)
    assert from_plain(to_plain(whole)) == whole
    x = whole.process.prior((400, 2), seeded(0), F64)
    assert torch.equal(x, df.PFGM().prior((400, 2), seeded(0), F64))
    assert x.norm(dim=1).max() > 40 * 39  # P(R > r) = 1 / sqrt(1 + (r / z)^2), so 400 draws stay below with exp(-10)
    filled = df.PoissonField(df.PFGM(span=(1e-3, 40.0))).resolved(0.5, (2,)).process
    assert filled == df.PoissonField().resolved(0.5, (2,)).process
    assert filled.clip < 40


# --- the loss -----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_all_components():
    objective, data = ready(2, label_dropout=0.0), normals(12, 2)
    losses = objective(
        {"denoiser": lambda x, z, cond=None, field=False: objective.target(x, z, data) + 0.5},
        Batch(data[:5], None, data, None),
        rows(0, 0, 5),
    )
    torch.testing.assert_close(losses, torch.full((5,), 0.25, dtype=F64))


def test_rows_see_the_charges_of_their_class():
    """And all of them with a dropped label; a charge without a label is of nobody's class."""
    objective, data = ready(2), normals(10, 2)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, -1, -1, 2])
    x, z = normals(4, 2, seed=1), torch.full((4,), 0.5, dtype=F64)
    got = objective.target(x, z, data, labels, torch.tensor([0, 1, -1, 2]))
    for row, some in enumerate((data[:3], data[3:7], data, data[9:])):
        torch.testing.assert_close(got[row], objective.target(x[row : row + 1], z[:1], some)[0])


def test_the_target_survives_many_dimensions_in_float32():
    """Pitfalls 1 and 2: raw powers of 3,072 dimensions underflow; the far field is that of one charge."""
    data = 0.5 * torch.randn(64, 3072, generator=seeded(0))
    objective = df.PoissonField(gamma=5.0).resolved(0.5, (3072,))
    for z, length in ((0.05, 0.1), (40.0, 3000.0)):
        x = data[:4] + length / 3072**0.5 * torch.randn(4, 3072, generator=seeded(1))
        t = torch.full((4,), z)
        v = objective.target(x, t, data)
        exact = objective.target(x.double(), t.double(), data.double())
        assert v.dtype == torch.float32
        torch.testing.assert_close(v.double(), exact, rtol=1e-4, atol=1e-4)


def test_bad_fields_are_refused():
    with pytest.raises(TypeError, match="Matching trains any process"):
        df.PoissonField(df.EDM())
    for name, value in (("sigma", 0.0), ("tau", -0.1), ("M", math.inf), ("gamma", 0.0)):
        with pytest.raises(ValueError, match=f"{name} must be finite and > 0"):
            df.PoissonField(**{name: value})
    with pytest.raises(ValueError, match="from 0 to 1"):
        df.PoissonField(restrict=1.5)
    with pytest.raises(ValueError, match="at least 1"):
        df.PoissonField(reference=0)
    with pytest.raises(ValueError, match="z_sub"):
        df.PoissonField(z_sub=-1.0)
    with pytest.raises(ValueError, match="too large for data"):
        df.PoissonField(sigma=5.0).resolved(1.0, (2,))
    with pytest.raises(ValueError, match="needs sigma; resolved"):
        df.PoissonField().times(df.PFGM(), torch.empty(2, 2), seeded(0))
    with pytest.raises(ValueError, match="needs the reference"):
        ready(2)({"denoiser": None}, Batch(torch.zeros(2, 2)), seeded(0))
    with pytest.raises(ValueError, match="scales the network's input by itself"):
        ready(2).denoiser(lambda shape: df.MLP(shape), (2,), 1.0, "edm", None)
