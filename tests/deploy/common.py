"""Small denoisers whose networks do something, and the recipes that describe them."""

from __future__ import annotations

import torch

from driftfield.data.base import Info
from driftfield.data.digits import Digits
from driftfield.denoise.preconditioned import Preconditioned
from driftfield.objective.matching import Matching
from driftfield.plain import Build
from driftfield.process.poisson import PFGMPP
from driftfield.recipe import Recipe
from driftfield.rng import normal, seeded

NETWORKS = {
    "mlp": (Build("driftfield.network.mlp:MLP", {"width": 16, "depth": 1}), (5,), ()),
    "wide": (Build("driftfield.network.mlp:MLP", {"width": 256, "depth": 1}), (5,), ()),
    "unet": (
        Build("driftfield.network.unet:UNet", {"width": 8, "multipliers": (1, 2)}),
        (2, 8, 8),
        ("a", "b", "c"),
    ),
    "transformer": (Build("driftfield.network.transformer:Transformer", {"width": 16, "depth": 1}), (1, 8, 8), ()),
    "series": (
        Build("driftfield.network.unet:UNet", {"width": 8, "multipliers": (1, 2), "attention": ()}),
        (1, 32),
        ("a", "b"),
    ),
}


def recipe(name: str, process=None, scaling: str | None = None) -> Recipe:
    """A resolved recipe of the network called `name`, for data of deviation 0.5."""
    network, shape, classes = NETWORKS[name]
    plain = Recipe(Digits(), network, Matching(PFGMPP(D=128.0) if process is None else process), scaling=scaling)
    return plain.resolved(Info("array", shape, classes, std=0.5))


def stirred(made: Recipe) -> Preconditioned:
    """The recipe's denoiser with random weights throughout: a fresh network returns 0."""
    denoiser, rng = made.denoiser().eval().requires_grad_(False), seeded(3)
    for p in denoiser.parameters():
        p.add_(0.1 * normal(torch.empty_like(p), rng))
    return denoiser
