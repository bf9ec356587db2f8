"""`driftfield doctor`: what this machine has, and whether the basics work on it."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False) -> None:
    """Check the installation: versions, devices, and one exact answer on each device."""
    import importlib.metadata as metadata
    import importlib.util
    import json as js
    import platform

    import torch

    import driftfield as df

    found: dict[str, str] = {"driftfield": df.__version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "safetensors", "accelerate"):
        found[name] = metadata.version(name)
    for name, module in (("scikit-learn (digits)", "sklearn"), ("matplotlib (plots)", "matplotlib")):
        found[name] = "installed" if importlib.util.find_spec(module) else "not installed"
    found["threads"] = str(torch.get_num_threads())
    devices = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    failed = False
    for device in devices:
        datum = torch.tensor([0.3, -0.7], device=device)
        drawn = df.generate(df.PFGMPP(D=128), df.Point(datum), (64, 2), nfe=9, device=device)
        error = (drawn - datum.cpu()).abs().max().item()
        failed |= not error < 1e-5
        found[f"device {device}"] = f"one datum recovered to {error:.1e}"
    if json:
        print(js.dumps(found))
    else:
        width = max(map(len, found))
        for name, what in found.items():
            print(f"{name:<{width}}  {what}")
    if failed:
        raise FloatingPointError("a device did not recover one datum from noise; its arithmetic cannot be trusted")
