"""Learning curves on Fashion-MNIST at equal time: targets of one datum against stable targets.

    python benchmarks/stable_target.py [--minutes 1 2 5 10 20] [--seeds 3] [--references 0 256 1024 4096] [-n 5000]

Trains one network and data order for each size of the reference (0: `Matching`) and seed, for the last of `--minutes`
each, at a constant learning rate after its warm-up, so that every moment is the end of a run of its own; the average of
the weights is scored after each of `--minutes`. Scores are the Fréchet distance of `-n` samples to the
training images on the features of the shipped classifier, and the loss on held-out data, the same for all: that of
`Matching`, whose mean does not depend on the target trained with. What was scored is kept in FOLDER, with a state to go
on from, so an interrupted run goes on, as does one asked for more moments after those it has. Prints means over the
seeds with standard errors; draws FOLDER/curves.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.ticker import MaxNLocator

import driftfield as df
from driftfield.data.base import Source
from driftfield.files import write_text
from driftfield.metric.features import features
from driftfield.metric.reference import kept
from driftfield.recipe import Recipe
from driftfield.recipes.fashion import fashion
from driftfield.report.style import DASHES, MARKERS, RUNS, blank, png, styled
from driftfield.train.checkpoint import read, save
from driftfield.train.held import judged, losses_by_level
from driftfield.train.loop import Step, train

NAMES = {"frechet": "Fréchet distance", "held": "held-out loss"}


def clock(device: str) -> float:
    """Seconds of training so far.

    On a CPU, those of this process on its processors, divided by its threads: other programs on the machine, which
    wall time would charge to whichever run they happened to meet, are left out, and all that training does is in,
    drawing the reference and thinking about it included. A GPU works while the process waits for it, so there it is
    wall time, read when the GPU is done; there the machine should be free of others.
    """
    if device == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize()
    return time.perf_counter()


def scored(recipe: Recipe, source: Source, now: Step, options: argparse.Namespace, device: str) -> dict[str, float]:
    """The scores of the average at a step."""
    images, labels = source.train()
    extract = features("fashion")
    reference = kept(options.folder, images.to(device), extract, "train")
    cond = labels[: options.number]  # the first rows, whose classes are as frequent as in the data
    drawn = recipe.sample(now.average.eval(), options.number, nfe=options.nfe, seed=0, cond=cond, device=device)
    found = df.evaluate(drawn, reference, metrics="frechet", features=extract, subsets=0)
    held = losses_by_level(recipe, now.average, judged(source, 0), torch.device(device)).held_mean
    return {"step": now.step, "frechet": found.values["frechet"], "held": held}


def curve(recipe: Recipe, source: Source, folder: Path, options: argparse.Namespace, device: str) -> list[Any]:
    """The scores of one run at each mark, in order; trained from where it was left."""
    file, state = folder / "scores.json", folder / "state.safetensors"
    scores: list[Any] = json.loads(file.read_text()) if file.exists() else []
    saved, spent = None, 0.0
    if state.exists():
        saved, notes = read(state)
        spent, scores = notes["spent"], scores[: notes["marks"]]
    if len(scores) >= len(options.minutes):
        return scores[: len(options.minutes)]
    folder.mkdir(parents=True, exist_ok=True)
    began = clock(device)
    for now in train(recipe, source, saved, device):
        here = spent + clock(device) - began
        if here < 60 * options.minutes[len(scores)]:
            continue
        scores.append({"seconds": here, **scored(recipe, source, now, options, device)})
        write_text(file, json.dumps(scores, indent=1))
        save(state, now.tensors(), {"spent": here, "marks": len(scores)})  # last: what it counts is written
        print(f"{folder.name}: {here / 60:.1f} min, {scores[-1]}", flush=True)
        if len(scores) == len(options.minutes):
            break
        spent, began = here, clock(device)
    return scores


def mean(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error, NaN for one value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return statistics.mean(values), error


def main() -> None:
    """Print the tables and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 5, 10, 20], help="of training, to score at")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--references", type=int, nargs="+", default=[0, 256, 1024, 4096])
    parser.add_argument("-n", "--number", type=int, default=5000, help="samples at each mark")
    parser.add_argument("--nfe", type=int, default=35)
    parser.add_argument("--process", help="as --process takes it [the recipe's]")
    parser.add_argument("--times", help="of training, as in --set objective.times=LogUniform [the recipe's]")
    parser.add_argument("--width", type=int, default=32, help="of the network")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("runs/stable-target"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = [f"network.width={options.width}", f"training.batch={options.batch}", "training.steps=1000000000"]
    settings += ["training.decay=0", f"training.compile={options.compile}"]
    settings += ["training.precision=bfloat16"] if options.bf16 else []
    settings += [f"objective.{k}={v}" for k in ("process", "times") if (v := getattr(options, k))]
    recipe = fashion().with_fields(settings)
    source = recipe.data.load()
    names = {n: f"stable, {n}" if n else "one datum" for n in options.references}
    found: dict[int, list[list[Any]]] = {n: [] for n in options.references}
    for seed in range(options.seeds):  # seeds outermost, so that what is there can be compared at any time
        for n in options.references:
            one = recipe.with_fields([f"objective=StableTarget(reference={n})"]) if n else recipe
            one = replace(one, training=replace(one.training, seed=seed)).resolved(source.info)
            found[n].append(curve(one, source, options.folder / f"{n}-{seed}", options, device))
    for key, title in NAMES.items():
        print(f"\n| {title} after | {' | '.join(f'{m:.3g} min' for m in options.minutes)} | steps |")
        print(f"|{'---|' * (len(options.minutes) + 2)}")
        for n, runs in found.items():
            columns = zip(*runs, strict=True)
            cells = ["{:.4g} ± {:.1g}".format(*mean([one[key] for one in column])) for column in columns]
            steps = mean([run[-1]["step"] for run in runs])[0]
            print(f"| {names[n]} | {' | '.join(cells)} | {steps:,.0f} |")
    with styled():
        figure, axes = blank(4.6, lines=2, share=True)
        for (key, title), part in zip(NAMES.items(), axes, strict=True):
            for i, (n, runs) in enumerate(found.items()):
                values = [mean([one[key] for one in column]) for column in zip(*runs, strict=True)]
                middle, error = (list(column) for column in zip(*values, strict=True))
                look = {"color": RUNS[i % 4], "linestyle": DASHES[i % 4], "marker": MARKERS[i % 4]}
                part.errorbar(options.minutes, middle, error, label=names[n], capsize=2, **look)
            part.set_xscale("log")
            part.set_yscale("log")
            part.set_xticks(options.minutes, [f"{m:g}" for m in options.minutes])
            part.minorticks_off()
            part.yaxis.set_major_locator(MaxNLocator(5))
            part.yaxis.set_major_formatter("{x:g}")
            part.set_ylabel(title)
        axes[-1].set_xlabel("minutes of training")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
        (options.folder / "curves.png").write_bytes(png(figure))
    print(f"\n{options.folder / 'curves.png'}")


if __name__ == "__main__":
    main()
