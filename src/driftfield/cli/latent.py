"""`driftfield latent`: data as points of the prior, what lies between them, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def latent(
    run: Annotated[str, typer.Argument(help="Run folder, weights file or pretrained:NAME")],
    n: Annotated[int, typer.Option("-n", "--number", help="Rows of the picture")] = 6,
    interpolate: Annotated[
        int | None, typer.Option(help="Points from one item to another, both included: a pair of items for each row")
    ] = None,
    temperature: Annotated[
        str | None, typer.Option(help="Factors of the length of an item's latent, with commas: 0.5,0.8,1,1.2")
    ] = None,
    split: Annotated[str, typer.Option(help="Items: held-out or train")] = "held-out",
    rtol: Annotated[float, typer.Option(help="Relative tolerance of a step")] = 1e-5,
    atol: Annotated[float, typer.Option(help="Absolute tolerance of a step")] = 1e-5,
    nfe: Annotated[int, typer.Option(help="Most network evaluations per item, one way")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the choice of items")] = 0,
    out: Annotated[Path | None, typer.Option(help="Files to write [RUN/latents, between or temperatures]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there")] = False,
    data: Annotated[str | None, typer.Option(help="Where the data are, if they have moved")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Carry data to their latents and back; draw what lies between two of them, or at another temperature."""
    import json as js

    from ..report.latents import latents
    from ..settings import read

    factors = None if temperature is None else read(tuple[float, ...], temperature, "temperature")
    record = latents(
        run,
        n=n,
        between=interpolate,
        temperatures=factors,
        split=split,
        rtol=rtol,
        atol=atol,
        nfe=nfe,
        seed=seed,
        out=out,
        force=force,
        data=data,
        device=device,
        trust=trust or (),
        progress=not json,
    )
    if json:
        print(js.dumps(record))
        return
    print(
        f"There and back, items differ by {record['round_trip_max']:.2g} at most, {record['round_trip_rms']:.2g} in "
        "root mean square (model units)"
    )
    for file in record["files"]:
        print(f"  {file}")
