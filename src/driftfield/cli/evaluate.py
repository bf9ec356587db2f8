"""`driftfield evaluate`: scores of a trained model, or of samples drawn before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[
        str, typer.Argument(help="Run folder or weights file; with --samples, data will do: a name or path")
    ],
    n: Annotated[int, typer.Option("-n", "--number", help="Number of samples to draw and score")] = 1000,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: frechet, kid, mmd, precision, recall, density, coverage, sliced, wasserstein, "
            "nearest, copying; or all [frechet,kid,sliced,nearest]"
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="What is compared: raw values; a shipped classifier (digits, mnist, fashion, cifar10); efficientnet; "
            "inception:FILE; auto is the data's classifier, else raw"
        ),
    ] = "auto",
    samples: Annotated[
        Path | None, typer.Option(help="Score these instead of drawing: a folder of pictures or .npy, a .npy, a .npz")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Reference kept before: .npz with mu and sigma, or a .safetensors of ours")
    ] = None,
    split: Annotated[str, typer.Option(help="Reference: held-out or train")] = "held-out",
    per_class: Annotated[bool, typer.Option("--per-class", help="Score each class too")] = False,
    subsets: Annotated[int, typer.Option(help="Random halves that give standard errors; 0 for none")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the samples")] = 0,
    nfe: Annotated[int | None, typer.Option(help="Most network evaluations per sample [recipe's]")] = None,
    solver: Annotated[
        str | None, typer.Option(help="Solver: auto, heun, deis, dpm++2m, unipc, gddim, dormand-prince, ... [recipe's]")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="Grid: natural, geometric, power, restart, searched, ... [recipe's]")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the data are, if they have moved")] = None,
    batch: Annotated[int, typer.Option(help="Samples drawn at once")] = 256,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Score a model: distances to held-out data, fidelity, coverage, memorisation, with standard errors."""
    import json as js

    from ..report.score import score

    scores, spent = score(
        run,
        n=n,
        metrics=metrics,
        features=features,
        samples=samples,
        reference=reference,
        split=split,
        per_class=per_class,
        subsets=subsets,
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
