"""`driftfield nll`: how likely held-out data are under a trained model."""

from __future__ import annotations

from typing import Annotated

import typer


def nll(
    run: Annotated[str, typer.Argument(help="Run folder or weights file")],
    n: Annotated[int, typer.Option("-n", "--number", help="Most items of the split to take")] = 100,
    split: Annotated[str, typer.Option(help="Items: held-out or train")] = "held-out",
    probes: Annotated[
        int | None, typer.Option(help="Random directions that estimate the divergence [1; exact up to 64 numbers]")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Exact divergence: a gradient for each number")] = False,
    noise: Annotated[str, typer.Option(help="Law of the directions: rademacher, gaussian")] = "rademacher",
    rtol: Annotated[float, typer.Option(help="Relative tolerance of a step of the adaptive path")] = 1e-5,
    atol: Annotated[float, typer.Option(help="Absolute tolerance of a step of the adaptive path")] = 1e-5,
    grid: Annotated[
        str | None, typer.Option(help="Walk this grid by RK4 instead: natural, karras, geometric, uniform, power")
    ] = None,
    nfe: Annotated[int | None, typer.Option(help="Most network evaluations per item [1000; 100 on a grid]")] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="The mean of each class too")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the choice of items, their spread and the directions")] = 0,
    data: Annotated[str | None, typer.Option(help="Where the data are, if they have moved")] = None,
    batch: Annotated[int, typer.Option(help="Items taken at once")] = 256,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Take the negative log-likelihood of data in nats, and in bits per dimension, with standard errors."""
    import json as js

    from ..report.nll import nll as taken

    scores = taken(
        run,
        n=n,
        split=split,
        probes=probes,
        exact=exact,
        noise=noise,
        rtol=rtol,
        atol=atol,
        grid=grid,
        nfe=nfe,
        per_class=per_class,
        seed=seed,
        data=data,
        batch=batch,
        device=device,
        trust=trust or (),
        progress=not json,
    )
    print(js.dumps(scores.as_dict()) if json else scores)
