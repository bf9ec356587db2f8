"""Draw the pictures of the documentation: `python tools/pictures.py [NAME ...]`, all of them without a name.

`flow` and `paths` are exact and take seconds; `plane` trains 1,500 steps first, a minute or two.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import driftfield as df
from driftfield.rng import rows

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SMALL = ["--set", "network.width=128", "--set", "training.show_every=10000", "--set", "sampling.nfe=9"]
INK, BLUE, RED = "#1f2430", "#3f51b5", "#c2453a"


def flow() -> Any:
    """Two modes under three processes: the density of `x_t`, and paths of the flow from noise to data, all exact."""
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained", sharey=True)
    weights, means, spread = torch.tensor([0.35, 0.65]), torch.tensor([[-1.0], [1.0]]), 0.03 * torch.ones(2, 1, 1)
    titles = {"VP": df.VP(), "PFGM++ (D = 128)": df.PFGMPP(D=128.0), "PFGM++ (D = 2)": df.PFGMPP(D=2.0)}
    for ax, (title, process) in zip(axes, titles.items(), strict=True):
        exact = df.Mixture(process, weights, means, spread)
        times = df.geometric(process, 240, high=20.0, low=0.02)[:-1]
        level = process.level(times).numpy()
        unit = torch.sqrt(process.alpha(times) ** 2 + process.sigma(times) ** 2)  # so that all levels fit one picture
        grid = torch.linspace(-2.6, 2.6, 260, dtype=torch.float64)
        density = np.stack(
            [(exact.log_prob(u * grid[:, None], t) + u.log()).exp().numpy() for t, u in zip(times, unit, strict=True)]
        )
        ax.pcolormesh(level, grid, density.T**0.5, cmap="Blues", shading="gouraud", vmin=0, vmax=1.3, rasterized=True)
        x = process.perturb(torch.zeros(24, 1, dtype=torch.float64), times[0], rows(4, 0, 24))
        field = df.Reverse(process, exact)
        path = [state[:, 0] for _, state in df.integrate(field, x, times, df.Heun(), rows(0, 0, 24))]
        ax.plot(level, torch.stack(path) / unit[:, None], color=INK, lw=0.7, alpha=0.75)
        ax.set(xscale="log", xlim=(20, 0.02), ylim=(-2.6, 2.6), title=title, xlabel="noise level")
    axes[0].set_ylabel("state, at unit scale")
    return figure


def paths() -> Any:
    """The levels of a grid, of the same grid with churn, and with two restarts."""
    process = df.EDM()
    grid = df.karras(process, 18)
    kinds = {
        "karras(process, 18)": grid,
        "churn(grid, 12, low=0.05, high=50)": df.churn(grid, 12, low=0.05, high=50),
        "restart(grid, [(6, 2, 0.3, 5.0)])": df.restart(grid, [(6, 2, 0.3, 5.0)]),
    }
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), layout="constrained", sharey=True)
    for ax, (title, path) in zip(axes, kinds.items(), strict=True):
        levels = path[:-1].numpy()
        ax.plot(levels, color=BLUE, lw=1, marker="o", ms=2.5)
        for i in np.nonzero(np.diff(levels) > 0)[0]:
            ax.plot([i, i + 1], levels[i : i + 2], color=RED, lw=1.6, zorder=3)
        ax.set(yscale="log", xlabel="place on the path")
        ax.set_title(title, family="monospace", size=8.5)
    axes[0].set_ylabel("noise level")
    return figure


def plane() -> Any:
    """Olympic rings: the data, samples after a minute of training, and the way of some samples from noise."""
    from driftfield.cli import app
    from driftfield.data.toys import OlympicRings

    with tempfile.TemporaryDirectory() as folder:
        app(["train", "olympic-rings", "--steps", "1500", "--run", folder, "--cpu", *SMALL], standalone_mode=False)
        process, denoiser, recipe = df.load(folder)
    real, label = OlympicRings().load().held()
    assert label is not None
    assert recipe.info is not None
    cond = torch.arange(2000) % 5
    drawn = recipe.sample(denoiser, 2000, cond=cond, nfe=35)
    grid = df.karras(process, 18)
    start = process.prior((40, 2), rows(0, 0, 40))
    field = df.Reverse(process, denoiser, cond=cond[:40])
    with torch.no_grad():
        steps = df.integrate(field, start, grid, df.Heun(), rows(0, 0, 40))
        way = torch.stack([x / (1 + process.level(t) ** 2).sqrt() for t, x in steps])  # all levels at unit scale
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.6), layout="constrained", sharex=True, sharey=True)
    shades = plt.get_cmap("tab10")
    axes[0].scatter(*real[:2000].T, s=1.5, c=shades(label[:2000]), linewidths=0)
    axes[1].scatter(*drawn.T, s=1.5, c=shades(cond), linewidths=0)
    for i in range(40):
        axes[2].plot(*way[:, i].T, color=shades(int(cond[i])), lw=0.8)
    for ax, title in zip(
        axes, ("data", "samples, one class a ring", "40 samples on their way, at unit scale"), strict=True
    ):
        ax.set(title=title, aspect="equal", xlim=(-2.6, 2.6), ylim=(-1.7, 1.7), xticks=[], yticks=[])
    return figure


DRAWN: dict[str, Callable[[], Any]] = {"flow": flow, "paths": paths, "plane": plane}


def main(names: list[str]) -> int:
    """Draw the pictures called `names`."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
    for name in names or list(DRAWN):
        figure = DRAWN[name]()
        figure.savefig(IMAGES / f"{name}.webp", dpi=150, pil_kwargs={"quality": 88})
        print(f"{name}.webp: {(IMAGES / f'{name}.webp').stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
