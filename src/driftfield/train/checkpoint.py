"""Files of a run: safetensors with the recipe inside, written whole or not at all.

A run folder holds `recipe.json` (as asked), `log.jsonl`, `state-*.safetensors` (all that training needs to go on),
`model.safetensors` (the average with the best held-out loss), `last.safetensors` (the newest average), `ema/`
(snapshots of the averages) and `samples/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .. import ranks
from ..files import write
from ..plain import from_plain
from ..recipe import Recipe


def save(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able `notes` as one safetensors file, whole or not at all."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {k: json.dumps(v) for k, v in notes.items()}

    def make(part: Path) -> None:
        try:
            save_file(whole, part, text)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error

    write(path, make)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and notes that `save` wrote. Raises: ValueError for a file that is damaged or not ours."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a weights file of ours ({error})") from error


def weights_and_recipe(path: Path, trust: Sequence[str] = ()) -> tuple[dict[str, Tensor], Recipe]:
    """What a weights file holds. Raises: ValueError for a file that is damaged or not ours."""
    tensors, notes = read(path)
    if "recipe" not in notes:
        raise ValueError(f"{path} holds no recipe, so it was not written by driftfield")
    recipe: Any = from_plain(notes["recipe"], trust)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{path} holds a {type(recipe).__name__}, not a recipe")
    return tensors, recipe


def pack(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Named groups of tensors as one flat group: `group/name`."""
    return {f"{group}/{name}": tensor for group, tensors in parts.items() for name, tensor in tensors.items()}


def unpack(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    """One of the groups that `pack` joined."""
    return {name[len(group) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{group}/")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The memory of an optimiser as named tensors; its settings come from the recipe."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, slots in state.items() for key, value in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the memory that `optimizer_tensors` took, split where its parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        state.setdefault(int(index), {})[key] = ranks.split(tensor, like) if tensor.shape == like.shape else tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def states(run: Path) -> list[Path]:
    """The saved states of a run, the newest first."""
    return sorted(run.glob("state-*.safetensors"), reverse=True)


def newest(run: Path, warn: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole state of a run, or None where there is none. `warn` says which damaged ones are passed over.

    Raises: ValueError where every state is damaged: a run never begins again unasked.
    """
    found = states(run)
    for path in found:
        try:
            return read(path)
        except ValueError as error:
            warn(f"{error}; going back to the one before it")
    if found:
        raise ValueError(f"no saved state in {run} is whole; delete its state files to begin again")
    return None
