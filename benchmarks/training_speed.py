"""Training samples per second, against a plain loop written by hand on the same network.

    python benchmarks/training_speed.py [--shape 1 28 28] [--width 16] [--batch 64] [--steps 20] [--rounds 5]
    python benchmarks/training_speed.py --data fashion --references 256 1024 4096

The plain loop draws a batch, perturbs it, regresses and steps AdamW: no average, no clipping, no logging, no guard.
Ours is `train` as users run it, with the average and the norm clip. The two take turns, `--rounds` times over, so that
a change of the machine's load meets both; the ratio is the median over the rounds. With `--references`, a second table
says what a step costs with stable targets of these sizes, in units of one without; that needs data whose targets are
not all sharp at once, so name some.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import driftfield as df
from driftfield.data.memory import InMemory
from driftfield.data.recognise import find
from driftfield.objective.laws import Balanced
from driftfield.objective.matching import Matching
from driftfield.plain import Build
from driftfield.recipe import Recipe, Training
from driftfield.rng import integers, normal, seeded
from driftfield.train.loop import train


def plain(recipe: Recipe, data: torch.Tensor, device: str) -> float:
    """Seconds per step of the hand-written loop."""
    model = recipe.denoiser().to(device)
    if recipe.training.compile:
        model = torch.compile(model, fullgraph=True)
    weight = Balanced(recipe.sigma_data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True)
    generator = seeded(0, device=device)
    data = data.to(device)
    batch, steps = recipe.training.batch, int(recipe.training.steps or 0)
    for step in range(steps + 3):
        if step == 3:
            _wait(device)
            begun = time.perf_counter()
        x = data[integers(torch.empty(batch, device=device), len(data), generator)]
        t = (1.2 * normal(torch.empty(batch, device=device), generator) - 1.2).exp()
        noisy = x + t.reshape(-1, *[1] * (x.ndim - 1)) * normal(x, generator)
        loss = (weight(df.EDM(), t) * (model(noisy, t) - x).square().flatten(1).mean(1)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    _wait(device)
    return (time.perf_counter() - begun) / steps


def ours(recipe: Recipe, source: object, device: str) -> float:
    """Seconds per step of `train`."""
    for now in train(recipe, source, None, device):
        if now.step == 3:
            _wait(device)
            begun = time.perf_counter()
    _wait(device)
    return (time.perf_counter() - begun) / (int(recipe.training.steps or 0) - 3)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[1, 28, 28])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--data", help="path or name of data [noise of --shape]")
    parser.add_argument("--references", type=int, nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    value = InMemory.of(normal(torch.empty(2000, *options.shape), seeded(1)).clamp(-1, 1))
    value = value if options.data is None else find(options.data)
    source = value.load()
    options.shape = list(source.info.shape)
    network = {"width": options.width, "multipliers": tuple(options.multipliers), "blocks": options.blocks}
    training = Training(
        steps=options.steps,
        batch=options.batch,
        precision="bfloat16" if options.bf16 else "float32",
        compile=options.compile,
    )
    build = Build("driftfield.network.unet:UNet", network)
    recipe = Recipe(value, build, Matching(df.EDM()), training=training).resolved(source.info)
    held = source.train()[0]
    pairs = [(ours(recipe, source, device), plain(recipe, held, device)) for _ in range(options.rounds)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(p / o for o, p in pairs)
    ratio = statistics.median(ratios)
    count = sum(p.numel() for p in recipe.denoiser().parameters())
    flops = 6 * _multiplications(recipe, options.shape)
    print(f"U-Net of {count / 1e6:.2f} M parameters on {tuple(options.shape)}, batch {options.batch}, {device}, ")
    print(f"{options.threads} thread(s), {training.precision}, compile {options.compile}; torch {torch.__version__}\n")
    print("| loop | samples/s | TFLOP/s |\n|---|---|---|")
    for name, seconds in (("driftfield train", mine), ("plain loop", theirs)):
        rate = options.batch / seconds
        print(f"| {name} | {rate:.0f} | {rate * flops / 1e12:.3f} |")
    print(f"\nours / plain: {ratio:.3f} (median of {options.rounds} rounds, {ratios[0]:.2f} to {ratios[-1]:.2f})")
    if not options.references:
        return
    print("\n| reference | step with it / without |\n|---|---|")
    for n in options.references:
        stable = recipe.with_fields([f"objective=StableTarget(reference={n})"])
        pairs = [(ours(stable, source, device), ours(recipe, source, device)) for _ in range(options.rounds)]
        ratios = sorted(a / b for a, b in pairs)
        more = statistics.median(1000 * (a - b) for a, b in pairs)
        print(f"| {n} | {statistics.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {more:+.1f} ms |")


@torch.no_grad()
def _multiplications(recipe: Recipe, shape: list[int]) -> float:
    """Multiplications of one forward pass for one sample, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        recipe.denoiser()(torch.zeros(1, *shape), torch.ones(1))
    return counter.get_total_flops() / 2


if __name__ == "__main__":
    main()
