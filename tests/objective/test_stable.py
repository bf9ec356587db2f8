"""Stable targets: unbiased at every size of the reference, exact at its ends, never across what the network is told."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import product

import pytest
import torch

import driftfield as df
from driftfield.network.embed import Condition
from driftfield.objective.augment import Augment
from driftfield.objective.base import Batch
from driftfield.objective.laws import Balanced, Even
from driftfield.objective.matching import Matching
from driftfield.objective.reveal import Reveal
from driftfield.objective.stable import StableTarget
from driftfield.recipe import Recipe
from driftfield.rng import normal, seeded

from ..train.common import TINY

F64 = torch.float64
PROCESSES = [df.EDM(), df.VP(), df.VE(), df.PFGM(), df.PFGMPP(D=4.0), df.PFGMPP(D=2048.0), df.CLD(), df.Blur()]
each = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def draws(*shape, key=0):
    return normal(torch.empty(*shape, dtype=F64), seeded(7, key))


def goal(process, x, t, batch, cond=None):
    """The target of noisy samples `x`, whatever their number: the reference is what counts."""
    objective = StableTarget(process, weight=Even(), reference=len(batch.reference))
    return objective.goal(x, t, batch.x, Condition(cond), batch)


def given(*data, n=None):
    """A batch whose single sample is the first of its reference."""
    reference = torch.stack(data)
    return Batch(reference[:1], None, reference[:n])


def posterior(process, x, t, data):
    """The mean by its definition, from the process's own kernel: weights `(B, M)` over data."""
    weight = process.log_kernel(x, t, data).softmax(1)
    return (weight @ data.flatten(1)).reshape(len(x), *data.shape[1:])


def at(process, level, n):
    return process.time(torch.full((n,), level, dtype=F64))


@each
def test_a_reference_of_one_is_matching_bit_for_bit(process):
    x0 = draws(1, 1, 6, 6)
    seen = {}

    def denoiser(x, t, cond=None):
        seen["x"] = x
        return torch.zeros_like(x0)

    batch = Batch(x0, None, x0, None)
    one = StableTarget(process, weight=Even(), reference=1)({"denoiser": denoiser}, batch, seeded(3))
    noisy = seen["x"]
    own = Matching(process, weight=Even())({"denoiser": denoiser}, batch, seeded(3))
    assert torch.equal(noisy, seen["x"])
    torch.testing.assert_close(one, own, rtol=1e-14 if not isinstance(process, df.Blur) else 1e-12, atol=0)


@each
def test_all_data_make_the_exact_mean_whichever_was_the_source(process):
    data, n = draws(9, 1, 4, 4), 5
    t = at(process, 1.5, n)
    x = process.perturb(data[:n], t, seeded(2))
    first = goal(process, x, t, Batch(data[:n], None, data))
    other = goal(process, x, t, Batch(data[4:5], None, data.roll(-4, 0)))
    torch.testing.assert_close(first, posterior(process, x, t, data), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(first, other, rtol=1e-10, atol=1e-12)


@each
def test_unbiased_at_every_size_and_of_falling_variance(process):
    """All references of n = 1, 2, 3 among three data, the source among them: the law of total expectation, by hand."""
    data, x0 = draws(3, 1, 2, 2), draws(3, 1, 2, 2)[:1]
    t = at(process, 0.8, 4)
    x = process.perturb(x0.expand(4, 1, 2, 2), t, seeded(1))
    chance = process.log_kernel(x, t, data).softmax(1)  # of each source, given x
    exact, spread = posterior(process, x, t, data), []
    for n in (1, 2, 3):
        mean, square = 0.0, 0.0
        for source, *others in product(range(3), repeat=n):
            p = chance[:, source] / 3 ** (n - 1)
            y = goal(process, x, t, given(*(data[i] for i in (source, *others))))
            mean = mean + p.reshape(-1, 1, 1, 1) * y
            square = square + p * (y - exact).square().flatten(1).sum(1)
        torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-12)
        spread.append(square)
    assert (spread[0] > spread[1]).all()
    assert (spread[1] > spread[2]).all()


TABLE = {  # spec/stf.md, 10.4
    0.3: {1: 0.926354, 2: 0.463177, 3: 0.275622, 4: 0.184428, 8: 0.073072, 16: 0.033768, 64: 0.008123},
    0.5: {1: 1.665528, 2: 0.832764, 3: 0.504251, 4: 0.344748, 8: 0.143692, 16: 0.067252, 64: 0.016229},
    1.0: {1: 0.373697, 2: 0.186849, 3: 0.117302, 4: 0.083490, 8: 0.037885, 16: 0.018172, 64: 0.004426},
}


