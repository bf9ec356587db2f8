"""The recipe for data about which nothing more is said."""

from __future__ import annotations

from ..data.base import Data, Info
from ..objective.matching import Matching
from ..plain import Build
from ..process.poisson import PFGMPP
from ..recipe import Recipe, Training


def network_for(info: Info) -> Build:
    """A network for samples of this shape: `UNet` on grids, `MLP` on vectors; its size follows the data's."""
    *_, longest = sorted(info.shape)
    if len(info.shape) == 1:
        waves = 4 if longest <= 3 else 0
        return Build("driftfield.network.mlp:MLP", {"width": 256 if longest <= 64 else 512, "waves": waves})
    if len(info.shape) > 4:
        raise ValueError(f"samples of shape {info.shape} have more than 3 grid axes; give a network of your own")
    longest = max(info.shape[1:])
    levels = 1 if longest < 4 else 2 if longest <= 8 else 3 if longest <= 32 else 4
    multipliers = (1, 2, 2, 2)[:levels]
    return Build("driftfield.network.unet:UNet", {"width": 64, "multipliers": multipliers})


def recipe_for(data: Data, info: Info) -> Recipe:
    """PFGM++ at D = 128 with a network of fitting size; `info` is what the opened data say of themselves."""
    grid = len(info.shape) > 1
    training = Training(batch=128 if grid else 512, warmup=200)
    return Recipe(data=data, network=network_for(info), objective=Matching(PFGMPP(D=128.0)), training=training)
