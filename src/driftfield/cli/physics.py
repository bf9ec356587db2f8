"""`driftfield physics`: equations of physics, whether they generate, and what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at equations of physics that make data.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def physics() -> None:
    """Look at equations of physics that make data."""


@app.command("list")
def catalogue(json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False) -> None:
    """List the equations, and whether each generates: yes, under a condition, or no, with the reason."""
    import json as js

    from ..pde import CATALOGUE

    records = [kind().record() for kind in CATALOGUE.values()]
    if json:
        print(js.dumps(records))
        return
    names, equations = (max(len(r[key]) for r in records) for key in ("name", "pde"))
    for r in records:
        print(f"{r['name']:<{names}}  {r['pde']:<{equations}}  {r['verdict']}")
        print(" " * (names + 2) + (f"if {r['condition']}; " if r["condition"] else "") + r["reason"])


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="An equation of `driftfield physics list`, or custom")],
    mass: Annotated[float | None, typer.Option(help="Of yukawa")] = None,
    wavenumber: Annotated[float | None, typer.Option(help="Of helmholtz")] = None,
    damping: Annotated[float | None, typer.Option(help="Of dissipative-wave")] = None,
    a: Annotated[
        float | None, typer.Option("--a", help="Of mixed: the weight of the second derivative in time")
    ] = None,
    b: Annotated[float | None, typer.Option("--b", help="Of mixed: the weight of the first derivative in time")] = None,
    beta: Annotated[float | None, typer.Option(help="Of fractional: the power of the Laplacian")] = None,
    symbol: Annotated[str | None, typer.Option(help="Of custom: Omega(k), such as 'log(1 + k**2)'")] = None,
    dispersion: Annotated[
        str | None, typer.Option(help="Of custom: omega(k), or a relation in w and k, such as 'w**2 + k**2 - w*I'")
    ] = None,
    data: Annotated[str, typer.Option(help="Points in the plane: a name such as swiss-roll, or a path")] = "swiss-roll",
    times: Annotated[str | None, typer.Option(help="Times to look at, comma-separated [chosen by the spread]")] = None,
    out: Annotated[Path | None, typer.Option(help="Pictures to write, without suffix [./NAME]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of trajectories")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Draw an equation, as PNG and SVG: its waves, its response, the flow of a density, field lines, trajectories."""
    import json as js
    from functools import partial

    from ..data.recognise import find
    from ..files import write
    from ..pde import named
    from ..report.physics import Portrait, plain, portrait
    from ..report.style import png, svg

    options = {"mass": mass, "wavenumber": wavenumber, "damping": damping, "a": a, "b": b, "beta": beta}
    given = {k: v for k, v in {**options, "symbol": symbol, "dispersion": dispersion}.items() if v is not None}
    pde = named(name, given)
    figure = portrait(Portrait.of(pde, find(data).load().train()[0], _numbers(times)), seed)
    stem = Path(pde.name) if out is None else out
    files = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    for file, picture in zip(files, (png(figure), svg(figure)), strict=True):
        write(file, partial(_put, picture))
    if json:
        record = {**pde.record(), "p": pde.p, "v": pde.v, "R": pde.R, "parameters": pde.parameters}
        print(js.dumps({**record, "files": [str(f) for f in files]}))
        return
    print(f"{pde.name}: {plain(pde.pde)}")
    print(f"  p = {plain(pde.p)},  v = {plain(pde.v)},  R = {plain(pde.R)}")
    print(f"  generates: {pde.verdict}" + (f", if {pde.condition}" if pde.condition else ""))
    print(f"  {pde.reason}")
    print(f"  {files[0]}\n  {files[1]}")


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Equations, such as poisson 'yukawa(mass=2)' fractional")],
    data: Annotated[
        list[str] | None, typer.Option(help="Data set to learn, repeatable [eight-gaussians and digits]")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Take exact fields of the training data: no training")] = False,
    minutes: Annotated[float, typer.Option(help="Time to train each model, in minutes")] = 1.0,
    n: Annotated[int, typer.Option("-n", "--number", help="Samples of each to score")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder to write to, and to resume from")] = Path("runs/physics"),
    seed: Annotated[int, typer.Option(help="Seed of the weights and of every draw")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Train several equations on the same data, all alike, and draw their samples side by side with scores."""
    import json as js
    from functools import partial

    from ..files import write
    from ..report.compare import METRIC, Drawn, side_by_side
    from ..report.compare import compare as compared
    from ..report.style import png, svg

    def watch(d: Drawn) -> None:
        if not json:
            print(f"{Path(d.data).stem:<16} {d.equation:<24} {d.score:.4f} +- {d.error:.4f}", flush=True)

    asked = data or ["eight-gaussians", "digits"]
    found = compared(names, asked, out, exact=exact, minutes=minutes, n=n, seed=seed, watch=watch)
    figure = side_by_side(found)
    files = [out / f"compare{suffix}" for suffix in (".png", ".svg")]
    for file, picture in zip(files, (png(figure), svg(figure)), strict=True):
        write(file, partial(_put, picture))
    write(out / "compare.json", partial(_put, js.dumps(found.records(), indent=2).encode()))
    if json:
        print(js.dumps(found.records()))
        return
    print(f"{METRIC} Wasserstein distances to held-out data, at which training data themselves are")
    for name, floor in found.floors.items():
        print(f"{Path(name).stem:<16} {'training data':<24} {floor:.4f}")
    print(f"{files[0]}\n{files[1]}")


def _put(picture: bytes, file: Path) -> None:
    file.write_bytes(picture)


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"--times are numbers separated by commas, such as 0.1,0.5,2; got {text!r}") from None
