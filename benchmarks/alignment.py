"""Whether `r = sigma sqrt(D)` aligns PFGM++ with diffusion: how undecided the data are at equal levels, and training.

    python benchmarks/alignment.py [--cifar] [--figure docs/images/alignment.webp]
    python benchmarks/alignment.py --transfer runs/robustness/digits [--seeds 2]

The first prints the mean total variation `E sum_i |w_i - 1/n| / 2` between the weights of the data given a noisy one
and even weights: 1 where the noisy one shows its source, 0 where it shows nothing. Data are 256 points of N(0, 0.5^2)
in 64 dimensions, or the first 1,024 pictures of CIFAR-10, with 256 noisy ones. *Aligned* rows are at one level `sigma`
for all D, the others at one radius `r`, that is at the level `r / sqrt(D)`. Standard errors are over draws of points,
or over noisy pictures.

The second compares trainings with the same settings in units of sigma (those of `robustness.py`) to some with the same
settings in units of r, those of D = 128.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import torch
from robustness import DS, WIDTH, folder, mean, printed
from runs import trained_on_digits
from torch import Tensor

import driftfield as df
from driftfield.data.recognise import find
from driftfield.report.robustness import robustness
from driftfield.report.style import blank, look_of_run, png, styled
from driftfield.rng import integers, normal, seeded

F64 = torch.float64
POINTS = (1, 4, 16, 64, 256, 1024, 65536, math.inf)
PICTURES = (1, 16, 64, 128, 2048, 3072000, math.inf)
LEVELS = {"points": (0.5, 1, 2, 5, 10), "pictures": (0.5, 2, 5, 10, 20, 50)}
RADII = {"points": (2, 4, 8, 16, 32), "pictures": (5, 20, 50, 200, 500)}
HOME, SPECIAL = 128, ("16", "2048")  # the D whose radii the others take, and the D that are trained so


def undecided(process: df.PFGMPP, data: Tensor, level: float, seed: int) -> Tensor:
    """The total variation between posterior and even weights at 256 noisy data, `(256,)`."""
    rng, t = seeded(seed, 1), torch.tensor(level, dtype=F64)
    source = integers(torch.empty(256), len(data), rng)
    d2 = torch.cdist(process.perturb(data[source], t, rng), data).square()
    return (process.log_profile(d2, t, data.shape[1]).softmax(1) - 1 / len(data)).abs().sum(1) / 2


def cell(sets: list[Tensor], d: float, level: float) -> tuple[float, float]:
    """Mean and standard error: over the sets, or over the noisy data of one."""
    found = [undecided(df.PFGMPP(D=d), data, level, i) for i, data in enumerate(sets)]
    values = torch.stack([f.mean() for f in found]) if len(found) > 1 else found[0]
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


def table(sets: list[Tensor], ds: tuple[float, ...], kind: str) -> dict[str, dict[float, list[tuple[float, float]]]]:
    """Cells by row, aligned and unaligned; infinite D has no radius."""
    finite = [d for d in ds if d < math.inf]
    return {
        "aligned": {level: [cell(sets, d, level) for d in ds] for level in LEVELS[kind]},
        "unaligned": {r: [cell(sets, d, r / math.sqrt(d)) for d in finite] for r in RADII[kind]},
    }


def picture(found: dict[str, dict[float, list[tuple[float, float]]]], ds: tuple[float, ...], to: Path) -> None:
    """Aligned rows beside unaligned ones, a line for each level or radius; infinite D stands at the right end."""
    import io

    from PIL import Image

    drawn, axes = blank(4.6, 2, 1)
    places = list(range(len(ds)))
    heads = {"aligned": "aligned: one $\\sigma$ for all D", "unaligned": "not aligned: one r for all D"}
    letters = {"aligned": "$\\sigma$", "unaligned": "r"}
    with styled():
        for ax, (name, rows) in zip(axes, found.items(), strict=True):
            for i, (at, cells) in enumerate(rows.items()):
                look, label = look_of_run(i), f"{letters[name]} = {at:g}"
                values, errors = zip(*cells, strict=True)
                ax.errorbar(
                    places[: len(cells)],
                    values,
                    yerr=errors,
                    color=look.colour,
                    ls=look.dash,
                    marker=look.marker,
                    label=label,
                )
            ax.set_xticks(places, ["∞" if math.isinf(d) else f"{d:g}" if d < 1e6 else f"{d / 1e6:.0f}M" for d in ds])
            ax.set_xlim(-0.2, len(ds) - 0.8)
            ax.set_ylim(0, 1.03)
            ax.set_title(heads[name], loc="left")
            ax.set_ylabel("total variation")
            ax.grid(True)
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes[-1].set_xlabel("D")
    Image.open(io.BytesIO(png(drawn))).convert("RGB").save(to, quality=80, method=6)


def transfer(home: Path, seeds: int, steps: int, n: int) -> None:
    """Held-out loss and Frechet distance by D, with the settings of D = 128 kept in units of sigma or of r."""
    rows = []
    for name, ds in (("sigma", DS), ("r", SPECIAL)):
        for d in ds:
            runs = [folder(home, d, s) if name == "sigma" else home / f"r-{d}-{s}" for s in range(seeds)]
            factor = 1.0 if name == "sigma" else math.sqrt(HOME / float(d))
            span = f"span=({0.002 * factor!r},{80 * factor!r})"
            process = f"PFGMPP(D={d})" if name == "sigma" else f"PFGMPP(D={d},{span})"
            for seed, run in enumerate(runs):
                times = [] if name == "sigma" else ["--set", f"objective.times.mean={-1.2 + math.log(factor)!r}"]
                trained_on_digits(run, process, steps, WIDTH, "--seed", seed, "--cpu", *times)
            line = mean([one.curve for one in robustness(runs, studies={"steps": (35,)}, n=n, device="cpu")[0].lines])
            held = [last_loss(run) for run in runs] if name == "sigma" else []
            loss = (
                f"{statistics.mean(held):.4f} ± {statistics.stdev(held) / math.sqrt(seeds):.1g}"
                if len(held) > 1
                else "-"
            )
            rows.append([f"same {name}", d, f"{factor:.3g}", loss, f"{line.y[0]:.3g} ± {line.error[0]:.1g}"])
    printed(["settings", "D", "levels times", "held-out loss", "Fréchet"], rows)


def last_loss(run: Path) -> float:
    """The held-out loss of the end of a run, the mean over its eight levels."""
    judged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if "by_level" in line]
    return float(judged[-1]["by_level"]["held_mean"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", action="store_true", help="pictures of CIFAR-10 as well")
    parser.add_argument("--draws", type=int, default=16, help="draws of the points")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--transfer", type=Path, help="the folder of the runs of robustness.py")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("-n", "--number", type=int, default=500)
    options = parser.parse_args()
    if options.transfer is not None:
        transfer(options.transfer, options.seeds, options.steps, options.number)
        return
    points = [0.5 * normal(torch.empty(256, 64, dtype=F64), seeded(0, i)) for i in range(options.draws)]
    sets = {"points": (points, POINTS)}
    if options.cifar:
        some = next(iter(find("cifar10").load().parts(1024)))[0].double().flatten(1)
        sets["pictures"] = ([some], PICTURES)
    for kind, (data, ds) in sets.items():
        found = table(data, ds, kind)
        for name, rows in found.items():
            finite = [d for d in ds if name == "aligned" or d < math.inf]
            print(f"\n**{kind}, {name}**\n")
            heads = ["sigma" if name == "aligned" else "r", *(f"D = {d:g}" for d in finite)]
            printed(heads, [[f"{at:g}", *(f"{v:.3f} ± {e:.1g}" for v, e in cells)] for at, cells in rows.items()])
        if options.figure is not None and kind == list(sets)[-1]:
            picture(found, ds, options.figure)


if __name__ == "__main__":
    main()
