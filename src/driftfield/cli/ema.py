"""`driftfield ema`: another average of a trained model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ema(
    run: Annotated[Path, typer.Argument(help="Run folder")],
    sigma_rel: Annotated[float | None, typer.Option(help="Width of the average, as a share of the run: 0.1")] = None,
    sweep: Annotated[str | None, typer.Option(help="Widths to judge on held-out data: 0.03,0.05,0.1")] = None,
    step: Annotated[int | None, typer.Option(help="Step of a snapshot [the newest]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Weights file to write; of a sweep, the best [RUN/ema-WIDTH.safetensors]")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Figure of the sweep to write, .png or .svg")] = None,
    data: Annotated[str | None, typer.Option(help="Where the data are, if they have moved")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Rebuild an average of any width from a run's snapshots: --sigma-rel writes one, --sweep compares several."""
    if (sigma_rel is None) == (sweep is None):
        raise typer.BadParameter(
            "give one of the two: --sigma-rel 0.1 to write an average, --sweep 0.05,0.1 to compare"
        )
    if sweep is None and plot is not None:
        raise typer.BadParameter("a plot is of several widths; give them with --sweep", param_hint="--plot")
    import json as js
    from dataclasses import asdict

    from ..report import averages
    from ..train.snapshots import rebuild

    if out is not None and out.exists():
        raise FileExistsError(f"{out} is there already; choose another --out")
    if sigma_rel is not None:
        made = rebuild(run, sigma_rel, step, trust or ())
        at = "" if step is None else f"-step-{step}"
        path = out or run / f"ema-{sigma_rel:g}{at}.safetensors"
        made.save(path)
        if json:
            errors = {"profile_error": made.profile_error, "weights_error": made.weights_error}
            print(js.dumps({"sigma_rel": sigma_rel, "step": made.step, **errors, "out": str(path)}))
        else:
            print(
                f"The average of sigma_rel {sigma_rel:g} at step {made.step}, its profile met to "
                f"{made.profile_error:.1%}, its weights to about {made.weights_error:.2%}"
            )
            print(f"Next: driftfield sample {path}")
        return
    if plot is not None:
        averages.check_plot(plot)
    widths = [_width(text) for text in str(sweep).split(",") if text.strip()]
    rows, best = averages.sweep(run, widths, step=step, data=data, device=device, trust=trust or ())
    if not json:
        heads = ("held-out loss", "training loss", "profile error", "weights error")
        print("  ".join([f"{'sigma_rel':>9}", *heads]))
        for row in rows:
            mark = "  best" if row.sigma_rel == best.sigma_rel else ""
            losses = f"{row.held:>13.5f}  {row.train:>13.5f}"
            print(f"{row.sigma_rel:>9g}  {losses}  {row.profile_error:>13.1%}  {row.weights_error:>13.2%}{mark}")
    if plot is not None:
        averages.write_figure(rows, plot)
    if out is not None:
        best.save(out)
    if json:
        record = {"step": best.step, "best": best.sigma_rel, "widths": [asdict(row) for row in rows]}
        print(js.dumps({**record, "out": None if out is None else str(out)}))
    elif out is None:
        print(f"Next: driftfield ema {run} --sigma-rel {best.sigma_rel:g}")
    else:
        print(f"Next: driftfield sample {out}")


def _width(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text.strip()!r} is not a number", param_hint="--sweep") from None
