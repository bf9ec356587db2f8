"""Models that several measurements train by the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def driftfield(*arguments: object, quiet: bool = False) -> str:
    """Run the command line, and return what it printed if `quiet`."""
    command = [sys.executable, "-m", "driftfield", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=quiet, text=True).stdout or ""


def trained_on_digits(run: Path, process: str, steps: int, width: int, *more: object) -> None:
    """Train a U-Net on the digits, or go on with it; nothing where it is there. `more` are options of the command."""
    sizes = ["--steps", steps, "--set", f"network.width={width}"]
    driftfield("train", "digits", "--process", process, *sizes, *more, "--run", run)
