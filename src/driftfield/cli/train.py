"""`driftfield train`: from data to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A short name (see `driftfield recipes`), a recipe.json, or an import path module:recipe"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder of images, .npy or .npz to learn from")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder to write to and to resume from [runs/NAME]")] = None,
    process: Annotated[str | None, typer.Option(help="Physics: PFGMPP(D=64), EDM, VP, ... [recipe's]")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time to train, in minutes")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps to train")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights and of every draw")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Run or weights file to start from")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Field of the recipe: a.b.c=value")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU even where there is an accelerator")] = False,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Print the recipe and stop")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line per report")] = False,
) -> None:
    """Train a model. The same command again resumes the run."""
    from .build import asked_recipe

    chosen, source, name = asked_recipe(recipe, data, start, process, minutes, steps, seed, settings or [], trust or [])
    if dry:
        print(chosen.to_json())
        return
    import dataclasses
    import json as js
    import sys

    from ..train.bar import training_bar
    from ..train.fit import follow

    device = "cpu" if cpu else ""
    folder = run or Path("runs") / name
    warn = lambda text: print(f"Warning: {text}", file=sys.stderr)
    if json:
        made = follow(
            chosen, source, folder, lambda r: print(js.dumps(dataclasses.asdict(r)), flush=True), warn, device
        )
    else:
        with training_bar() as watch:
            made = follow(chosen, source, folder, watch, warn, device)
        print(f"Trained {made.recipe.training.steps} steps; weights in {folder}")
        print(f"Next: driftfield sample {folder}")
