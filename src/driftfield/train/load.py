"""Opening what training wrote."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from ..denoise.learned import Learned
from ..names import pick
from ..plain import to_plain
from ..process.base import Process
from ..recipe import Recipe
from .checkpoint import save, weights_and_recipe
from .snapshots import rebuild

WEIGHTS, LAST = "model.safetensors", "last.safetensors"
_SHIPPED = "pretrained:"


def pretrained() -> dict[str, Path]:
    """The models that come with the package, by name; `pretrained:NAME` stands for their run everywhere."""
    folder = Path(str(files("driftfield").joinpath("weights", "pretrained")))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find(run: str | Path) -> Path:
    """The weights file of a run: the average with the best held-out loss, or the newest where none was judged yet.

    `run` is a folder, a weights file, or `pretrained:NAME`.
    Raises: FileNotFoundError saying what was looked for; ValueError for an unknown name.
    """
    if (name := _pretrained_name(run)) is not None:
        if not (known := pretrained()):
            raise ValueError(f"no pretrained models came with this installation, so there is no {run}; train a model")
        return pick(name, known, "pretrained model")
    path = Path(run)
    if path.is_dir():
        path = next((path / name for name in (WEIGHTS, LAST) if (path / name).exists()), path / WEIGHTS)
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; train first, or give the folder of a run or a weights file")
    return path


def home(run: str | Path) -> Path:
    """The folder for what is made from a run: its own, that of its weights file, or for a pretrained model
    `pretrained-NAME` in the current folder."""
    if (name := _pretrained_name(run)) is not None:
        return Path(f"pretrained-{name}")
    return Path(run) if Path(run).is_dir() else Path(run).parent


def _pretrained_name(run: str | Path) -> str | None:
    return str(run).removeprefix(_SHIPPED) if str(run).startswith(_SHIPPED) else None


def load(
    run: str | Path, trust: Sequence[str] = (), *, sigma_rel: float | None = None
) -> tuple[Process, Learned, Recipe]:
    """The process, the trained denoiser (in evaluation mode) and the recipe of a run folder or weights file.

    With `sigma_rel`, the average of that relative width, rebuilt from the run's snapshots as `rebuild` does.
    Nothing is unpickled; modules are imported only from driftfield and the prefixes in `trust`.
    Raises: FileNotFoundError or ValueError with one sentence.
    """
    path = find(run)
    if sigma_rel is None:
        tensors, recipe = weights_and_recipe(path, trust)
    else:
        made = rebuild(run, sigma_rel, trust=trust)
        tensors, recipe = made.tensors, made.recipe
    denoiser = recipe.denoiser()
    fill(denoiser, tensors, path)
    return recipe.objective.process, denoiser.eval().requires_grad_(False), recipe


def fill(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Give `model` the weights read from `path`. Raises: ValueError naming what does not fit."""
    own = model.state_dict()
    lacking = [k for k in own if k not in tensors] + [k for k in tensors if k not in own]
    if lacking:
        raise ValueError(f"the weights in {path} are of another network: {lacking[0]!r} is only in one of the two")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"the weights in {path} do not fit: {name!r} is {tuple(tensor.shape)} there "
                f"and {tuple(own[name].shape)} here"
            )
    model.load_state_dict(tensors)


def store(path: Path, denoiser: torch.nn.Module, recipe: Recipe, **notes: Any) -> None:
    """Write a denoiser's weights with its recipe inside, whole or not at all."""
    save(path, denoiser.state_dict(), {"recipe": to_plain(recipe), **notes})
