"""Restart, churn and the plain flow at equal evaluations, of a model that is deliberately coarse.

    python benchmarks/restart.py [--steps 300] [--seeds 3] [-n 1000] [--nfe 43 91]

Trains a small U-Net on digits for a few hundred steps (about a minute), unless it is there, and draws from it with
each sampler, as many seeds as asked for; what was scored already is not drawn again. Samples are scored against the
training images on the features of the shipped classifier, with their classes as often as in the data. Prints a table:
means and standard errors over the seeds, which are of drawing; there is one model. All samplers begin from the same
noise, so the difference from Heun's method is known better than either.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from runs import trained_on_digits
from torch import Tensor

import driftfield as df
from driftfield.rng import integers, seeded
from driftfield.solve.base import Solver

Walk = tuple[Tensor, Solver]


def plain(nfe: int) -> Walk:
    """Heun's method on the grid of as many evaluations."""
    return df.karras(df.EDM(), (nfe + 1) // 2), df.Heun()


def churned(amount: float, low: float, high: float) -> Callable[[int], Walk]:
    """The same with noise added before each step whose level is in the interval."""

    def walk(nfe: int) -> Walk:
        path, solver = plain(nfe)
        return df.churn(path, amount, low=low, high=high), solver

    return walk


def reverse(nfe: int) -> Walk:
    """The reverse-time process, a step for each evaluation."""
    return df.karras(df.EDM(), nfe), df.ReverseSDE(1.0)


def published(nfe: int) -> Walk:
    """What `plan_restart` says: 18 steps, and what is left in restarts from 0.14 to 0.30."""
    route = df.plan_restart(df.EDM(), nfe)
    return route.path, route.solver


def wide(steps: int, points: int, low: float, high: float) -> Callable[[int], Walk]:
    """A descent of `steps`, and what is left in restarts over an interval of one's own."""

    def walk(nfe: int) -> Walk:
        times = (nfe - 2 * steps + 1) // (2 * points - 2)
        return df.restart(df.karras(df.EDM(), steps), [(points, times, low, high)]), df.Heun()

    return walk


SAMPLERS: dict[str, Callable[[int], Walk]] = {
    "Heun": plain,
    "Heun, churn 30 in [0.01, 1]": churned(30, 0.01, 1),
    "Heun, churn 5 everywhere": churned(5, 0, float("inf")),
    "Heun, churn 20 everywhere": churned(20, 0, float("inf")),
    "ReverseSDE(1)": reverse,
    "Restart [0.14, 0.30], 18 steps": published,
    "Restart [0.14, 1], 12 steps": wide(12, 4, 0.14, 1.0),
    "Restart [0.14, 3], 12 steps": wide(12, 5, 0.14, 3.0),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="of training: few, for a coarse model")
    parser.add_argument("--width", type=int, default=16, help="of the network")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", "--number", type=int, default=1000, help="samples of each")
    parser.add_argument("--nfe", type=int, nargs="+", default=[43, 91])
    parser.add_argument("--folder", type=Path, default=Path("runs/restart"))
    options = parser.parse_args()
    run = options.folder / f"digits-{options.width}-{options.steps}"
    trained_on_digits(run, "EDM", options.steps, options.width)
    process, denoiser, recipe = df.load(run)
    source = recipe.data.load()
    images, labels = source.train()
    kept = run / "scores.json"
    scores: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for nfe in options.nfe:
        print(f"\n| {nfe} evaluations | spent | Fréchet | less Heun's | KID x 1000 |\n|---|---|---|---|---|")
        base: list[float] = []
        for name, build in SAMPLERS.items():
            path, solver = build(nfe)
            rounds = []
            for seed in range(options.seeds):
                key = f"{name}|{nfe}|{seed}|{options.number}"
                if key not in scores:
                    cond = labels[integers(torch.empty(options.number), len(labels), seeded(seed, 1))]
                    shape = (options.number, *images.shape[1:])
                    drawn = df.generate(
                        process, denoiser, shape, solver=solver, grid=path, nfe=nfe, seed=seed, cond=cond, batch=1000
                    )
                    found = df.evaluate(drawn, images, metrics="frechet,kid", features="digits", subsets=0)
                    scores[key] = {"nfe": drawn.nfe, **found.values}
                    kept.write_text(json.dumps(scores, indent=1))
                rounds.append(scores[key])
            distances = [r["frechet"] for r in rounds]
            base = base or distances
            gain = spread([a - b for a, b in zip(distances, base, strict=True)])
            kid = spread([1000 * r["kid"] for r in rounds])
            print(f"| {name} | {rounds[0]['nfe']} | {spread(distances)} | {gain} | {kid} |", flush=True)


def spread(values: list[float]) -> str:
    """The mean and its standard error."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{statistics.mean(values):.4g} ± {statistics.stdev(values) / len(values) ** 0.5:.1g}"


if __name__ == "__main__":
    main()
