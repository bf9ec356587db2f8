"""Handwritten digits, 8x8, in about a minute on a laptop."""

from __future__ import annotations

from ..data.digits import Digits
from ..objective.matching import Matching
from ..optim import AdamW
from ..plain import Build
from ..process.poisson import PFGMPP
from ..recipe import Recipe, Training


def digits() -> Recipe:
    """PFGM++ at D = 128 on scikit-learn's 1,797 digits; the expected scores are in docs/benchmarks.md."""
    return Recipe(
        data=Digits(),
        network=Build("driftfield.network.unet:UNet", {"width": 32, "multipliers": (1, 2)}),
        objective=Matching(PFGMPP(D=128.0)),
        training=Training(minutes=1.0, batch=128, optimizer=AdamW(lr=4e-3), warmup=100, held_every=250),
    )
