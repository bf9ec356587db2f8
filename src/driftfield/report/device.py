"""Which device to draw on."""

from __future__ import annotations

import torch


def device_named(name: str | None) -> torch.device:
    """The device called `name`, or the first accelerator, or the CPU where there is none.

    Raises: ValueError for a device that is not here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"there is no device {name!r} here; there is {', '.join(here)}") from None
    return device
