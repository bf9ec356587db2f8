"""`driftfield sample`: from a trained model to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    run: Annotated[Path, typer.Argument(help="Run folder or weights file")],
    n: Annotated[int, typer.Option("-n", "--number", help="Number of samples")] = 64,
    out: Annotated[Path | None, typer.Option(help="Folder to write to [RUN/samples-SEED]")] = None,
    cond: Annotated[
        str | None, typer.Option(help="Class to draw: a name, an index, or a comma-separated cycle")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option(help="Of a table: column=value that rows hold; repeat it, or separate by commas")
    ] = None,
    impute: Annotated[Path | None, typer.Option(help="Of a table: file whose missing cells to fill")] = None,
    draws: Annotated[int, typer.Option(help="With --impute: how many draws for each row")] = 1,
    seed: Annotated[int, typer.Option(help="Seed; sample i depends on it and on i alone")] = 0,
    nfe: Annotated[int | None, typer.Option(help="Most network evaluations per sample [recipe's]")] = None,
    solver: Annotated[
        str | None, typer.Option(help="Solver: auto, heun, deis, dpm++2m, unipc, gddim, dormand-prince, ... [recipe's]")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="Grid: natural, geometric, power, logistic, restart, searched, ... [recipe's]")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Image or .npy sample to start from, noised to --level")] = None,
    level: Annotated[float | None, typer.Option(help="Noise level to start from, in units of the model's data")] = None,
    batch: Annotated[int, typer.Option(help="Samples drawn at once")] = 256,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that already holds samples")] = False,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Draw samples from a trained model: pictures and a grid, arrays, or rows of a table, as fits the data."""
    import json as js

    from ..report.draw import draw

    record = draw(
        run,
        n=n,
        out=out,
        cond=cond,
        given=given or (),
        impute=impute,
        draws=draws,
        seed=seed,
        nfe=nfe,
        solver=solver,
        grid=grid,
        start=start,
        level=level,
        batch=batch,
        device=device,
        trust=trust or (),
        force=force,
        progress=not json,
    )
    if json:
        print(js.dumps(record))
        return
    print(f"{record['n']} samples at {record['nfe']} evaluations each in {record['seconds']:.1f} s: {record['out']}")
    for file in record["files"]:
        print(f"  {file}")
