"""A folder of files, one sample each, whose sub-folders may be classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def files_in(path: str, suffixes: Sequence[str], what: str) -> list[Path]:
    """The files in a folder and its sub-folders that end in one of `suffixes`, sorted; hidden ones are passed over.

    Raises: FileNotFoundError for no such folder, ValueError for a file or a folder without any; `what` they are
    called there, such as "images".
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {path}")
    if not root.is_dir():
        raise ValueError(f"{path} is a file; give the folder that holds the {what}")
    found = sorted(file for file in root.rglob("*") if _wanted(file.relative_to(root), suffixes) and file.is_file())
    if not found:
        raise ValueError(f"the folder {path} holds no {what}; expected files ending in {', '.join(suffixes)}")
    return found


def _wanted(name: Path, suffixes: Sequence[str]) -> bool:
    return name.suffix.lower() in suffixes and not any(part.startswith(".") for part in name.parts)


def classes_of(names: Sequence[Path]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels from the first folder of each relative name; none unless all have one, and at least two differ."""
    folders = [name.parts[0] if len(name.parts) > 1 else "" for name in names]
    classes = tuple(sorted(set(folders)))
    if "" in classes or len(classes) < 2:
        return None, ()
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[folder] for folder in folders]), classes
