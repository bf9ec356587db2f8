"""PFGM as published against its process trained by the perturbation kernel, which is PFGM++ at D = 1.

    python benchmarks/pfgm.py [toy] [digits] [--steps 1500 600] [--seeds 1] [--folder runs/pfgm]

Both have the same network, batches, steps, optimiser and averages; PFGM's network has one channel more in and out. Of
each trained model, samples at several budgets: on eight Gaussians (radius 2, deviation 0.1) the share within 0.4 of a
mode, the total variation of the weights of the modes, the deviation within a mode over the true one, and the sliced
Wasserstein distance to fresh data; on the digits Fréchet distance and KID on the features of the shipped classifier,
1,000 samples against the training images. What is there already is not trained again. Prints tables, and draws the
samples into the folder. The third row draws from the second's network with the first's span and clipped prior.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

import driftfield as df
from driftfield.data.toys import EightGaussians
from driftfield.report.pictures import mosaic
from driftfield.report.style import RUNS, blank, styled
from driftfield.rng import integers, seeded

CLIPPED = "kernel, started as PFGM"
METHODS = {"PFGM (normalised field)": "PoissonField", "PFGM++ D = 1 (kernel)": None, CLIPPED: None}
NFE = (10, 20, 50, 100)


def trained(data: str, method: str, steps: int, seed: int, folder: Path, settings: list[str]) -> Path:
    """The folder of a run, trained unless it is there."""
    objective = METHODS[method]
    run = folder / f"{data}-{objective or 'kernel'}-{steps}-{seed}"
    own = ["--objective", objective] if objective else ["--process", "PFGM"]
    command = [sys.executable, "-m", "driftfield", "train", data, *own, "--steps", steps, "--seed", seed, "--run", run]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run([*map(str, command), "--cpu"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return run


def start(method: str, process: df.PFGM, run: Path) -> df.PFGM:
    """The process to draw with: for the last method that of PFGM's own run, which is shorter and clips the prior."""
    if method != CLIPPED:
        return process
    return df.load(run.with_name(run.name.replace("kernel", "PoissonField")))[0]


def toy(steps: int, seeds: int, folder: Path) -> None:
    """The table of eight Gaussians."""
    angle = torch.arange(8) * (math.pi / 4)
    modes = 2 * torch.stack((angle.cos(), angle.sin()), 1)
    fresh = EightGaussians(radius=2.0).points(2000, seeded(99))[0]
    drawn: dict[str, Tensor] = {}
    settings = ["data.radius=2", "network.width=128", "network.depth=3", "training.batch=256"]
    print("| eight Gaussians | NFE | within 0.4 | TV of modes | deviation | sliced W2 |\n|---|---|---|---|---|---|")
    for method in METHODS:
        for nfe in NFE:
            found = []
            for seed in range(seeds):
                run = trained("eight-gaussians", method, steps, seed, folder, settings)
                process, model, _ = df.load(run)
                process = start(method, process, run)
                cond = integers(torch.empty(2000), 8, seeded(1))
                x = df.generate(
                    process, model, (2000, 2), solver="euler", nfe=nfe, grid="geometric", batch=2000, cond=cond
                )
                distance, mode = torch.cdist(x, modes).min(1)
                near = distance < 0.4
                share = torch.bincount(mode, minlength=8) / len(x) - 1 / 8
                width = (distance[near].square().mean() / 2).sqrt() / 0.1
                sliced = df.evaluate(x, fresh, metrics="sliced", subsets=0).values["sliced"]
                found.append((near.float().mean().item(), share.abs().sum().item() / 2, width.item(), sliced))
                drawn[f"{method}, {nfe} evaluations"] = x
            mean = [sum(column) / seeds for column in zip(*found, strict=True)]
            print(f"| {method} | {nfe} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.2f} | {mean[3]:.3f} |", flush=True)
    with styled():
        figure, axes = blank(5.2, len(METHODS), len(NFE))
        for ax, (name, x) in zip(axes, drawn.items(), strict=True):
            ax.scatter(x[:, 0], x[:, 1], s=0.8, color=RUNS[0], alpha=0.4, linewidths=0, rasterized=True)
            ax.set_xlim(-3, 3)
            ax.set_ylim(-3, 3)
            ax.set_aspect("equal")
            method, _, budget = name.rpartition(", ")
            ax.set_title(f"{method}\n{budget}", fontsize=5)
            ax.tick_params(labelsize=5)
        figure.savefig(folder / "toy.png", dpi=200)


def digits(steps: int, seeds: int, folder: Path) -> None:
    """The table of the digits."""
    print("\n| digits | NFE | Fréchet | KID x 1000 |\n|---|---|---|---|")
    rows = []
    for method in METHODS:
        for nfe in (19, 35):
            found = []
            for seed in range(seeds):
                run = trained("digits", method, steps, seed, folder, [])
                process, model, recipe = df.load(run)
                process = start(method, process, run)
                images, labels = recipe.data.load().train()
                cond = labels[integers(torch.empty(1000), len(labels), seeded(seed, 1))]
                shape = (1000, *images.shape[1:])
                x = df.generate(
                    process, model, shape, solver="heun", nfe=nfe, grid="geometric", cond=cond, batch=500, seed=seed
                )
                scores = df.evaluate(x, images, metrics="frechet,kid", features="digits", subsets=0).values
                found.append((scores["frechet"], 1000 * scores["kid"]))
            mean = [sum(column) / seeds for column in zip(*found, strict=True)]
            print(f"| {method} | {nfe} | {mean[0]:.3g} | {mean[1]:.3g} |", flush=True)
        rows.append(recipe.info.to_user(x[:16]))
    images = torch.cat([torch.from_numpy(r) for r in rows]).numpy()
    mosaic(images, 16, list(METHODS)).savefig(folder / "digits.png", dpi=200)


def main() -> None:
    """Print the tables that are asked for, both unless said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", help="toy, digits [both]")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(1500, 600), help="of training: of the toy, of the digits"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/pfgm"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, table, steps in (("toy", toy, options.steps[0]), ("digits", digits, options.steps[1])):
        if not options.which or name in options.which:
            table(steps, options.seeds, options.folder)


if __name__ == "__main__":
    main()