@pytest.mark.parametrize("level", TABLE)
def test_two_points_have_the_published_variances_and_no_bias(level):
    """Every number of +0.8 among the others, by its binomial chance; the trapezoidal rule over x rounds only."""
    x = torch.linspace(-8 * level - 0.8, 8 * level + 0.8, 1001, dtype=F64)[:, None]
    t, step = torch.full((1001,), level, dtype=F64), x[1, 0] - x[0, 0]
    density = sum((-((x[:, 0] - s) ** 2) / (2 * level**2)).exp() for s in (0.8, -0.8)) / (
        2 * level * math.sqrt(2 * math.pi)
    )
    plus = torch.sigmoid(1.6 * x[:, 0] / level**2)  # of the source being +0.8
    exact = 0.8 * torch.tanh(0.8 * x / level**2)
    for n, expected in TABLE[level].items():
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for source, k in product((0.8, -0.8), range(n)):
            points = torch.tensor([source] + [0.8] * k + [-0.8] * (n - 1 - k), dtype=F64)[:, None]
            y = goal(df.EDM(), x, t, Batch(points[:1], None, points))
            p = (plus if source > 0 else 1 - plus) * math.comb(n - 1, k) / 2 ** (n - 1)
            mean += p[:, None] * y
            square += p[:, None] * (y - exact).square()
        torch.testing.assert_close(mean, exact, rtol=0, atol=2e-15 * n)
        variance = (density[:, None] * square).sum() * step / level**4
        assert variance.item() == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize("process", [df.EDM(), df.PFGMPP(D=128.0)], ids=str)
def test_limits_order_and_shift(process):
    data = draws(40, 3)
    x0 = data[:1]
    wide, narrow = at(process, 1e9, 1), at(process, 1e-3, 1)
    batch = Batch(x0, None, data)
    mean = goal(process, process.perturb(x0, wide, seeded(1)), wide, batch)
    torch.testing.assert_close(mean, data.mean(0, keepdim=True), rtol=0, atol=1e-7)
    assert torch.equal(goal(process, process.perturb(x0, narrow, seeded(1)), narrow, batch), x0)
    t = at(process, 0.7, 1)
    x = process.perturb(x0, t, seeded(1))
    y = goal(process, x, t, batch)
    turned = torch.cat((x0, data[1:].flip(0)))
    torch.testing.assert_close(goal(process, x, t, Batch(x0, None, turned)), y, rtol=1e-13, atol=1e-14)
    moved = goal(process, x + 5, t, Batch(x0 + 5, None, data + 5))
    torch.testing.assert_close(moved, y + 5, rtol=1e-12, atol=1e-12)
    assert torch.equal(goal(process, x, t, Batch(x0, None, data * 0 + x0)), x0)  # weights sum to 1


def test_one_target_in_both_coordinates():
    """VP's, and that of noise added to the data at the same level."""
    data, n = draws(30, 4), 8
    vp, edm = df.VP(), df.EDM()
    t = at(vp, 1.2, n)
    x = vp.perturb(data[:n], t, seeded(1))
    there = goal(edm, x / vp.alpha(t)[:, None], vp.level(t), Batch(data[:n], None, data))
    torch.testing.assert_close(goal(vp, x, t, Batch(data[:n], None, data)), there, rtol=1e-10, atol=1e-12)


def test_large_D_is_the_gaussian():
    """spec/stf.md 10.9: D = 1e7 in ten dimensions, within five deviations."""
    data, n = draws(50, 10) * 0.5, 16
    t = at(df.EDM(), 1.0, n)
    x = df.EDM().perturb(data[:n], t, seeded(1))
    batch = Batch(data[:n], None, data)
    torch.testing.assert_close(
        goal(df.PFGMPP(D=1e7), x, t, batch), goal(df.EDM(), x, t, batch), rtol=1e-4, atol=1e-4 * 0.5
    )


def test_many_gaussian_data_make_the_gaussians_denoiser():
    """`x s^2 / (s^2 + sigma^2)`: at `x = 0` the ratio of two means over n draws, with deviation below 2 s / sqrt(n)."""
    s, n = 0.7, 40_000
    data = s * draws(n, 2)
    x = torch.tensor([[0.0, 0.0], [0.5, -0.3]], dtype=F64)
    y = goal(df.EDM(), x, torch.full((2,), 1.0, dtype=F64), Batch(data[:1], None, data))
    torch.testing.assert_close(y, x * s**2 / (s**2 + 1), rtol=0, atol=5 * 2 * s / n**0.5)


