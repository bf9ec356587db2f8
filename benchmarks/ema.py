"""How near an average rebuilt from snapshots is to the same average tracked directly.

    python benchmarks/ema.py [--steps 900] [--seed 0]

Trains the digits recipe once, tracking every width in the table; snapshots hold the widths 0.10 and 0.05 only. Prints
the held-out loss of each width, and by number of snapshots and how they are stored the error of the profile and the
relative L2 error of the weights.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from driftfield.recipes.digits import digits
from driftfield.train.ema import Profile, combination, spread_of
from driftfield.train.held import judged, losses_by_level
from driftfield.train.loop import train
from driftfield.train.snapshots import due

STORED, WANTED, COUNTS = (0.10, 0.05), (0.02, 0.03, 0.07, 0.15, 0.20, 0.25), (8, 16, 32, 64)
STORAGE = (torch.float32, torch.float16, torch.bfloat16)


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
    kinds = " | ".join(str(kind).removeprefix("torch.") for kind in STORAGE)
    print(f"| snapshots | at step | sigma_rel | {kinds} |\n" + "|---" * 6 + "|")
    for count in COUNTS:
        for at in (options.steps, options.steps // 2):
            steps = [s for s in kept if s <= at and (due(s, options.steps, count) or s == at)]
            stored = [Profile(width, s) for s in steps for width in STORED]
            p, q = stored[-2:]
            spread = spread_of(p, [kept[at][p.sigma_rel]], q, [kept[at][q.sigma_rel]])
            for width in WANTED:
                found = [off(kept, stored, Profile(width, at), spread, kind) for kind in STORAGE]
                print(f"| {count} | {at} | {width} | " + " | ".join(f"{e:.1%}, {w:.1e}" for e, w in found) + " |")


def flat(model: torch.nn.Module) -> Tensor:
    """All parameters in one vector, a copy."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def off(
    kept: dict[int, dict[float, Tensor]], stored: list[Profile], wanted: Profile, spread: float, kind: torch.dtype
) -> tuple[float, float]:
    """The errors of the profile and of the weights, relative L2, of the combination of snapshots stored as `kind`."""
    weights, error = combination(stored, wanted, spread, torch.finfo(kind).eps / 12**0.5)
    parts = zip(weights.tolist(), (kept[p.step][p.sigma_rel].to(kind).double() for p in stored), strict=True)
    made = sum(weight * part for weight, part in parts)
    exact = kept[wanted.step][wanted.sigma_rel]
    return error, float((made - exact).norm() / exact.double().norm())


if __name__ == "__main__":
    main()
