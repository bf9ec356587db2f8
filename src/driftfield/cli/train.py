"""`driftfield train`: from data to a trained model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A short name (see `driftfield recipes`), a recipe.json, or an import path module:recipe"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder of images or of recordings, .npy, .npz, .csv or .parquet to learn from")
    ] = None,
    autoencoder: Annotated[
        str | None, typer.Option(help="Learn codes of the data: module:Class, or a folder saved by diffusers")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder to write to and to resume from [runs/NAME]")] = None,
    objective: Annotated[
        str | None, typer.Option(help="What is minimised: StableTarget(reference=1024), ... [recipe's]")
    ] = None,
    process: Annotated[
        str | None, typer.Option(help="Physics: PFGMPP(D=64), EDM, VP, ..., or an equation [recipe's]")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time to train, in minutes")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps to train")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights and of every draw")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Run or weights file to start from")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Field of the recipe: a.b.c=value")] = None,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="Split weights and optimiser memory over torchrun's processes")
    ] = False,
    log: Annotated[str, typer.Option(help="What else to log to: tensorboard, wandb, trackio; with commas")] = "",
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU even where there is an accelerator")] = False,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Print the recipe and stop")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line per report")] = False,
) -> None:
    """Train a model. The same command again resumes the run. `torchrun -m driftfield -- train ...` shares the work."""
    from .build import asked_recipe

    device = "cpu" if cpu else ""
    chosen, source, folder, proposal = asked_recipe(
        recipe,
        data,
        start,
        objective,
        process,
        minutes,
        steps,
        seed,
        settings or [],
        trust or [],
        run,
        device,
        autoencoder,
    )
    if dry:
        print(chosen.to_json())
        return
    import dataclasses
    import json as js
    import sys

    from ..train.bar import training_bar
    from ..train.fit import follow
    from ..train.propose import FILE
    from ..train.session import Report

    to = [name.strip() for name in log.split(",") if name.strip()]
    warn = lambda text: print(f"Warning: {text}", file=sys.stderr)

    began = False

    def noting(watch: Callable[[Report], None]) -> Callable[[Report], None]:
        def noted(report: Report) -> None:
            nonlocal began
            began = True
            watch(report)

        return noted if proposal is None else proposal.noting(noted, folder)

    if json:
        say = noting(lambda r: print(js.dumps(dataclasses.asdict(r)), flush=True))
        made = follow(chosen, source, folder, say, warn, device, fsdp, to)
    else:
        if proposal is not None:
            print(f"Proposed from the data ({folder / FILE} will say why):", file=sys.stderr)
            values = proposal.kept(chosen).items()
            print("".join(f"  {name} {value}\n" for name, value in values), end="", file=sys.stderr)
        with training_bar() as watch:
            made = follow(chosen, source, folder, noting(watch), warn, device, fsdp, to)
        total = made.recipe.training.steps
        done = f"Trained {total} steps" if began else f"All {total} steps are trained and nothing is left to do"
        print(f"{done}; weights in {folder}")
        print(f"Next: driftfield sample {folder}")
