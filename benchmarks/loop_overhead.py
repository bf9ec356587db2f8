"""What the sampling loop costs beside the network, against diffusers' schedulers.

    python benchmarks/loop_overhead.py [--batch 16] [--repeat 200] [--threads 1]

A step with a denoiser that costs nothing, divided by one evaluation of a U-Net of about a million parameters at
3 x 32 x 32. Each figure is the lower quartile of `--repeat` walks, the rows taking turns: other work on the machine
only adds. Both sides walk 18 points of the same Karras grid from the same start, whose times are laid out before; a
step of theirs includes what their users write (`scale_model_input`, the call, `step`). The last row is a walk compiled
as one graph.
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


def quartiles(rows: dict[str, Callable[[], float]], repeat: int) -> dict[str, float]:
    """The lower quartile of `repeat` timings of each row, in seconds, the rows taking turns; first some to warm up."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(repeat + 3):
        for name, step in rows.items():
            seconds = step()
            if turn >= 3:
                found[name].append(seconds)
    return {name: statistics.quantiles(times)[0] for name, times in found.items()}


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


def compiled(solver: Solver, process: Process, x: torch.Tensor) -> Callable[[], float]:
    """The same walk as one graph."""
    times = tuple(df.karras(process, 18).tolist())
    field, rng = df.Reverse(process, lambda x, t, cond=None: x), seeded(0)
    walk = torch.compile(lambda x: df.sample(field, x, times, solver, rng), fullgraph=True)
    return lambda: timed(lambda: walk(x))() / 18


def theirs(scheduler: object, x: torch.Tensor) -> Callable[[], float]:
    """The same walk written as the library's users write it."""

    def walk() -> None:
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
    from diffusers import (
        DEISMultistepScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        UniPCMultistepScheduler,
    )

    karras = {"use_karras_sigmas": True}
    noisy = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=1, **karras)

    x = normal(torch.empty(options.batch, 3, 32, 32), seeded(0))
    network = df.UNet((3, 32, 32), width=32, multipliers=(1, 2, 4)).eval()
    label = torch.zeros(options.batch)
    with torch.no_grad():
        evaluation = quartiles({"": timed(lambda: network(x, label))}, max(10, options.repeat // 4))[""]
        rows = {
            "driftfield Euler, EDM": ours(df.Euler(), df.EDM(), x),
            "driftfield Euler, PFGM++": ours(df.Euler(), df.PFGMPP(D=128), x),
            "driftfield Euler, VP": ours(df.Euler(), df.VP(), x),
            "diffusers Euler": theirs(EulerDiscreteScheduler(**karras), x),
            "driftfield Heun, EDM": ours(df.Heun(), df.EDM(), x),
            "driftfield Heun, VP": ours(df.Heun(), df.VP(), x),
            "diffusers Heun": theirs(HeunDiscreteScheduler(**karras), x),
            "driftfield DEIS 3, EDM": ours(df.DEIS(3), df.EDM(), x),
            "driftfield DEIS 3, VP": ours(df.DEIS(3), df.VP(), x),
            "diffusers DEIS 3": theirs(DEISMultistepScheduler(solver_order=3, **karras), x),
            "driftfield DPM-Solver++ 2M, EDM": ours(df.DPMSolverPP(2), df.EDM(), x),
            "driftfield DPM-Solver++ 2M, VP": ours(df.DPMSolverPP(2), df.VP(), x),
            "diffusers DPM-Solver++ 2M": theirs(DPMSolverMultistepScheduler(solver_order=2, **karras), x),
            "driftfield UniPC 2, EDM": ours(df.UniPC(2), df.EDM(), x),
            "driftfield UniPC 2, VP": ours(df.UniPC(2), df.VP(), x),
            "diffusers UniPC 2": theirs(UniPCMultistepScheduler(solver_order=2, **karras), x),
            "driftfield ReverseSDE, EDM": ours(df.ReverseSDE(1.0), df.EDM(), x),
            "driftfield ReverseSDE, VP": ours(df.ReverseSDE(1.0), df.VP(), x),
            "diffusers SDE-DPM-Solver++ 1": theirs(noisy, x),
            "driftfield DPM-Solver++ 2M, EDM, one graph": compiled(df.DPMSolverPP(2), df.EDM(), x),
        }
        found = quartiles(rows, options.repeat)
    count = sum(p.numel() for p in network.parameters())
    print(f"U-Net of {count / 1e6:.2f} M parameters, batch {options.batch}, {options.threads} thread(s): ")
    print(f"{1e3 * evaluation:.1f} ms an evaluation; torch {torch.__version__}\n")
    print("| loop | microseconds a step | share of one evaluation |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {1e6 * seconds:.0f} | {100 * seconds / evaluation:.2f} % |")


if __name__ == "__main__":
    main()