@pytest.mark.parametrize("process", [df.EDM(), df.PFGMPP(D=128.0), df.VP(), df.CLD()], ids=str)
def test_float32_keeps_the_target(process):
    """Data far from 0 at every level, against float64; to 1e-4 of the data's size about their mean."""
    data = (3 + draws(200, 1, 8, 8)).float()
    for level in (0.01, 0.1, 0.5, 2.0, 10.0, 60.0):
        t = at(process, level, 32)
        x = process.perturb(data[:32], t, seeded(1))
        y = goal(process, x, t.float(), Batch(data[:32], None, data))
        assert y.dtype == torch.float32
        exact = goal(process, x.double(), t.float().double(), Batch(data[:32].double(), None, data.double()))
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=8 * 1e-4)


@each
def test_classes_do_not_mix(process):
    data, label, b = draws(12, 1, 2, 2), torch.arange(12) % 3, 6
    t = at(process, 2.0, b)
    x = process.perturb(data[:b], t, seeded(1))
    batch = Batch(data[:b], label[:b], data, label)
    kept = torch.tensor([0, -1, 2, 0, 1, -1])
    y = goal(process, x, t, batch, kept)
    for i, c in enumerate(kept.tolist()):
        among = data if c < 0 else data[label == c]
        expected = posterior(process, x[i : i + 1], t[i : i + 1], among)
        torch.testing.assert_close(y[i : i + 1], expected, rtol=1e-10, atol=1e-12)


def test_unbiased_for_what_the_network_is_told_also_of_data_without_labels():
    """Two labelled data and one without, all pairs of them; labels drop with probability p.

    Told nothing, the sample is the unlabelled datum with chance 1 to p for each of the others: a row that lost its
    label and one that had none are no even sample of the data together.
    """
    data, label, p = draws(3, 2), torch.tensor([0, 1, -1]), 0.3
    process = df.EDM()
    t = at(process, 1.0, 5)
    x = process.perturb(data[:1].expand(5, 2), t, seeded(1))
    likely = process.log_kernel(x, t, data).exp()
    for told in (0, 1, -1):
        share = torch.tensor([p if told < 0 else float(c == told) * (1 - p) for c in (0, 1)] + [float(told < 0)])
        chance = likely * share
        chance = chance / chance.sum(1, keepdim=True)
        mean = torch.zeros(5, 2, dtype=F64)
        for source, other in product(range(3), repeat=2):
            pair = torch.tensor([source, other])
            batch = Batch(data[pair][:1], label[pair][:1], data[pair], label[pair])
            rows = Batch(batch.x, batch.cond, batch.reference, batch.reference_cond)
            if share[source]:
                y = torch.cat([goal(process, x[i : i + 1], t[:1], rows, torch.tensor([told])) for i in range(5)])
                mean += chance[:, source, None] / 3 * y
        torch.testing.assert_close(mean, chance @ data, rtol=1e-10, atol=1e-12)


def test_dropping_labels_compares_with_all():
    """Where all data have labels a dropped row is the unconditional one, and uses the whole reference."""
    data, label = draws(20, 2), torch.arange(20) % 4
    objective = StableTarget(df.EDM(), weight=Even(), reference=20, label_dropout=1.0)
    seen = {}

    def denoiser(x, t, cond=None):
        seen.update(x=x, t=t, cond=cond)
        return torch.zeros_like(x)

    losses = objective({"denoiser": denoiser}, Batch(data[:8], label[:8], data, label), seeded(2))
    assert (seen["cond"].label == -1).all()
    expected = df.Empirical(df.EDM(), data)(seen["x"], seen["t"])
    torch.testing.assert_close(losses, expected.square().mean(1), rtol=1e-10, atol=0)


