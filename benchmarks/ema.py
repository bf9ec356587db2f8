"""How near an average rebuilt from snapshots is to the same average tracked directly.

    python benchmarks/ema.py [--steps 900] [--seed 0]

Trains the digits recipe once, tracking every width in the table; snapshots hold the widths 0.10 and 0.05 only. Prints
the relative L2 error of the weights by number of snapshots and how they are stored, and the held-out loss of each.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from driftfield.recipes.digits import digits
from driftfield.train.ema import Profile, combination
from driftfield.train.held import judged, losses_by_level
from driftfield.train.loop import train
from driftfield.train.snapshots import due

STORED, WANTED, COUNTS = (0.10, 0.05), (0.02, 0.03, 0.07, 0.15, 0.20, 0.25), (8, 16, 32, 64)
STORAGE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = digits()
    plan = replace(recipe.training, steps=options.steps, minutes=None, seed=options.seed, ema=STORED + WANTED)
    source = recipe.data.load()
    recipe = replace(recipe, training=plan).resolved(source.info)
    kept: dict[int, dict[float, Tensor]] = {}
    for now in train(recipe, source, None, "cpu"):
        if any(due(now.step, options.steps, count) for count in COUNTS) or now.step == options.steps // 2:
            kept[now.step] = {width: flat(average) for width, average in now.averages.items()}
    sets = judged(source, options.seed)
    print(f"held-out loss after {options.steps} steps, by sigma_rel")
    for width, average in sorted(now.averages.items()):
        print(f"  {width:4.2f}  {losses_by_level(recipe, average, sets, torch.device('cpu')).held_mean:.5f}")
    last = kept[options.steps]
    apart = (last[0.05] - last[0.10]).norm() / last[0.10].norm()
    print(f"the averages 0.05 and 0.10 are {apart:.1e} apart\n")
    print("| snapshots | at step | sigma_rel | profile error | " + " | ".join(STORAGE) + " |\n" + "|---" * 7 + "|")
    for count in COUNTS:
        for at in (options.steps, options.steps // 2):
            steps = [s for s in kept if s <= at and (due(s, options.steps, count) or s == at)]
            stored = [Profile(width, s) for s in steps for width in STORED]
            for width in WANTED:
                weights, error = combination(stored, Profile(width, at))
                found = [off(kept, stored, weights.tolist(), kept[at][width], kind) for kind in STORAGE.values()]
                print(f"| {count} | {at} | {width} | {error:.1e} | " + " | ".join(f"{e:.1e}" for e in found) + " |")


def flat(model: torch.nn.Module) -> Tensor:
    """All parameters in one vector, a copy."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def off(
    kept: dict[int, dict[float, Tensor]], stored: list[Profile], weights: list[float], exact: Tensor, kind: torch.dtype
) -> float:
    """The relative L2 error of the combination of snapshots stored as `kind`."""
    parts = zip(weights, (kept[p.step][p.sigma_rel].to(kind).double() for p in stored), strict=True)
    made = sum(weight * part for weight, part in parts)
    return float((made - exact).norm() / exact.double().norm())


if __name__ == "__main__":
    main()
