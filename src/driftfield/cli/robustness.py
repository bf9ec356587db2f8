"""`driftfield robustness`: what becomes of samples as sampling is made harder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def robustness(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, weights files or pretrained:NAME")],
    study: Annotated[
        list[str] | None, typer.Option(help="What is made harder: noise, steps, weights; may be repeated [all three]")
    ] = None,
    alphas: Annotated[
        str | None, typer.Option(help="Injected noise, in units of that at each step [0,0.05,0.1,0.2,0.3,0.4]")
    ] = None,
    nfe: Annotated[str | None, typer.Option(help="Evaluations per sample [35,19,13,9,7,5]")] = None,
    bits: Annotated[str | None, typer.Option(help="Bits of each inner weight [9,8,7,6,5,4]")] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Samples of each cell")] = 1000,
    split: Annotated[str, typer.Option(help="What samples are compared with: train or held-out")] = "train",
    figures: Annotated[Path | None, typer.Option(help="Folder for a plot of each study as PNG and SVG")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples")] = 0,
    data: Annotated[str | None, typer.Option(help="Where the data are, if they have moved")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the runs may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Compare how runs bear injected noise, fewer evaluations and rounded weights: tables and plots."""
    given = {"noise": ("--alphas", alphas), "steps": ("--nfe", nfe), "weights": ("--bits", bits)}
    settings = {name: _numbers(text, option) for name, (option, text) in given.items() if text is not None}
    names = study or list(given)
    for name in settings:
        if name not in names:
            raise typer.BadParameter(f"{given[name][0]} is of the study {name}, which was not asked for")

    import json as js
    import sys

    from ..report.robustness import robustness as measure
    from ..report.studies import STUDIES, check_figures, write_figures

    if figures is not None:
        check_figures(figures)
    asked = {name: settings.get(name) or (STUDIES[name].settings if name in STUDIES else ()) for name in names}
    found = measure(
        runs,
        studies=asked,
        n=n,
        seed=seed,
        split=split,
        data=data,
        device=device,
        trust=trust or (),
        progress=not json,
    )
    files = [] if figures is None else write_figures(found, figures)
    if json:
        record = {"metric": "frechet", "features": found[0].features, "n": n, "split": split, "seed": seed}
        print(js.dumps({**record, "studies": [one.as_dict() for one in found], "figures": [str(f) for f in files]}))
        return
    for one in found:
        print(f"\n{one.study.title.capitalize()}: Fréchet distance ± standard error")
        rows = one.table()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            cells = (
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            print("  ".join(cells).rstrip())
    against = f"{n} samples a cell on {found[0].features} features against the {split} split"
    print(f"\n{against}; Heun's method, 35 evaluations unless said")
    for line in dict.fromkeys(w for one in found for w in one.warnings):
        print(f"Warning: {line}", file=sys.stderr)
    for file in files:
        print(file)


def _numbers(text: str, option: str) -> list[float]:
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            raise typer.BadParameter(f"{part.strip()!r} is not a number", param_hint=option) from None
    return found
