"""Fashion-MNIST, 28x28, in about twenty minutes on one core."""

from __future__ import annotations

from ..data.mnist import Fashion
from ..objective.matching import Matching
from ..optim import AdamW
from ..plain import Build
from ..process.poisson import PFGMPP
from ..recipe import Recipe, Training


def fashion() -> Recipe:
    """PFGM++ at D = 128 on 60,000 pictures of clothes; the expected scores are in docs/benchmarks.md."""
    return Recipe(
        data=Fashion(),
        network=Build("driftfield.network.unet:UNet", {"width": 32, "multipliers": (1, 2, 2)}),
        objective=Matching(PFGMPP(D=128.0)),
        training=Training(steps=4000, batch=64, optimizer=AdamW(lr=2e-3), warmup=200, channels_last=True),
    )
