"""`driftfield evaluate`: scores of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder or weights file")],
    n: Annotated[int, typer.Option("-n", "--number", help="Number of samples to draw and score")] = 1000,
    features: Annotated[str, typer.Option(help="What is compared: raw values, or digits (a small classifier)")] = "raw",
    split: Annotated[str, typer.Option(help="Reference: held-out or train")] = "held-out",
    seed: Annotated[int, typer.Option(help="Seed of the samples")] = 0,
    nfe: Annotated[int | None, typer.Option(help="Most network evaluations per sample [recipe's]")] = None,
    solver: Annotated[str | None, typer.Option(help="Solver: euler, heun, rk4 [recipe's]")] = None,
    grid: Annotated[str | None, typer.Option(help="Grid of times [recipe's]")] = None,
    data: Annotated[str | None, typer.Option(help="Where the data are, if they have moved")] = None,
    batch: Annotated[int, typer.Option(help="Samples drawn at once")] = 256,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Score a model: Fréchet distance, KID, sliced Wasserstein, distance to training data."""
    import json as js

    from ..report.score import score

    scores, spent = score(
        run,
        n=n,
        features=features,
        split=split,
        seed=seed,
        nfe=nfe,
        solver=solver,
        grid=grid,
        data=data,
        batch=batch,
        device=device,
        trust=trust or (),
        progress=not json,
    )
    if json:
        print(js.dumps({**scores.as_dict(), "nfe": spent}))
    else:
        print(f"{scores}\n{spent} evaluations a sample")
