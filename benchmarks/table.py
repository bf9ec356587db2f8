"""A table learned against a Gaussian copula: two-sample scores on held-out rows.

    python benchmarks/table.py diamonds.csv [--minutes 5] [--steps N] [--seeds 2] [--folder runs/table-bench]

Each run is `driftfield train --data FILE`, trained for `--minutes` (or `--steps`, where a machine is shared and minutes
mean little); a run folder that is already there is used as it is. Scored are as many rows as are held out: those of the
run, those of a Gaussian copula fitted to the same training rows, and, for what sampling noise alone gives, training
rows. Prints means over seeds. The diamonds (53,940 rows) are in the package `pydataset`, in
`resources.tar.gz` under `csv/ggplot2/diamonds.csv`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from driftfield.column.base import Category
from driftfield.data.table import Table, TableSource
from driftfield.metric.copula import GaussianCopula
from driftfield.metric.scores import Scores
from driftfield.metric.table import evaluate_table
from driftfield.rng import permutation, seeded
from driftfield.train.load import load

SHOWN = ("marginal", "marginal_max", "pairs", "pairs_max", "auc", "nearest")


def trained(file: Path, folder: Path, seed: int, budget: list[str]) -> Path:
    """The folder of a run with this seed, trained unless it is there."""
    where = folder / f"seed-{seed}"
    command = [sys.executable, "-m", "driftfield", "train", "--data", file, "--run", where, "--seed", seed, *budget]
    subprocess.run(list(map(str, command)), check=True)
    return where


def rows_of(kind: str, source: TableSource, run: Path, seed: int):
    """As many rows as are held out, from the model, the copula or the training rows."""
    train, n = source.rows("train"), len(source.rows("held-out"))
    if kind == "training rows":
        return train.iloc[permutation(len(train), seeded(seed, 1)).numpy()[:n]]
    if kind == "Gaussian copula":
        names = [c.name for c in source.info.columns if isinstance(c, Category)]
        return GaussianCopula.fit(train, categories=names).sample(n, seeded(seed, 3))
    _, denoiser, recipe = load(run)
    return source.info.to_user(recipe.sample(denoiser, n, seed=seed, batch=2048))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/table-bench"))
    options = parser.parse_args()
    budget = ["--minutes", options.minutes] if options.steps is None else ["--steps", options.steps]
    runs = [trained(options.file, options.folder, seed, budget) for seed in range(options.seeds)]
    source = Table(str(options.file.resolve())).load()
    held, train = source.rows("held-out"), source.rows("train")
    names = [c.name for c in source.info.columns if isinstance(c, Category)]
    print(f"| rows | {' | '.join(SHOWN)} |\n|---|{'---|' * len(SHOWN)}")
    for kind in ("driftfield", "Gaussian copula", "training rows"):
        found: list[Scores] = [
            evaluate_table(rows_of(kind, source, run, seed), held, train=train, categories=names)
            for seed, run in enumerate(runs)
        ]
        cells = [f"{statistics.mean(s.values[name] for s in found):.4f}" for name in SHOWN]
        place = SHOWN.index("auc")
        cells[place] += f" ± {max(s.errors['auc'] for s in found):.4f}"
        if len(found) > 1:
            ends = [f"{s.values['auc']:.4f}" for s in found]
            cells[place] += f" (seeds: {', '.join(ends)})"
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
