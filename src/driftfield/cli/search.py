"""`driftfield search`: a path of times made for one model, solver and budget."""

from __future__ import annotations

from typing import Annotated

import typer


def search(
    run: Annotated[str, typer.Argument(help="Run folder, weights file or pretrained:NAME")],
    solver: Annotated[str | None, typer.Option(help="Solver the path is for [recipe's]")] = None,
    nfe: Annotated[int | None, typer.Option(help="Most network evaluations per sample [recipe's]")] = None,
    number: Annotated[int, typer.Option("-n", "--number", help="Trajectories to search by")] = 64,
    fine: Annotated[int, typer.Option(help="Steps of the teacher's grid, from which times are chosen")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the trajectories")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Find the times that suit a model, a solver and a budget; keep them as the grid `searched`."""
    import json as js

    from ..report.paths import search as searched

    def watch(name: str, error: float) -> None:
        if not json:
            print(f"  {name:<12} {error:.5f}")

    if not json:
        print("Root-mean-square distance to the fine path, by how the times were chosen:")
    found = searched(
        run, solver=solver, nfe=nfe, n=number, seed=seed, fine=fine, device=device, trust=trust or (), watch=watch
    )
    if json:
        print(js.dumps({"times": found.path.tolist(), "error": found.error, "tried": found.tried}))
        return
    best = min(found.tried, key=lambda name: found.tried[name])
    gain = found.tried["natural"] / found.error
    print(f"Kept the times of {best}: {gain:.2f} times nearer than the natural grid.")
    options = "".join(f" --{k} {v}" for k, v in (("solver", solver), ("nfe", nfe)) if v is not None)
    print(f"Next: driftfield sample {run} --grid searched{options}")
