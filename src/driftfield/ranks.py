"""Several workers on one job, as `torchrun` and `accelerate launch` start them; a program started alone is rank 0 of 1.

Rank 0 speaks and writes for all. Whatever only it does goes through `first`, so that the others wait for it and meet
its failure too; whatever any of them may decide goes through `agree`, so that all act alike.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from typing import Any, TypeVar, TypeVarTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PATIENCE = timedelta(minutes=30)  # how long one waits for another: rank 0 may be drawing or judging meanwhile
_SAID = "rank 0 has said so"  # the note on an error that was met by rank 0 and handed to the others
_peers: list[tuple[str, int]] = []  # the host and process number of every rank, noted when they join


def rank() -> int:
    """This worker's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many workers there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_count() -> int:
    """How many workers share this machine and its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


@contextmanager
def joined() -> Iterator[None]:
    """Within it the workers that a launcher started can speak to each other; alone, it does nothing.

    Raises: ConnectionError naming the rank that ended, as soon as its silence is met.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not dist.is_initialized():
        yield
        return
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
        atexit.register(dist.destroy_process_group)
    if not _peers:
        _peers.extend(gathered((gethostname(), os.getpid())))
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):  # gloo's own errors have no class
            raise
        raise ConnectionError(
            f"{_ended()}, so the others stop too; start the same command again: a training run goes on from its "
            "last saved state"
        ) from error


def _ended() -> str:
    """Which ranks are no longer there, of those on this machine."""
    time.sleep(0.3)  # a killed process closes its connections a moment before it is gone
    gone = [i for i, (host, pid) in enumerate(_peers) if host == gethostname() and not _lives(pid)]
    names = " and ".join(f"rank {i} (process {_peers[i][1]})" for i in gone) or "another rank"
    return f"{names} of {len(_peers)} {'have' if len(gone) > 1 else 'has'} ended or does not answer"


def _lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        return status.read_text().rpartition(")")[2].split()[0] not in "ZX"  # a zombie is dead, if not yet buried
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def first(make: Callable[[*Ts], T], *values: *Ts) -> T:
    """What `make(*values)` returns on rank 0, which alone calls it; an exception in it is raised on every rank.

    The value is a plain one, small enough to send to all.
    """
    if count() == 1:
        return make(*values)
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = make(*values)
        except Exception as error:
            dist.broadcast_object_list([None, error])
            raise
    dist.broadcast_object_list(box)
    value, failure = box
    if failure is not None:
        failure.add_note(_SAID)
        raise failure
    found: T = value
    return found


def said(error: BaseException) -> bool:
    """Whether rank 0 has met this error and will report it."""
    return _SAID in getattr(error, "__notes__", ())


def agree(flag: bool) -> bool:
    """Whether any rank says so: the same answer on all."""
    if count() == 1:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes)


def gathered(value: T) -> list[T]:
    """The `value` of every rank, in their order, on every rank; small and plain."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def mean(x: Tensor) -> Tensor:
    """The mean of `x` over the ranks, the same bits on all; nothing waits for the device."""
    if count() > 1:
        x = x.clone()
        dist.all_reduce(x)
        x /= count()
    return x


def whole(x: Tensor) -> Tensor:
    """A tensor that is split over the ranks, in one piece on each of them, all asking at once; another as it is."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def split(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on every rank, split over them as `like` is; as it is where `like` is not split."""
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def rows(n: int, batch: int) -> range:
    """The rows of `n` that this rank takes: whole batches where there are enough, so that they are split as by one.

    Raises: ValueError for a batch of less than 1.
    """
    if batch < 1:
        raise ValueError(f"a batch holds at least 1 row, got batch={batch}")
    return _rows(n, batch, rank())


def _rows(n: int, batch: int, place: int) -> range:
    size = batch if -(-n // batch) >= count() else 1
    parts = -(-n // size)
    begin, end = (min(n, parts * k // count() * size) for k in (place, place + 1))
    return range(begin, end)


def collected(part: Tensor, n: int, batch: int) -> Tensor | None:
    """All `n` rows on rank 0, None elsewhere; `part` holds those that `rows(n, batch)` gave to this rank."""
    if count() == 1:
        return part
    if rank() > 0:
        if len(part):
            dist.send(part.cpu().contiguous(), 0)
        return None
    x = part.new_empty((n, *part.shape[1:]), device="cpu")
    x[: len(part)] = part
    for place in range(1, count()):
        mine = _rows(n, batch, place)
        if mine:
            dist.recv(x[mine.start : mine.stop], place)
    return x
