"""How large a network, a batch and a number of steps fit a budget: by counting operations, never by timing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..data.base import Info
from ..data.table_info import TableInfo
from ..plain import Build

_CPU, _GPU = 7e10, 2e13  # operations a second, as supposed: of one thread, and of an accelerator
_MOST_THREADS = 16  # that a small network keeps busy
_PER_NUMBER = 30  # parameters for each number there is to learn from, at most


@dataclass(frozen=True)
class Size:
    """A network of so many `parameters`, a batch, the steps that a budget is estimated to hold, and why these."""

    network: Build
    parameters: int
    batch: int
    steps: int
    reasons: dict[str, str]


@dataclass(frozen=True)
class _Choices:
    """What a kind of data chooses from: widths, batches from the largest; the fewest samples and steps worth them.

    `overhead` are the seconds a step takes whatever its batch.
    """

    widths: tuple[int, ...]
    batches: tuple[int, ...]
    samples: int
    steps: int
    overhead: float


_VECTORS = _Choices((64, 128, 256, 512, 1024), (512, 256, 128, 64), 1_000_000, 2000, 0.005)
_GRIDS = _Choices((16, 32, 48, 64, 96, 128, 192), (256, 128, 64, 32), 50_000, 1000, 0.01)


def choices_for(info: Info) -> _Choices:
    """By the shape of a sample; a kind of data with needs of its own says so here and in `network_for`.

    An `MLP` is at least twice as wide as a vector where there is such a width: narrower ones lose part of the noise on
    the way, which then stays in the samples, however few dimensions the data have (benchmarks/proposals.py, thin-roll).
    """
    if len(info.shape) > 1:
        return _GRIDS
    wide = tuple(w for w in _VECTORS.widths if w >= 2 * info.shape[0]) or _VECTORS.widths[-1:]
    return replace(_VECTORS, widths=wide)


def size_for(info: Info, count: int, minutes: float, device: str = "", crowding: float = 1.0) -> Size:
    """The largest network that `minutes` on `device` and `count` training items (0: without end) carry.

    Raises: ValueError for samples of a shape that no network here takes.
    """
    choices, numbers = choices_for(info), count * math.prod(info.shape)

    def planned(width: int) -> tuple[bool, float, Size]:
        network = network_for(info, width, crowding)
        operations, parameters = cost_of(network, info)
        for batch in choices.batches:
            steps = max(1, int(60 * minutes / seconds_per_step(operations, batch, choices.overhead, device)))
            if steps >= choices.steps:
                break
        carried = steps * batch >= choices.samples and (not numbers or parameters <= _PER_NUMBER * numbers)
        return carried, operations, Size(network, parameters, batch, steps, {})

    fits, operations, size = planned(choices.widths[0])
    for width in choices.widths[1:]:
        wider = planned(width)
        if not wider[0]:
            break
        fits, operations, size = wider
    rate, where = _speed(device)
    enough = f"sees {choices.samples:,} samples in {minutes:g} minutes"
    limit = f" and has at most {_PER_NUMBER} parameters for each of {numbers:,} training numbers" if numbers else ""
    narrow = "twice the dimension or more" if len(info.shape) == 1 else "all"
    size.reasons["network"] = (
        f"the widest that {enough}{limit}." if fits else f"the narrowest of {narrow}; none {enough}{limit}."
    )
    size.reasons["batch"] = (
        f"the largest from {choices.batches[-1]} to {choices.batches[0]} that leaves {choices.steps:,} steps, "
        "or else the least."
    )
    size.reasons["steps"] = (
        f"estimated, not timed: {1000 * choices.overhead:g} ms a step and thrice {operations / 1e6:.3g} million "
        f"operations a sample, at {rate / 1e9:g} billion a second on {where}; training times its own steps."
    )
    return size


def seconds_per_step(operations: float, batch: int, overhead: float, device: str = "") -> float:
    """The estimated time of a training step on `batch` samples, of so many `operations` each forward: thrice those."""
    return overhead + 3 * operations * batch / _speed(device)[0]


def _speed(device: str) -> tuple[float, str]:
    """Operations a second, and of what."""
    if device.startswith("cuda") or (device == "" and torch.cuda.is_available()):
        return _GPU, "an accelerator"
    threads = min(_MOST_THREADS, torch.get_num_threads())
    return _CPU * threads, f"{threads} thread{'s' if threads > 1 else ''}"


def network_for(info: Info, width: int, crowding: float = 1.0) -> Build:
    """A network of this width for samples of this kind and shape: an `MLP` on vectors, a `UNet` on grids.

    On up to 3 coordinates an `MLP` sees waves as short as the finest structure, twice `crowding`.
    Raises: ValueError for samples with more than 3 grid axes.
    """
    if len(info.shape) == 1:
        options: dict[str, Any] = {"width": width}
        if info.shape[0] <= 3:
            options["waves"] = max(4, 1 + math.ceil(math.log2(2 / crowding)))
        return Build("driftfield.network.mlp:MLP", options)
    if len(info.shape) > 4:
        raise ValueError(f"samples of shape {info.shape} have more than 3 grid axes; give a network of your own")
    longest, shortest = max(info.shape[1:]), min(info.shape[1:])
    levels = 1 if longest < 4 else 2 if longest <= 8 else 3 if longest <= 32 else 4
    if len(info.shape) == 2:  # a long series: down to about 8 points, so that its ends see each other
        levels = max(levels, longest.bit_length() - 3)
    while shortest < 2 ** (levels - 1):
        levels -= 1
    return Build("driftfield.network.unet:UNet", {"width": width, "multipliers": (1, *(2,) * (levels - 1))})


def cost_of(build: Build, info: Info) -> tuple[int, int]:
    """Operations for one sample forward, and the number of parameters, without drawing or holding any weight."""
    with torch.device("meta"):
        network = build(shape=info.shape, classes=len(info.classes), known=isinstance(info, TableInfo))
        x, noise = torch.zeros(1, *info.shape), torch.zeros(1)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x, noise)
    return counter.get_total_flops(), sum(p.numel() for p in network.parameters())
