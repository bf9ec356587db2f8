"""What is proposed for data against one set of fixed settings, on data of unlike scale, at equal cost.

    python benchmarks/proposals.py [--seconds 60] [--seeds 2] [--sets dim-digits clusters thin-roll]

Every row of a set may make as many steps as are estimated to take `--seconds` on one thread, by operations and a fixed
cost of each step, so that what else the machine does changes no number but the last column. *Fixed* is what EDM uses on
images of deviation 0.5, PFGM++ with D = 128 and one network for vectors and one for grids; *network* keeps that noise
and takes the proposed network and batch; *proposal* takes all. Scores are of 2,000 samples at 35 evaluations (Heun)
against the training split, on raw values in units of the data's deviation: Frechet distance, sliced Wasserstein
distance, and the median distance to the nearest training item relative to that of held-out items (1: as far as new data
are). Errors are standard errors over seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from dataclasses import replace

import numpy as np
import torch

from driftfield.data.base import Data
from driftfield.data.digits import Digits
from driftfield.data.memory import InMemory
from driftfield.data.recognise import find
from driftfield.metric.frechet import frechet
from driftfield.metric.nearest import nearest_ratio
from driftfield.metric.wasserstein import sliced_wasserstein
from driftfield.objective.laws import LogNormal
from driftfield.objective.matching import Matching
from driftfield.process.poisson import PFGMPP
from driftfield.recipe import Recipe, Training
from driftfield.rng import seeded
from driftfield.train.loop import train
from driftfield.train.propose import proposed
from driftfield.train.size import choices_for, cost_of, network_for, seconds_per_step

N = 2000


def dim_digits() -> Data:
    """Digits as 8-bit pictures of hardly any contrast: 16 grey levels about a middle grey."""
    x, _ = Digits().load().train()
    return InMemory.of((112 + 8 * (x[:, 0] + 1)).round().to(torch.uint8))


def clusters() -> Data:
    """Six clusters in the plane, of deviation 0.01, about a hundred apart."""
    rng = np.random.default_rng(0)
    centres = 100 * rng.uniform(-1, 1, (6, 2))
    return InMemory.of(centres[rng.integers(0, 6, 10_000)] + 0.01 * rng.normal(size=(10_000, 2)))


def thin_roll() -> Data:
    """A swiss roll, of dimension 2, turned into 64 dimensions, with noise of deviation 0.003 in each of them."""
    rng = np.random.default_rng(0)
    t, height = 1.5 * np.pi * (1 + 2 * rng.random(6000)), 2 * rng.random(6000) - 1
    roll = np.stack((t * np.cos(t) / 14, t * np.sin(t) / 14, height), 1)
    turn = np.linalg.qr(rng.normal(size=(64, 3)))[0]
    return InMemory.of(roll @ turn.T + 0.003 * rng.normal(size=(6000, 64)))


SETS = {"dim-digits": dim_digits, "clusters": clusters, "thin-roll": thin_roll}


def recipes(data: Data, seconds: float) -> dict[str, tuple[Recipe, int]]:
    """The three recipes of a set, resolved, and how many steps each may make."""
    source = data.load()
    info = source.info
    proposal = proposed(source, None, seconds / 60, "cpu")
    print(f"\n{proposal}\n", flush=True)
    full = proposal.recipe(data, info)
    noise = Matching(PFGMPP(D=128.0, span=(0.002, 80.0)), times=LogNormal(-1.2, 1.2), reveal=full.objective.reveal)
    vectors = len(info.shape) == 1
    one = network_for(info, 256 if vectors else 64)
    fixed = Recipe(data, one, noise, sigma_data=0.5, training=Training(batch=512 if vectors else 128, warmup=200))
    rows = {"fixed": fixed, "network": replace(full, objective=noise, sigma_data=0.5), "proposal": full}
    found = {}
    for name, recipe in rows.items():
        operations, _ = cost_of(recipe.network, info)
        step = seconds_per_step(operations, recipe.training.batch, choices_for(info).overhead, "cpu")
        steps = max(1, int(seconds / step))
        warmup = min(recipe.training.warmup, max(1, steps // 10))
        training = replace(recipe.training, steps=steps, minutes=None, warmup=warmup)
        found[name] = replace(recipe, training=training).resolved(info), steps
    return found


def scores(recipe: Recipe, data: Data, seed: int) -> tuple[list[float], float]:
    """Frechet, sliced Wasserstein and nearest ratio of a run with this seed; and the seconds it trained."""
    source = data.load()
    recipe = replace(recipe, training=replace(recipe.training, seed=seed))
    begun = time.perf_counter()
    now = deque(train(recipe, source, None, "cpu"), maxlen=1).pop()
    spent = time.perf_counter() - begun
    x = recipe.sample(now.average, N, seed=seed, batch=500).flatten(1) / source.info.std
    learned, held = (part[0].flatten(1) / source.info.std for part in (source.train(), source.held()))
    sliced, _ = sliced_wasserstein(x, learned, seeded(0))
    return [frechet(x, learned), sliced, nearest_ratio(x, learned, held[:1000])], spent


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="of these, or any path or name of data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for name in options.sets:
        data = SETS[name]() if name in SETS else find(name)
        for row, (recipe, steps) in recipes(data, options.seconds).items():
            runs = [scores(recipe, data, seed) for seed in range(options.seeds)]
            values = torch.tensor([run for run, _ in runs], dtype=torch.float64)
            error = values.std(0) / math.sqrt(options.seeds) if options.seeds > 1 else torch.full((3,), math.nan)
            cells = [f"{m:.4g} ± {e:.1g}" for m, e in zip(values.mean(0).tolist(), error.tolist(), strict=True)]
            seconds = sum(spent for _, spent in runs) / len(runs)
            lines.append(
                f"| {name} | {row} | {' | '.join(cells)} | {steps} x {recipe.training.batch} | {seconds:.0f} |"
            )
            print(lines[-1], flush=True)
    print(
        "\n| data | settings | Fréchet | sliced W | nearest | steps x batch | seconds |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
