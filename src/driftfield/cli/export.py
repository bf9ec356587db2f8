"""`driftfield export`: a trained denoiser as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run folder or weights file")],
    to: Annotated[str, typer.Option(help="torch (torch.export, .pt2) or onnx")],
    out: Annotated[Path | None, typer.Option(help="File to write [RUN/model.pt2, RUN/model-int8.onnx, ...]")] = None,
    quantize: Annotated[str | None, typer.Option(help="Weights as int8 or int4 [float32]")] = None,
    batch: Annotated[int | None, typer.Option(help="Fixed number of rows [any number]")] = None,
    opset: Annotated[int | None, typer.Option(help="Version of ONNX operators [the exporter's]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is already there")] = False,
    trust: Annotated[list[str] | None, typer.Option(help="Package whose modules the run may import")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Export a denoiser, its preconditioning inside, and check the file against the model."""
    import dataclasses
    import json as js

    from ..deploy.run import export_run

    made, cost = export_run(run, to, out, quantize=quantize, batch=batch, opset=opset, force=force, trust=trust or ())
    if json:
        record = {**dataclasses.asdict(made), "path": str(made.path)}
        print(js.dumps(record | {"quantized": None if cost is None else dataclasses.asdict(cost)}))
        return
    print(f"{made.path}: {made.bytes / 1e6:.2f} MB, y = f({', '.join(made.inputs)}), {_rows(batch)}")
    print(f"agrees with the model to {made.error:.1e} of the output's size on random inputs")
    if cost is not None:
        print(f"weights {cost.before.total / 1e6:.2f} MB -> {cost.after.total / 1e6:.2f} MB ({quantize})")
        print(f"output changed by at most {cost.error:.1e} of its size")
        if cost.losses is None:
            print(f"held-out loss not measured: {cost.missing}")
        else:
            print(f"held-out loss {cost.losses[0]:.5g} -> {cost.losses[1]:.5g}")


def _rows(batch: int | None) -> str:
    return "any number of rows" if batch is None else f"{batch} row{'s' if batch > 1 else ''} at a time"
