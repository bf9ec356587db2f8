"""What the sampling loop costs beside the network, against diffusers' Euler and Heun.

    python benchmarks/loop_overhead.py [--batch 16] [--repeat 200] [--threads 1]

A step with a denoiser that costs nothing, divided by one evaluation of a U-Net of about a million parameters at
3 x 32 x 32. Each figure is the median of `--repeat` steps. Both sides walk 18 points of the same Karras grid from the
same start; a step of theirs includes what their users write (`scale_model_input`, the call, `step`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import driftfield as df
from driftfield.process.base import Process
from driftfield.rng import normal, seeded
from driftfield.solve.base import Solver


def median(step: Callable[[], float], repeat: int) -> float:
    """The median of `repeat` timings, in seconds, after a tenth as many to warm up."""
    for _ in range(max(3, repeat // 10)):
        step()
    return statistics.median(step() for _ in range(repeat))


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """A function that says how long `work` took."""

    def step() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return step


def ours(solver: Solver, process: Process, x: torch.Tensor) -> Callable[[], float]:
    """The time per step of a whole walk along the grid."""
    grid = df.karras(process, 18)
    field = df.Reverse(process, lambda x, t, cond=None: x)
    return lambda: timed(lambda: df.sample(field, x, grid, solver, seeded(0)))() / 18


def theirs(scheduler: object, x: torch.Tensor) -> Callable[[], float]:
    """The same walk written as the library's users write it."""

    def walk() -> None:
        scheduler.set_timesteps(18)
        state = x
        for t in scheduler.timesteps:
            scheduler.scale_model_input(state, t)
            state = scheduler.step(x, t, state).prev_sample

    def step() -> float:
        scheduler.set_timesteps(18)
        calls = len(scheduler.timesteps)
        begun = time.perf_counter()
        walk()
        steps = 18 if calls > 18 else calls  # Heun lists each step's two evaluations
        return (time.perf_counter() - begun) / steps

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from diffusers import EulerDiscreteScheduler, HeunDiscreteScheduler

    x = normal(torch.empty(options.batch, 3, 32, 32), seeded(0))
    network = df.UNet((3, 32, 32), width=32, multipliers=(1, 2, 4)).eval()
    label = torch.zeros(options.batch)
    with torch.no_grad():
        evaluation = median(timed(lambda: network(x, label)), max(10, options.repeat // 4))
        rows = {
            "driftfield Euler, EDM": ours(df.Euler(), df.EDM(), x),
            "driftfield Euler, PFGM++": ours(df.Euler(), df.PFGMPP(D=128), x),
            "driftfield Euler, VP": ours(df.Euler(), df.VP(), x),
            "diffusers Euler": theirs(EulerDiscreteScheduler(use_karras_sigmas=True), x),
            "driftfield Heun, EDM": ours(df.Heun(), df.EDM(), x),
            "driftfield Heun, VP": ours(df.Heun(), df.VP(), x),
            "diffusers Heun": theirs(HeunDiscreteScheduler(use_karras_sigmas=True), x),
        }
        found = {name: median(step, options.repeat) for name, step in rows.items()}
    count = sum(p.numel() for p in network.parameters())
    print(f"U-Net of {count / 1e6:.2f} M parameters, batch {options.batch}, {options.threads} thread(s): ")
    print(f"{1e3 * evaluation:.1f} ms an evaluation; torch {torch.__version__}\n")
    print("| loop | microseconds a step | share of one evaluation |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {1e6 * seconds:.0f} | {100 * seconds / evaluation:.2f} % |")


if __name__ == "__main__":
    main()
