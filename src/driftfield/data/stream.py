"""Data larger than memory: items read when they are drawn, one batch ahead of the step that learns from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import ranks
from ..rng import Rng, device_of, integers, permutation, seeded
from .base import Info, Source

SHARE = 0.25  # of this machine's memory: data whose opening would take more are read from where they lie
MOST = 2**27  # numbers in a split that is returned at once, half a gibibyte as float32
_PARTS = 0x50415254  # the key of the streams that choose which items of a larger split those are

Pair = tuple[Tensor, Tensor | None]
Index = npt.NDArray[np.int64]


def memory() -> int:
    """Bytes of memory that this program may use: the machine's, or the limit of the container it runs in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = limit.read_text().strip() if limit.exists() else "max"
        whole = min(whole, int(text)) if text != "max" else whole
    return whole


def fits(size: int) -> bool:
    """Whether `size` bytes are at most a quarter of memory, shared with the other processes of the job here."""
    return size <= SHARE * memory() / ranks.local_count()


def model_values(data: Tensor) -> Tensor:
    """Stored data in the model's units: bytes of images brought to [-1, 1], numbers as they are."""
    return data.float() / 127.5 - 1 if data.dtype == torch.uint8 else data


class Streamed(Source):
    """A finite set that stays where it is: the draws are those of `Stored`, bit for bit, but read one batch at a time.

    `read(index)`, of increasing or repeated item numbers, gives `(len(index), *shape)`, uint8 bytes of images or
    float32 in the model's units. `train()` and `held()` return at most `MOST` numbers: the whole split where that is
    enough, else a fixed choice of its items, whose number a score's record states.
    """

    slow = True

    def __init__(
        self,
        read: Callable[[Index], Tensor],
        info: Info,
        train: Tensor,
        held: Tensor,
        labels: Tensor | None,
    ):
        """`train` and `held` are the numbers of the items in each split, `labels` those of all items."""
        self.info, self._read, self._train, self._held, self._labels = info, read, train, held, labels

    def _items(self, index: Tensor, device: torch.device | str = "cpu") -> Pair:
        labels = None if self._labels is None else self._labels[index].to(device)
        return model_values(self._read(index.numpy()).to(device)), labels

    def draw(self, n: int, rng: Rng) -> Pair:
        device = device_of(rng)
        pick = integers(torch.empty(n, device=device), self.info.count, rng)
        return self._items(self._train[pick.cpu()], device)

    def _part(self, index: Tensor, key: int) -> Pair:
        most = max(1, MOST // int(np.prod(self.info.shape)))
        if len(index) > most:
            index = index[permutation(len(index), seeded(0, _PARTS, key))[:most].sort().values]
        return self._items(index)

    def held(self) -> Pair:
        return self._part(self._held, 0)

    def train(self) -> Pair:
        return self._part(self._train, 1)

    def some_held(self, n: int, rng: torch.Generator) -> Pair:
        return self._items(self._held[permutation(len(self._held), rng)[:n]])

    def parts(self, n: int) -> Iterator[Pair]:
        for index in torch.split(self._train, n):
            yield self._items(index)


def ahead(
    draw: Callable[[int, int], Pair], steps: Sequence[int], pieces: Sequence[int], slow: bool, device: torch.device
) -> Iterator[Pair]:
    """`draw(step, piece)` for every piece of every step, in order.

    Where drawing is `slow`, a thread draws the next step while the caller works on this one: what is drawn depends on
    its step and piece alone, so it is the same. An exception in the thread is raised here, in its turn.
    """
    if not slow:
        yield from (draw(step, piece) for step in steps for piece in pieces)
        return
    side: Any = None
    if device.type == "cuda":
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # copies wait there, not behind the step

    def whole(step: int) -> list[Pair]:
        with torch.cuda.stream(side):  # nothing where there is none
            drawn = [draw(step, piece) for piece in pieces]
        if side is not None:
            side.synchronize()
        return drawn

    with ThreadPoolExecutor(1, "driftfield-ahead") as thread:
        coming = None
        for i, step in enumerate(steps):
            drawn = whole(step) if coming is None else coming.result()
            coming = thread.submit(whole, steps[i + 1]) if i + 1 < len(steps) else None
            for x, label in drawn:
                if side is not None:  # the side stream's memory must outlive the step that reads it
                    for tensor in (x, label):
                        if tensor is not None:
                            tensor.record_stream(torch.cuda.current_stream(device))
                yield x, label