def test_augmented_rows_are_compared_with_what_shares_their_label():
    augment = Augment(probability=0.2, flip_y=True)
    data = draws(64, 1, 4, 4).float()
    objective = StableTarget(df.EDM(), weight=Even(), augment=augment, reference=64)
    seen = {}

    def denoiser(x, t, cond=None):
        seen.update(x=x, t=t, cond=cond)
        return torch.zeros_like(x)

    x0, cond = objective.prepare(Batch(data, None, data), seeded(3))
    losses = objective({"denoiser": denoiser}, Batch(data, None, data), seeded(3))
    assert torch.equal(seen["cond"].augment, cond.augment)
    found = {"alone": 0, "mirrored": 0, "own": 0}
    for i, how in enumerate(cond.augment):
        turned = bool((how[2:] != 0).any())
        axes = [axis for axis, use in ((-1, how[0]), (-2, how[1])) if use]
        found["own" if turned else "mirrored" if axes else "alone"] += 1
        one = (seen["x"][i : i + 1].double(), seen["t"][i : i + 1].double())
        expected = x0[i : i + 1] if turned else df.Empirical(df.EDM(), data.flip(axes).double())(*one)
        assert losses[i].item() == pytest.approx(expected.double().square().mean().item(), rel=1e-3)
    assert min(found.values()) > 5


@pytest.mark.parametrize(
    "process",
    [df.EDM(), df.Yukawa(), df.MixedDiffusionPoisson(0.5, 2.0), df.CLD(), df.Blur(), df.DissipativeWave(damping=4.0)],
    ids=lambda process: type(process).__name__,
)
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_no_row_need_share_a_label(process, probability):
    """Without any augmented row no row is mirrored; with every row augmented none is plain: both happen in a batch."""
    data = draws(6, 1, 4, 4)
    objective = StableTarget(process, weight=Even(), augment=Augment(probability=probability), reference=16)
    losses = objective({"denoiser": lambda x, t, cond=None: process.data(x)}, Batch(data[:3], None, data), seeded(2))
    assert losses.shape == (3,)
    assert losses.isfinite().all()


def test_mirrors_are_the_labels_that_repeat():
    data = draws(2, 1, 4, 4)
    for augment in (
        Augment(),
        Augment(flip_y=True),
        Augment(flip_x=False),
        Augment(scale=0, rotate=0, stretch=0, translate=0),
    ):
        for axes, label in augment.mirrors():
            assert len(label) == augment.channels
            assert torch.equal(augment.transform(data, torch.tensor([label, label])), data.flip(axes))
        drawn = replace(augment, probability=0.5)(draws(4000, 1, 2, 2).float(), seeded(1))[1]
        kinds, count = drawn.unique(dim=0, return_counts=True)
        assert {tuple(k) for k in kinds[count > 1].tolist()} == {label for _, label in augment.mirrors()}


def test_the_exact_denoiser_of_all_data_has_no_loss():
    """What is left of the loss at the whole of the data is nothing: the target does not vary."""
    data = draws(50, 3)
    process = df.PFGMPP(D=8.0)
    losses = StableTarget(process, weight=Balanced(1.0), reference=50)(
        {"denoiser": df.Empirical(process, data)}, Batch(data[:32], None, data), seeded(1)
    )
    assert losses.max() < 1e-20


def test_no_gradient_flows_through_the_target():
    data = draws(10, 2).requires_grad_()
    scale = torch.ones((), dtype=F64, requires_grad=True)
    objective = StableTarget(df.EDM(), weight=Even(), reference=10)
    batch = Batch(data[:4], None, data)
    losses = objective({"denoiser": lambda x, t, cond=None: scale * torch.ones_like(x)}, batch, seeded(1))
    losses.sum().backward()
    assert scale.grad is not None
    assert data.grad is None


def test_a_process_that_empirical_refuses_weighs_by_its_own_kernel():
    """`DissipativeWave`: at n = 1 `Matching`; else the kernel's mean of the targets of each, by class if labelled."""
    process = df.DissipativeWave(damping=4.0)
    data, label = draws(7, 3), torch.tensor([0, 1, 0, 1, 0, 1, 0])
    t = at(process, 0.5, 40)
    x = process.perturb(data[:1].expand(40, 3), t, seeded(2))
    own = process.target(x, t, data[:1].expand(40, 3))
    torch.testing.assert_close(goal(process, x, t, given(*data, n=1)), own, rtol=1e-14, atol=0)
    each = torch.stack([process.target(x, t, datum.expand(40, 3)) for datum in data], 1)
    weight = process.log_kernel(x, t, data).exp()
    assert (weight > 0).sum(1).max() > 1  # not alone behind the fronts
    mean = lambda w: (w[..., None] * each).sum(1) / w.sum(1, keepdim=True)
    torch.testing.assert_close(goal(process, x, t, given(*data)), mean(weight), rtol=1e-10, atol=1e-10)
    batch = Batch(data[:1], label[:1], data, label)
    found = goal(process, x, t, batch, torch.zeros(40, dtype=torch.int64))
    torch.testing.assert_close(found, mean(weight * (label == 0)), rtol=1e-10, atol=1e-10)


