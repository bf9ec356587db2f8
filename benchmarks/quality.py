"""Sample quality of several processes, trained alike: a recipe's name, the processes, seeds.

    python benchmarks/quality.py digits  [--steps 900] [--seeds 3]
    python benchmarks/quality.py fashion [--seeds 1] [-n 5000] [--processes "PFGMPP(D=1)" "PFGMPP(D=128)" ...]

A run that is there is used as it is, and one that was interrupted goes on. Samples are scored against the training
images on the features of the shipped classifier. Prints a table, a standard error beside every number (over the seeds,
or from one seed alone over random halves of the samples), and the largest Fréchet distance; draws one row of samples
of each model to FOLDER/samples.png.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

from PIL import Image
from runs import driftfield

DEFAULTS = {
    "digits": ["PFGMPP(D=128)", "EDM"],
    "fashion": ["PFGMPP(D=1)", "PFGMPP(D=128)", "PFGMPP(D=2048)", "PFGMPP(D=inf)"],
}
COLUMN = 20  # samples in a row of the picture


def scored(run: Path, options: argparse.Namespace, process: str, seed: int) -> dict[str, Any]:
    """Train one model unless it is there, draw from it, and score what was drawn, once; classes as often as in data."""
    steps = [] if options.steps is None else ["--steps", options.steps]
    driftfield("train", options.recipe, "--process", process, *steps, "--seed", seed, "--run", run)
    if not (run / "shown" / "record.json").exists():
        driftfield("sample", run, "-n", COLUMN, "--cond", "0,1,2,3,4,5,6,7,8,9", "--out", run / "shown")
    kept = run / "scores.json"
    if not kept.exists():
        asked = ["-n", options.number, "--split", "train", "--metrics", options.metrics, "--json"]
        kept.write_text(driftfield("evaluate", run, *asked, quiet=True))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def row(rounds: list[dict[str, Any]], names: list[str]) -> list[str]:
    """A cell for each metric: the mean over the seeds and its standard error."""
    cells = []
    for name in names:
        values = [r[name] for r in rounds]
        if len(values) > 1:
            error = statistics.stdev(values) / len(values) ** 0.5
        else:
            error = rounds[0].get(f"{name}_error", float("nan"))
        cells.append(f"{statistics.mean(values):.4g} ± {error:.1g}")
    return cells


def picture(folders: list[Path], to: Path) -> None:
    """One row of samples from each folder."""
    lines = [[Image.open(path) for path in sorted(f.glob("[0-9]*.png"))[:COLUMN]] for f in folders]
    width, height = lines[0][0].size
    sheet = Image.new(lines[0][0].mode, ((width + 2) * COLUMN, (height + 6) * len(lines)), "white")
    for j, line in enumerate(lines):
        for i, image in enumerate(line):
            sheet.paste(image, (i * (width + 2), j * (height + 6)))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(to)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=sorted(DEFAULTS))
    parser.add_argument("--processes", nargs="+", help="as --process takes them")
    parser.add_argument("--steps", type=int, help="the recipe's unless given")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("-n", "--number", type=int, default=1000, help="samples of each model")
    parser.add_argument("--metrics", default="frechet,kid,precision,recall,nearest")
    parser.add_argument("--folder", type=Path, help="where the runs are [runs/quality-RECIPE]")
    options = parser.parse_args()
    folder = options.folder or Path("runs") / f"quality-{options.recipe}"
    names, lines, largest, first = options.metrics.split(","), [], 0.0, []
    for process in options.processes or DEFAULTS[options.recipe]:
        runs = [folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', process).strip('-')}-{s}" for s in range(options.seeds)]
        rounds = [scored(run, options, process, seed) for seed, run in enumerate(runs)]
        largest = max(largest, *(r["frechet"] for r in rounds))
        lines.append([process, *row(rounds, names)])
        first.append(runs[0] / "shown")
    print(f"\n| process | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    print(f"\nlargest Fréchet distance: {largest:.3f}")
    picture(first, folder / "samples.png")


if __name__ == "__main__":
    main()
