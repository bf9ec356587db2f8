"""How PFGM++ bears noise on the way, fewer steps and rounded weights, by D: trained alike on digits, several seeds.

    python benchmarks/robustness.py [--seeds 2] [--steps 900] [-n 500] [--figure docs/images/robustness.webp]

The studies of `driftfield robustness` on a U-Net of 0.08 M parameters for each D and seed, all else equal. A training
that was interrupted goes on, and what is measured is kept with its run. A cell is the mean over the training seeds
with its standard error; the last tables take the difference from D = inf seed by seed: runs of one seed begin with
the same weights and see the same data in the same order.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
from pathlib import Path

from PIL import Image
from runs import trained_on_digits

from driftfield.report.figures import Curve
from driftfield.report.robustness import robustness
from driftfield.report.studies import Found, Line, figure
from driftfield.report.style import png

DS = ("16", "64", "128", "2048", "inf")
WIDTH = 16
BITS = (9, 8, 7, 6, 5, 4, 3, 2)
HARD = {"noise": (0.2, 0.3, 0.4), "steps": (13, 9, 7), "weights": (4, 3, 2)}  # settings of the table of differences


def folder(home: Path, d: str, seed: int) -> Path:
    """Where the run of this D and seed is."""
    return home / f"D-{d}-{seed}"


def mean(curves: list[Curve]) -> Curve:
    """The mean of curves over seeds with its standard error; of one curve, its own errors."""
    if len(curves) == 1:
        return curves[0]
    columns = list(zip(*(c.y for c in curves), strict=True))
    error = tuple(statistics.stdev(c) / math.sqrt(len(c)) for c in columns)
    return Curve(curves[0].x, tuple(statistics.mean(c) for c in columns), error)


def merged(found: Found, seeds: int) -> Found:
    """A study with the runs of each D as one line; they stand one after the other."""
    lines = []
    for i in range(0, len(found.lines), seeds):
        group = found.lines[i : i + seeds]
        others = [line.torchao for line in group if line.torchao is not None]
        torchao = mean(others) if others else None
        lines.append(Line("PFGM++", group[0].D, mean([line.curve for line in group]), torchao))
    return Found(found.study, tuple(lines), found.features, found.n, found.split, found.seed, found.warnings)


def differences(found: Found, seeds: int) -> list[list[str]]:
    """At the hard settings, the distance less that of D = inf with the same seed: mean and standard error."""
    rows = []
    last = found.lines[-seeds:]
    for i in range(0, len(found.lines) - seeds, seeds):
        cells = []
        for at in HARD[found.study.name]:
            values = []
            for ours, theirs in zip(found.lines[i : i + seeds], last, strict=True):
                k = ours.curve.x.index(at)
                values.append(ours.curve.y[k] - theirs.curve.y[k])
            error = statistics.stdev(values) / math.sqrt(seeds) if seeds > 1 else math.nan
            cells.append(f"{statistics.mean(values):+.3g} ± {error:.1g}")
        rows.append([f"{found.lines[i].D:g}", *cells])
    return rows


def printed(heads: list[str], rows: list[list[str]]) -> None:
    """A table of Markdown."""
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def picture(found: list[Found], to: Path) -> None:
    """The plots of all studies, one below the other."""
    panels = [Image.open(io.BytesIO(png(figure(one)))).convert("RGB") for one in found]
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), "white")
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height
    sheet.save(to, quality=80, method=6)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("-n", "--number", type=int, default=500, help="samples of each cell")
    parser.add_argument("--folder", type=Path, default=Path("runs/robustness/digits"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    runs = [folder(options.folder, d, seed) for d in DS for seed in range(options.seeds)]
    for run in runs:
        d, seed = run.name.split("-")[1:]
        trained_on_digits(run, f"PFGMPP(D={d})", options.steps, WIDTH, "--seed", seed, "--cpu")
    studies = {"noise": (0, 0.05, 0.1, 0.2, 0.3, 0.4), "steps": (35, 19, 13, 9, 7, 5), "weights": BITS}
    found = robustness(runs, studies=studies, n=options.number, device="cpu", progress=True)
    means = [merged(one, options.seeds) for one in found]
    for whole, one in zip(found, means, strict=True):
        print(f"\n**{one.study.title}**\n")
        heads, *rows = one.table()
        names = {"PFGM++": "", "PFGM++, torchao": "torchao"}
        printed(["D", *heads[2:]], [[f"{row[1]} {names[row[0]]}".strip(), *row[2:]] for row in rows])
        print("\nLess D = inf, seed by seed:\n")
        printed(["D", *(f"{at:g}" for at in HARD[one.study.name])], differences(whole, options.seeds))
    if options.figure is not None:
        picture(means, options.figure)


if __name__ == "__main__":
    main()
