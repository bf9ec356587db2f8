"""Which square root of the covariance carries the noise of critically damped Langevin diffusion: R against L.

    python benchmarks/cld.py [--steps 600] [--seeds 3] [-n 1000] [--nfe 20 30 40 50]

Trains a small U-Net on digits with `--process CLD`, unless it is there, and draws from it by multistep gDDIM on the
quadratic grid, the noise carried by R or by L, the Cholesky factor. It is one network: what it estimates, the datum
given the state, does not depend on the root. Prints the Fréchet distance to the training images on the features of the
shipped classifier, and the root-mean-square distance of the samples from those that 200 steps with R make of the same
noise, each with its standard error over the seeds. What was drawn already is not drawn again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from runs import trained_on_digits

import driftfield as df
from driftfield.grid import power
from driftfield.process.langevin import CLD
from driftfield.solve.base import Solver

SAMPLERS: dict[str, tuple[CLD, Solver]] = {
    "L, order 3": (df.CLD(factor="L"), df.GDDIM(3)),
    "R, order 3": (df.CLD(), df.GDDIM(3)),
    "L, order 1": (df.CLD(factor="L"), df.GDDIM(1)),
    "R, order 1": (df.CLD(), df.GDDIM(1)),
    "Heun": (df.CLD(), df.Heun()),
}
REFERENCE = 200


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--width", type=int, default=16, help="of the network")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", "--number", type=int, default=1000, help="samples of each")
    parser.add_argument("--nfe", type=int, nargs="+", default=[20, 30, 40, 50])
    parser.add_argument("--folder", type=Path, default=Path("runs/cld"))
    options = parser.parse_args()
    run = options.folder / f"digits-{options.width}-{options.steps}"
    trained_on_digits(run, "CLD", options.steps, options.width)
    _, denoiser, recipe = df.load(run)
    images, labels = recipe.data.load().train()
    repeats = -(-options.number // len(labels))
    cond = labels.repeat(repeats)[: options.number]  # the first rows, whose classes are as frequent as in the data
    kept = run / "scores.json"
    scores: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}

    def draw(process: CLD, solver: Solver, nfe: int, seed: int) -> Any:
        shape = (options.number, *images.shape[1:])
        grid = partial(power, kappa=2)
        return df.generate(
            process, denoiser, shape, solver=solver, grid=grid, nfe=nfe, seed=seed, cond=cond, batch=1000
        )

    for seed in range(options.seeds):
        reference = None
        for name, (process, solver) in SAMPLERS.items():
            for nfe in options.nfe:
                key = f"{name}|{nfe}|{seed}|{options.number}"
                if key in scores:
                    continue
                if reference is None:
                    reference = draw(df.CLD(), df.GDDIM(3), REFERENCE, seed)
                drawn = draw(process, solver, nfe, seed)
                found = df.evaluate(drawn, images, metrics="frechet", features="digits", subsets=0)
                error = (drawn - reference).square().mean().sqrt().item()
                scores[key] = {"frechet": found.values["frechet"], "rms": error}
                kept.write_text(json.dumps(scores, indent=1))

    def table(title: str, value: str) -> None:
        print(f"\n| {title} | {' | '.join(map(str, options.nfe))} |\n|{'---|' * (1 + len(options.nfe))}")
        for name in SAMPLERS:
            cells = []
            for nfe in options.nfe:
                of = [scores[f"{name}|{nfe}|{seed}|{options.number}"][value] for seed in range(options.seeds)]
                cells.append(spread(of))
            print(f"| {name} | {' | '.join(cells)} |")

    table("Fréchet", "frechet")
    table(f"distance from {REFERENCE} steps", "rms")


def spread(values: list[float]) -> str:
    """The mean and its standard error."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{statistics.mean(values):.3g} ± {statistics.stdev(values) / len(values) ** 0.5:.1g}"


if __name__ == "__main__":
    main()
