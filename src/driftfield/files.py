"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def part_of(path: Path) -> Path:
    """The hidden neighbour of `path` that is written first and then takes its name."""
    whole = path.resolve()
    return whole.with_name(f".{whole.name}.{os.getpid()}.part")


def write(path: Path, make: Callable[[Path], Any]) -> None:
    """Call `make` with a temporary path beside `path`, then give the file its name: whole or not at all.

    Raises: OSError naming `path` when the disk is full or the folder cannot be written; nothing is left behind.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode  # what the system gives a new file: some writers give less
        part.unlink()
        make(part)
        part.chmod(mode)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write(path, lambda part: part.write_text(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file, whole or not at all."""
    write(path, lambda part: part.write_bytes(content))


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left in a folder."""
    for part in folder.glob(".*.part"):
        part.unlink()
