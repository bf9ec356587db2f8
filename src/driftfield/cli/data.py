"""`driftfield data`: looking at data before anything is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at data before training on them.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Look at data before training on them."""


@app.command()
def inspect(
    data: Annotated[str, typer.Argument(help="Path of a file or folder, or a name such as digits or swiss-roll")],
    minutes: Annotated[float, typer.Option(help="Budget of training that the proposal is for")] = 5.0,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Field of the data: data.field=value")] = None,
    phases: Annotated[
        bool, typer.Option("--phases", help="Measure how uncertain training targets are at each level of noise")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Picture of the scales to write (.png or .svg)")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Propose for the CPU even where there is an accelerator")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON record")] = False,
) -> None:
    """Say what data are, and propose how to train on them, with a reason for each value."""
    import json as js
    import shlex

    from ..data.recognise import find
    from ..plain import to_plain
    from ..settings import settled
    from ..train.phases import helps, measured
    from ..train.propose import proposed

    strange = [s for s in settings or [] if not s.startswith("data.")]
    if strange:
        raise ValueError(f"only fields of the data can be set here, as data.field=value; got {strange[0]!r}")
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise ValueError(f"a plot is written to a .png or .svg file, got {str(plot)!r}")
    value = settled(find(data), [s.removeprefix("data.") for s in settings or []])
    source = value.load()
    proposal = proposed(source, None, minutes, "cpu" if cpu else "", data)
    found = measured(source, proposal) if phases else None
    if plot is not None:
        from ..files import write_bytes
        from ..report.scales import scales
        from ..report.style import png, svg

        picture = (png if plot.suffix == ".png" else svg)(scales(proposal, found))
        write_bytes(plot, picture)
    if json:
        record = {"data": to_plain(value), **proposal.as_dict()}
        if found is not None:
            record["phases"] = {**found.as_dict(), "helps": helps(found, proposal)}
        print(js.dumps(record))
        return
    print(f"{data}\n\n{proposal.facts}\n\nProposed for {proposal.minutes:g} minutes of training:\n\n{proposal}")
    if found is not None:
        print(f"\nTargets by level of noise, {found.items:,} items, in units of the score:\n\n{found}\n")
        for size, share in helps(found, proposal).items():
            print(f"  {share:.1%} of the proposed times are above the level {found.onset(size):.3g}, from which on a")
            print(f"  reference of {size} helps: --objective 'StableTarget(reference={size})'")
    if plot is not None:
        print(f"\nScales: {plot}")
    command = ["driftfield", "train", "--data", data, *(word for s in settings or [] for word in ("--set", s))]
    print(f"\nNext: {shlex.join([*command, '--minutes', f'{proposal.minutes:g}'])}")
