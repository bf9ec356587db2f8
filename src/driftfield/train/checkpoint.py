"""Files of a run: safetensors with the recipe inside, written whole or not at all.

A run folder holds `recipe.json` (as asked), `log.jsonl`, `state-*.safetensors` (all that training needs to go on),
`model.safetensors` (the average with the best held-out loss), `last.safetensors` (the newest average) and `samples/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write(path: Path, make: Callable[[Path], Any]) -> None:
    """Call `make` with a temporary path beside `path`, then give the file its name: whole or not at all.

    Raises: OSError naming `path` when the disk is full or the folder cannot be written; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write(path, lambda part: part.write_text(text))


def save(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able `notes` as one safetensors file, whole or not at all."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, lambda part: save_file(whole, part, {k: json.dumps(v) for k, v in notes.items()}))


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
    """Give an optimiser the memory that `optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def states(run: Path) -> list[Path]:
    """The saved states of a run, the newest first."""
    return sorted(run.glob("state-*.safetensors"), reverse=True)


def newest(run: Path, warn: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole state of a run, or None. Damaged ones are passed over, and `warn` says so."""
    for path in states(run):
        try:
            return read(path)
        except ValueError as error:
            warn(f"{error}; going back to the one before it")
    return None
