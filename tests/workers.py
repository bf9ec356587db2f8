"""Several real processes for a test, joined as torchrun joins them, without its start-up: forked from one server."""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any


def _work(target: Callable[..., Any], values: bytes, environment: dict[str, str], out: Any) -> None:
    os.environ.update(environment)
    import torch

    from driftfield import ranks

    torch.set_num_threads(1)
    try:
        with ranks.joined():
            out.send_bytes(pickle.dumps(target(*pickle.loads(values))))  # not `send`, which lends tensors
    except BaseException as error:
        out.send_bytes(pickle.dumps(error))
        if not isinstance(error, Exception):
            traceback.print_exc()


def together(target: Callable[..., Any], *values: Any, count: int = 2, kill: int | None = None) -> list[Any]:
    """What `target(*values)` returns, or raises, in each of `count` joined processes; None from one that was killed.

    `kill` is the rank to end with SIGKILL once the file that `values[0] / "now"` names is there.
    """
    server = mp.get_context("forkserver")
    server.set_forkserver_preload(["tests.preloaded"])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    pipes, workers = [], []
    for rank in range(count):
        ours, theirs = server.Pipe()
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        worker = server.Process(target=_work, args=(target, pickle.dumps(values), common | own, theirs))
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    try:
        if kill is not None:
            until = time.monotonic() + 60
            while not (values[0] / "now").exists():
                assert time.monotonic() < until
                time.sleep(0.01)
            workers[kill].kill()
        results = []
        for pipe in pipes:
            assert pipe.poll(120), "a process neither ended nor answered"
            try:
                results.append(pickle.loads(pipe.recv_bytes()))
            except EOFError:
                results.append(None)
        return results
    finally:
        for worker in workers:
            worker.join(20)
            worker.kill()
