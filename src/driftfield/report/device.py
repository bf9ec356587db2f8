"""Which device to draw on."""

from __future__ import annotations

import os

import torch

from .. import ranks


def device_named(name: str | None) -> torch.device:
    """The device called `name`, or the first accelerator, or the CPU where there is none.

    Several processes on one machine take an accelerator each, in turn, unless a number says which.

    Raises: ValueError for a device that is not here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count() > 1 and torch.cuda.is_available():
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"there is no device {name!r} here; there is {', '.join(here)}") from None
    return device
