"""A recipe small enough to train many times, with everything switched on that a run has."""

from __future__ import annotations

from dataclasses import replace

from driftfield.data.digits import Digits
from driftfield.objective.augment import Augment
from driftfield.objective.matching import Matching
from driftfield.plain import Build
from driftfield.process.poisson import PFGMPP
from driftfield.recipe import Recipe, Sampling, Training

TINY = Recipe(
    data=Digits(),
    network=Build("driftfield.network.unet:UNet", {"width": 8, "multipliers": (1, 2), "dropout": 0.1, "attention": ()}),
    objective=Matching(PFGMPP(D=128.0), augment=Augment()),
    training=Training(steps=24, batch=16, warmup=4, held_every=8, save_every=8, show_every=100, accumulate=2),
    sampling=Sampling(nfe=5),
)


def tiny(**training) -> Recipe:
    """TINY with other training fields."""
    return replace(TINY, training=replace(TINY.training, **training))
