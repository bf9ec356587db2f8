"""How fast `Empirical` is, and how much memory it takes, against the two matrix products that it must do.

Beside it: `compiled=True`; and on the first `--few` points, as the others do not stream what they would hold, or take
long, the softmax of `torch.cdist`, as one would write it, and KeOps where it is there (`pip install pykeops`).

    python benchmarks/empirical.py [--rows 128] [--points 50000] [--dim 3072] [--few 2000] [--repeat 5]

Times are medians over `--repeat` calls in one process, the products timed between the calls so that a change of the
machine's load touches both. Memory is the growth of the process's resident set during one call, sampled every
millisecond by a thread, after a call on a tiny problem has loaded the libraries; the data themselves are not in it.
"""

from __future__ import annotations

import argparse
import gc
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from driftfield.denoise.empirical import Empirical
from driftfield.process.base import Isotropic
from driftfield.process.gaussian import EDM
from driftfield.process.poisson import PFGM, PFGMPP
from driftfield.rng import seeded, uniform


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def resident() -> float:
    """The resident set of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def growth(call: Callable[[], object]) -> float:
    """The largest growth of the resident set while `call` runs, in MB."""
    gc.collect()
    before, peak, done = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident())

    thread = threading.Thread(target=watch)
    thread.start()
    call()
    peak = max(peak, resident())
    done.set()
    thread.join()
    return peak - before


def products(x: Tensor, data: Tensor) -> Tensor:
    return (x @ data.T) @ data


def naive(process: Isotropic, x: Tensor, t: Tensor, data: Tensor) -> Tensor:
    """All distances at once, a few tensors of rows x points; in float32 they are wrong at small noise."""
    d2 = torch.cdist(x, process.alpha(t) * data).square()
    return process.log_profile(d2, t, x.shape[1]).softmax(1) @ data


def keops(process: Isotropic, x: Tensor, t: Tensor, data: Tensor) -> Tensor:
    """The same by KeOps, for Gaussian and Student-t noise. Raises: ImportError where it is not installed."""
    from pykeops.torch import LazyTensor

    d2 = ((LazyTensor(x[:, None]) - LazyTensor((process.alpha(t) * data)[None])) ** 2).sum(2)
    if math.isinf(process.freedom):
        log = d2 * (-1 / (2 * process.sigma(t).item() ** 2))
    else:
        scale = process.freedom * process.sigma(t).item() ** 2
        log = (1 + d2 * (1 / scale)).log() * (-(x.shape[1] + process.freedom) / 2)
    mean: Tensor = log.sumsoftmaxweight(LazyTensor(data[None].contiguous()), dim=1)
    return mean


def milliseconds(call: Callable[[], object], repeat: int) -> str:
    return f"{1000 * median(seconds(call) for _ in range(repeat)):.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("rows", 128), ("points", 50_000), ("dim", 3072), ("few", 2000), ("repeat", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()

    rng = seeded(0)
    data = 2 * uniform(torch.empty(args.points, args.dim), rng) - 1
    few = data[: args.few]
    size = args.rows * len(few) * 4 / 1e6
    warm = Empirical(EDM(), data[:256])
    warm(data[: args.rows], torch.tensor(1.0))
    products(data[: args.rows], data[:256])

    print(f"{args.rows} rows, {args.points} points, {args.dim} dimensions, float32, {torch.get_num_threads()} threads;")
    print(f"data {data.numel() * 4 / 1e6:.0f} MB; the last four columns on {len(few)} points, {size:.0f} MB a tensor\n")
    print(
        "| process | level | Empirical ms | 2 products ms | ratio | compiled ms | ratio | extra MB "
        "| Empirical ms | cdist ms | cdist MB | KeOps ms |"
    )
    print("|---" * 12 + "|")
    processes: tuple[Isotropic, ...] = (EDM(), PFGMPP(D=128.0), PFGM())
    for process in processes:
        exact, small = Empirical(process, data), Empirical(process, few)
        fused = Empirical(process, data, compiled=True)
        fused(data[: args.rows], torch.tensor(1.0))
        for level in (0.01, 1.0, 5.0, 20.0, 80.0):
            t = torch.tensor(level, dtype=torch.float64)
            x = process.perturb(data[: args.rows], t, rng)
            run, two = partial(exact, x, t), partial(products, x, data)
            quick, plain, lazy = partial(small, x, t), partial(naive, process, x, t, few), partial(keops, process, x, t)
            extra = growth(run)
            times = [(seconds(run), seconds(two), seconds(partial(fused, x, t))) for _ in range(args.repeat)]
            a, b, c = (median(column) for column in zip(*times, strict=True))
            heap = growth(plain)
            try:
                lazy(few)  # compiles
                other = milliseconds(partial(lazy, few), args.repeat)
            except ImportError:
                other = "not run"
            name = "EDM" if process.freedom == float("inf") else f"PFGM++ {process.freedom:g}"
            speed = (f"{1000 * a:.4g}", f"{1000 * b:.4g}", f"{a / b:.2f}", f"{1000 * c:.4g}", f"{c / b:.2f}")
            beside = (milliseconds(quick, args.repeat), milliseconds(plain, args.repeat), f"{heap:.0f}", other)
            print(f"| {' | '.join((name, f'{level:g}', *speed, f'{extra:.0f}', *beside))} |", flush=True)


if __name__ == "__main__":
    main()