def test_the_mean_target_of_a_wave_is_that_of_matching():
    """Unbiased, atoms and all: over 1,200 draws at n = 8 the difference, and its product with `x`, vanish within 5
    standard errors, while the squares fall."""
    process, n = df.DissipativeWave(damping=4.0), 1200
    two = torch.where(draws(n, 8, 1, key=3) > 0, 0.8, -0.8)
    x = process.perturb(two[:, 0], at(process, 0.5, n), seeded(5))
    one, many = (
        torch.cat([goal(process, x[i : i + 1], at(process, 0.5, 1), given(*two[i, :k])) for i in range(n)])
        for k in (1, 8)
    )
    for gap in (many - one, (many - one) * x):
        assert abs(gap.mean()) < 5 * gap.std() / n**0.5
    exact = torch.cat([two.new_tensor([[0.8]]), two.new_tensor([[-0.8]])])
    mean = goal(process, x, at(process, 0.5, n), Batch(exact[:1], None, exact))
    assert (many - mean).square().mean() < 0.5 * (one - mean).square().mean()


def test_training_on_a_wave_in_float32():
    process = df.DissipativeWave(damping=4.0)
    data = draws(64, 2).float()
    objective = StableTarget(process, weight=Even(), reference=64)
    losses = objective({"denoiser": lambda x, t, cond=None: x}, Batch(data[:32], None, data), seeded(1))
    assert losses.isfinite().all()
    assert losses.max() > 0


def test_held_out_losses_are_those_of_matching():
    x0, t = draws(8, 2), at(df.EDM(), 1.0, 8)
    stable = StableTarget(df.EDM(), weight=Even(), reference=100)
    own = Matching(df.EDM(), weight=Even())
    denoiser = df.Point(torch.zeros(2, dtype=F64))
    assert torch.equal(stable.at(denoiser, Batch(x0), t, seeded(1)), own.at(denoiser, Batch(x0), t, seeded(1)))


def test_an_objective_by_name_keeps_the_fields_of_the_one_before():
    recipe = replace(TINY, objective=replace(TINY.objective, label_dropout=0.2))
    stable = recipe.with_fields(["objective=StableTarget(reference=64)", "objective.process.D=7"])
    assert isinstance(stable.objective, StableTarget)
    assert stable.objective.reference == 64
    assert stable.objective.process.D == 7
    for f in fields(Matching):
        if f.name != "process":
            assert getattr(stable.objective, f.name) == getattr(recipe.objective, f.name)
    assert Recipe.from_json(stable.to_json()) == stable
    back = stable.with_fields(["objective=Matching", "objective.process.D=128"])
    assert back == recipe


def test_bad_references_are_refused():
    with pytest.raises(ValueError, match=r"reference counts data .* got 0"):
        StableTarget(df.EDM(), reference=0)
    with pytest.raises(ValueError, match=r"reveal tells the network .* StableTarget\(reveal=none\)"):
        StableTarget(df.EDM(), reveal=Reveal())
    told = replace(TINY, objective=replace(TINY.objective, augment=None, reveal=Reveal()))
    with pytest.raises(ValueError, match="reveal tells the network"):
        told.with_fields(["objective=StableTarget"])
    with pytest.raises(ValueError, match="has no field 'reference'; it has process"):
        told.with_fields(["objective=Matching(reference=4)"])
    complete = told.with_fields(["objective=StableTarget(reference=512, reveal=none)"]).objective
    assert complete == StableTarget(TINY.objective.process, reference=512)
    data, label = draws(4, 2), torch.tensor([0, 1, 0, 1])
    objective = StableTarget(df.EDM(), weight=Even(), reference=4)
    call = lambda batch: objective({"denoiser": df.Point(torch.zeros(2, dtype=F64))}, batch, seeded(1))
    for batch, message in (
        (Batch(data[:2]), "needs Batch.reference"),
        (Batch(data[:2], None, data.flip(0)), "whose first items are the batch itself"),
        (Batch(data, None, data[:2]), "whose first items are the batch itself"),
        (Batch(data[:2], label[:2], data), "needs Batch.reference_cond"),
        (Batch(data[:2], label[:2], data, label.flip(0)), "needs Batch.reference_cond"),
        (Batch(data[:2], Condition(augment=data[:2]), data), "class labels only"),
    ):
        with pytest.raises(ValueError, match=message):
            call(batch)
