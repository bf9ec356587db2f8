"""`driftfield report`: one page about a run, or about several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders or weights files")],
    out: Annotated[Path, typer.Option(help="Page to write")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(help="Folder for every figure as PNG and SVG")] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--number", help="Samples for each score [as many as a minute a run allows]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples")] = 0,
    data: Annotated[str | None, typer.Option(help="Where the data are, if they have moved")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the runs may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Write one page about runs: samples, neighbours, scores, quality by evaluations, losses, recipe."""
    import json as js
    import shlex
    import sys

    from ..report.page import write_report

    made = write_report(
        runs,
        out=out,
        figures=figures,
        n=n,
        seed=seed,
        data=data,
        device=device,
        trust=trust or (),
        command=shlex.join(["driftfield", *sys.argv[1:]]),
        progress=not json,
    )
    if json:
        print(js.dumps(made))
        return
    print(f"{made['out']} ({made['n']} samples for each score)")
    if made["figures"]:
        print(f"{len(made['figures'])} figures in {figures}")
