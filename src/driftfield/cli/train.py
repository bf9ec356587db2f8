"""`driftfield train`: from data to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def train(
    recipe: Annotated[
        Optional[str],
        typer.Argument(help="A short name (see `driftfield recipes`), a recipe.json, or an import path module:recipe"),
    ] = None,
    data: Annotated[Optional[str], typer.Option(help="Folder of images, .npy or .npz to learn from")] = None,
    run: Annotated[Optional[Path], typer.Option(help="Folder to write to and to resume from [runs/NAME]")] = None,
    process: Annotated[Optional[str], typer.Option(help="Physics: PFGMPP(D=64), EDM, VP, ... [recipe's]")] = None,
    minutes: Annotated[Optional[float], typer.Option(help="Time to train, in minutes")] = None,
    steps: Annotated[Optional[int], typer.Option(help="Number of steps to train")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of the weights and of every draw")] = None,
    start: Annotated[Optional[Path], typer.Option("--from", help="Run or weights file to start from")] = None,
    settings: Annotated[Optional[list[str]], typer.Option("--set", help="Field of the recipe: a.b.c=value")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Print the recipe and stop")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line per report")] = False,
) -> None:
    """Train a model. The same command again resumes the run."""
    from .build import asked_recipe

    chosen, source, name = asked_recipe(recipe, data, start, process, minutes, steps, seed, settings or [])
    if dry:
        print(chosen.to_json())
        return
    import dataclasses
    import json as js
    import sys

    from ..train.bar import training_bar
    from ..train.fit import follow

    folder = run or Path("runs") / name
    warn = lambda text: print(f"Warning: {text}", file=sys.stderr)
    if json:
        made = follow(chosen, source, folder, lambda r: print(js.dumps(dataclasses.asdict(r)), flush=True), warn)
    else:
        with training_bar() as watch:
            made = follow(chosen, source, folder, watch, warn)
        print(f"Trained {made.recipe.training.steps} steps; weights in {folder}")
        print(f"Next: driftfield sample {folder}")
