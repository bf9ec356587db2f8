"""Births along a flow that loses mass: what ignoring them costs, what branching and weights give back.

    python benchmarks/births.py [--steps 200] [--particles 3000] [--points 200]

Data: eight modes on a ring of radius 2, deviation 0.1, of unequal weights; the field is exact. Shown is the total
variation between the weights of the modes in the data and in the samples; sampling alone gives 0.01 to 0.02.

`Yukawa` conserves mass and needs no births. The others follow `ScreenedPoisson`, whose particles die: without births,
with branching at every step, with branching and one climb by the process's own noise after every ten steps, with
weights from its own kernel at the top, and with weights from Poisson's, which is as wide as the weights need. Where
there are weights the start is exact, as they need the density there; elsewhere it is noise centred on the mean of the
data, as a user's would be.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import driftfield as df
from driftfield.grid import geometric
from driftfield.process.base import Isotropic
from driftfield.rng import integers, normal, seeded, uniform

WEIGHTS = torch.tensor([0.25, 0.05, 0.2, 0.05, 0.15, 0.1, 0.15, 0.05], dtype=torch.float64)
ANGLES = torch.arange(8, dtype=torch.float64) * torch.pi / 4
CENTRES = 2 * torch.stack((ANGLES.cos(), ANGLES.sin()), 1)


def modes(x: Tensor) -> Tensor:
    return torch.cdist(x.double(), CENTRES).argmin(1)


def ring(n: int) -> Tensor:
    rng = seeded(0)
    which = torch.searchsorted(WEIGHTS.cumsum(0), uniform(torch.empty(n, dtype=torch.float64), rng)).clamp(max=7)
    return CENTRES[which] + 0.1 * normal(torch.empty(n, 2, dtype=torch.float64), rng)


def apart(data: Tensor, x: Tensor, share: Tensor | None = None) -> float:
    """Total variation of the weights of the modes."""
    share = torch.full((len(x),), 1 / len(x), dtype=torch.float64) if share is None else share
    own = torch.zeros(8, dtype=torch.float64).index_add(0, modes(x), share)
    return float((own - modes(data).bincount(minlength=8) / len(data)).abs().sum() / 2)


def climbing(grid: Tensor) -> Tensor:
    """After every ten steps, back up by two of them."""
    parts = [torch.cat((grid[i : i + 11], grid[i + 8 : i + 9])) for i in range(0, len(grid) - 11, 10)]
    return torch.cat((*parts, grid[len(parts) * 10 - 1 :])) if parts else grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("steps", 200), ("particles", 3000), ("points", 200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    data, count = ring(args.points), args.particles

    print(f"{args.particles} particles, {args.steps} geometric Euler steps, {args.points} data\n")
    print("| m | T | ignored | branching | and noise | weights (ESS) | Poisson start (ESS) | Yukawa |")
    print("|---|---|---|---|---|---|---|---|")
    for mass, top in ((1.0, 5.0), (1.0, 20.0), (4.0, 5.0), (0.25, 10.0)):
        process = df.ScreenedPoisson(mass, (1e-3, top))
        exact = df.Empirical(process, data)
        field = df.Births(process, exact)
        t = torch.tensor(top, dtype=torch.float64)
        grid = geometric(process, args.steps)[:-1]
        centred = data.mean(0).expand(count, 2)
        start = process.perturb(centred, t, seeded(1))
        plain = df.sample(df.Reverse(process, exact), start, grid, df.Euler(), seeded(2))
        row = [f"{mass:g}", f"{top:g}", f"{apart(data, plain):.3f}"]
        for path in (grid, climbing(grid)):
            *_, (_, last) = df.branching(field, start, path, df.Euler(), rng=seeded(3))
            row.append(f"{apart(data, last.x, last.share):.3f}")
        source = data[integers(torch.empty(count), len(data), seeded(4))]
        laws: tuple[Isotropic, ...] = (process, df.PFGM())
        for law in laws:
            x = law.perturb(source, t, seeded(5))
            log_w = exact.log_prob(x, t) - df.Empirical(law, data).log_prob(x, t)
            begin = df.Weighted(x, log_w)
            *_, (_, last) = df.branching(field, begin, grid, df.Euler(), rng=seeded(6), threshold=0.0)
            row.append(f"{apart(data, last.x, last.share):.3f} ({100 * float(last.ess) / count:.0f} %)")
        yukawa = df.Yukawa(mass)
        down = geometric(
            yukawa,
            args.steps,
            high=yukawa.level(t).item(),
            low=yukawa.level(torch.tensor(1e-3, dtype=torch.float64)).item(),
        )
        x = yukawa.perturb(centred, t, seeded(1))
        kept = df.sample(df.Reverse(yukawa, df.Empirical(yukawa, data)), x, down[:-1], df.Euler(), seeded(2))
        print("| " + " | ".join((*row, f"{apart(data, kept):.3f}")) + " |", flush=True)


if __name__ == "__main__":
    main()
