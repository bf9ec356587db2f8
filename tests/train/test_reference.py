"""Training that compares each sample with a reference: drawn per piece, the piece in it, and resumed to the bit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest
import torch

from driftfield.data.digits import Digits
from driftfield.data.toys import EightGaussians
from driftfield.objective.base import Batch
from driftfield.objective.poisson import PoissonField
from driftfield.objective.stable import StableTarget
from driftfield.plain import Build
from driftfield.recipe import Recipe
from driftfield.rng import seeded
from driftfield.train.held import judged, losses_by_level
from driftfield.train.loop import train

from ..workers import together
from .common import tiny


def stable(reference=48, **training):
    """The tiny recipe, with classes, augmentation and dropout, on a stable target."""
    recipe = tiny(**training)
    return recipe.with_fields([f"objective=StableTarget(reference={reference})"])


def steps(recipe, saved=None, until=None):
    """The tensors and losses of a training; a function of its processes too."""
    source = recipe.data.load()
    losses = []
    for now in train(recipe.resolved(source.info), source, saved, "cpu"):
        losses.append(float(now.loss))
        if now.step == until:
            break
    return {k: v.clone() for k, v in now.tensors().items()}, losses


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_resuming_is_exact_to_the_bit():
    recipe = stable(steps=8)
    unbroken, losses = steps(recipe)
    saved, _ = steps(recipe, until=3)
    again, rest = steps(recipe, saved)
    assert same(again, unbroken)
    assert rest == losses[3:]
    assert not same(unbroken, steps(tiny(steps=8))[0])


@dataclass(frozen=True)
class SlowDigits(Digits):
    """Digits that are drawn by a thread, a step ahead."""

    def load(self):
        source = super().load()
        source.slow = True
        return source


def test_drawing_ahead_changes_nothing():
    recipe = stable(steps=5)
    assert same(steps(replace(recipe, data=SlowDigits()))[0], steps(recipe)[0])


def test_two_processes_take_the_steps_of_one_that_accumulates_twice():
    """Each piece has its own reference, wherever it is learned from: the bits agree, on every process."""
    (a, losses), (b, others) = together(steps, stable(steps=4, accumulate=1))
    alone, alone_losses = steps(stable(steps=4, accumulate=2))
    assert same(a, b)
    assert same(a, alone)
    assert losses == others == pytest.approx(alone_losses, rel=1e-6)


SEEN = []


@dataclass(frozen=True)
class Recording(StableTarget):
    """A stable target that notes what it is given."""

    def __call__(self, models, batch, rng):
        SEEN.append(batch)
        return super().__call__(models, batch, rng)


def test_a_piece_is_the_first_of_its_reference():
    """16 a step in two pieces of 8, each with the 48 that were drawn for it, labels and all."""
    recipe = stable(steps=2)
    objective = Recording(**{k: getattr(recipe.objective, k) for k in StableTarget.__dataclass_fields__})
    SEEN.clear()
    steps(replace(recipe, objective=objective))
    source = recipe.data.load()
    assert len(SEEN) == 4
    for k, batch in enumerate(SEEN):
        x, label = source.draw(48, seeded(0, 0, 0, k % 2, k // 2))
        assert torch.equal(batch.reference, x)
        assert torch.equal(batch.reference_cond, label)
        assert torch.equal(batch.x, x[:8])
        assert torch.equal(batch.cond, label[:8])


@pytest.mark.parametrize("reference", [64, 600])
def test_held_out_losses_have_one_reference_whatever_the_batch(reference):
    """A denoiser that knows the field of the column, and of training data up to the reference, has no loss at all."""
    data = EightGaussians()
    source = data.load()
    network = Build("driftfield.network.mlp:MLP", {})
    recipe = Recipe(data, network, PoissonField(reference=reference)).resolved(source.info)
    held, drawn, more = judged(source, 0, reference)
    assert len(held[0]) == len(drawn[0]) == 512
    n = max(512, reference)
    assert len(more[0]) == n
    charges, labels = torch.cat((held[0], more[0]))[:n], torch.cat((held[1], more[1]))[:n]

    def exact(x, z, cond=None, field=False):
        return recipe.objective.target(x, z, charges, labels, cond)

    for batch in (64, 256):
        sized = replace(recipe, training=replace(recipe.training, batch=batch))
        losses = losses_by_level(sized, exact, (held, held, more), torch.device("cpu"))
        assert max(losses.held) < 1e-10
        assert losses.train == pytest.approx(losses.held, abs=1e-10)
    assert len(judged(source, 0, 0)) == 2


def test_a_batch_is_cut_from_its_reference():
    x, label = torch.arange(6.0)[:, None], torch.arange(6)
    whole = Batch.of(x, label, 2, 6)
    assert torch.equal(whole.x, x[:2])
    assert torch.equal(whole.cond, label[:2])
    assert whole.reference is x
    assert whole.reference_cond is label
    plain = Batch.of(x, None, 6, 0)
    assert (plain.x is x, plain.reference, plain.reference_cond) == (True, None, None)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (7, "the reference of 7 items is smaller than the 8 that a process learns from at a time"),
        (2000, "the reference of 2000 items is larger than the training split of 1617; .* at most 1617"),
    ],
)
def test_a_reference_must_fit_between_the_piece_and_the_data(reference, message):
    with pytest.raises(ValueError, match=message):
        steps(stable(reference))
    for error in together(steps, stable(reference, accumulate=1))[:1] if reference == 7 else ():
        assert re.search(message, str(error))
