"""`driftfield recipes`: what can be trained by name."""

from __future__ import annotations

from typing import Annotated

import typer


def recipes(json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False) -> None:
    """List the names that `driftfield train` knows."""
    import json as js

    from ..data.recognise import NAMES
    from ..recipes import RECIPES

    known = {**RECIPES, **NAMES}
    lines = {name: (known[name].__doc__ or "").strip().splitlines()[0] for name in (*NAMES, *RECIPES)}
    if json:
        print(js.dumps([{"name": name, "about": about} for name, about in lines.items()]))
        return
    width = max(map(len, lines))
    for name, about in lines.items():
        print(f"{name:<{width}}  {about}")
