"""The loop: reproducible to the bit, stopped by what is not finite, as its schedule and average say."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from driftfield.objective.base import Batch
from driftfield.objective.laws import Weight
from driftfield.optim import AdamW, Muon
from driftfield.plain import Build
from driftfield.rng import ambient, seeded
from driftfield.train.loop import strength, train

from .common import TINY, tiny


def run(recipe, saved=None, until=None):
    source = recipe.data.load()
    for now in train(recipe.resolved(source.info), source, saved, "cpu"):
        if now.step == until:
            break
    return now


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "training", [{}, {"optimizer": Muon()}, {"precision": "bfloat16"}, {"skip": 2}, {"clip": None}]
)
def test_resuming_is_exact_to_the_bit(training):
    """Twelve steps, saved and gone on from at the fifth, equal twelve in a row: weights, average and memories."""
    recipe = tiny(steps=12, **training)
    unbroken = run(recipe).tensors()
    saved = {k: v.clone() for k, v in run(recipe, until=5).tensors().items()}
    assert same(run(recipe, saved).tensors(), unbroken)


def test_channels_last_resumes_exactly_too():
    recipe = tiny(steps=6, channels_last=True, optimizer=Muon())
    saved = {k: v.clone() for k, v in run(recipe, until=3).tensors().items()}
    assert same(run(recipe, saved).tensors(), run(recipe).tensors())


def test_another_seed_is_another_run():
    assert not same(run(tiny(steps=3)).tensors(), run(tiny(steps=3, seed=1)).tensors())


def test_the_programs_own_randomness_is_left_alone():
    before = torch.get_rng_state()
    run(tiny(steps=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_step_is_what_it_says():
    """A step written out: two parts from their own streams, the mean of their gradients, clipped, one AdamW update."""
    recipe = tiny(steps=24).resolved(TINY.data.load().info)
    source = recipe.data.load()
    now = next(iter(train(recipe, source, None, "cpu")))
    plan = recipe.training
    with ambient(plan.seed, 2, 0):
        model = recipe.denoiser()
    total = 0.0
    for piece in range(2):
        x, label = source.draw(8, seeded(plan.seed, 0, 0, piece, 0))
        with ambient(plan.seed, 2, 0, piece, 0):
            loss = recipe.objective({"denoiser": model}, Batch(x, label), seeded(plan.seed, 1, 0, piece, 0)).mean() / 2
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3 / plan.warmup, betas=(0.9, 0.99), weight_decay=0.0)
    optimizer.step()
    assert now.loss.item() == pytest.approx(total, rel=1e-6)
    for mine, theirs in zip(now.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


class Spiky(torch.nn.Module):
    """A network whose loss is finite and whose gradient is not: the root of 0."""

    def __init__(self, shape):
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, noise, cond=None):
        return x * 0 + self.a.sqrt()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_too(clip):
    objective = replace(TINY.objective, augment=None)
    recipe = replace(tiny(steps=3, clip=clip), network=Build("tests.train.test_loop:Spiky"), objective=objective)
    with pytest.raises(FloatingPointError, match="step 1;"):
        run(recipe)


@pytest.mark.parametrize("optimizer", [AdamW(lr=3e-3), Muon(lr=1e-2)])
def test_the_loss_falls(optimizer):
    recipe = tiny(steps=150, optimizer=optimizer, accumulate=1, batch=64)
    source = recipe.data.load()
    losses = [now.loss.item() for now in train(recipe.resolved(source.info), source, None, "cpu")]
    assert sum(losses[-20:]) / 20 < 0.6 * sum(losses[:5]) / 5


@dataclass(frozen=True)
class Broken(Weight):
    """A weight that is not finite at the times above a bound: a stand-in for a loss that blows up."""

    above: float = 10.0

    def __call__(self, process, t):
        return torch.where(t > self.above, float("nan"), 1.0)


def test_a_loss_that_is_not_finite_stops_with_step_and_seed():
    recipe = replace(
        tiny(steps=24, seed=7, accumulate=1), objective=replace(TINY.objective, weight=Broken(3.0), augment=None)
    )
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+; seed 7 reproduces it"):
        run(recipe)


def test_skipping_counts_and_stops_at_the_stated_number():
    objective = replace(TINY.objective, weight=Broken(3.0), augment=None)
    recipe = replace(tiny(steps=24, accumulate=1, skip=24), objective=objective)
    now = run(recipe)
    skipped = now.guard.skipped
    assert 0 < skipped < 24
    assert all(v.isfinite().all() for v in now.tensors().values())
    with pytest.raises(FloatingPointError, match=f"{skipped} steps had a loss .* skip={skipped - 1} allows no more"):
        run(replace(recipe, training=replace(recipe.training, skip=skipped - 1)))


def test_what_is_kept_is_sound():
    """The check comes a step late; a state is never written of a step that was not finite."""
    recipe = replace(tiny(steps=24, accumulate=1), objective=replace(TINY.objective, weight=Broken(0.0), augment=None))
    source = recipe.data.load()
    now = next(iter(train(recipe.resolved(source.info), source, None, "cpu")))
    with pytest.raises(FloatingPointError, match="step 1"):
        now.tensors()


def test_schedule():
    assert [strength(s, 100, 4, 0.0) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert strength(50, 100, 0, 0.5) == 1.0
    assert strength(75, 100, 0, 0.5) == 0.5
    assert strength(99, 100, 0, 0.5) == pytest.approx(0.02)


def test_muon_orthogonalises_kernels_of_any_rank_and_layout():
    """The update of a hidden kernel has equal singular values (within Newton-Schulz's 0.7 to 1.2), conv or not."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    )
    net(torch.zeros(1, 3, 6, 6))
    for layout in (torch.contiguous_format, torch.channels_last):
        model = net.to(memory_format=layout)
        before = model[1].weight.detach().clone()
        optimizers = Muon(lr=0.1, momentum=0.0).build(model)
        generator = torch.Generator().manual_seed(0)
        model(torch.randn(4, 3, 6, 6, generator=generator)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        singular = torch.linalg.svdvals((model[1].weight.detach() - before).flatten(1))
        rank = 2  # two outputs, four samples: the gradient has few directions
        assert singular[0] / singular[min(rank, len(singular)) - 1] < 2
        assert all(p.grad is None for p in model.parameters())
