"""Train the small classifiers whose last layer scores are measured on, and write the files that the package ships.

    python benchmarks/train_features.py digits          # or mnist, fashion, cifar10

Digits take under a minute on one core, Fashion-MNIST 5, CIFAR-10 12. The same seed gives the same file on the same
machine and torch version.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from driftfield.data.recognise import named
from driftfield.data.stored import split
from driftfield.metric.classifier import Classifier, untrained, weights_name
from driftfield.rng import integers, normal, seeded, uniform
from driftfield.settings import settled

WEIGHTS = Path(__file__).parents[1] / "src" / "driftfield" / "weights"
HELD = 0.2  # of digits: twice what `Digits` holds out, so it contains those; scores are on images never trained on


@dataclass(frozen=True)
class Plan:
    """How one classifier is trained. `shift` in pixels; `noise` in units of the images; `half` in bfloat16."""

    data: str
    epochs: int
    batch: int
    top: float
    shift: int
    flip: bool = False
    noise: float = 0.0
    half: bool = True


PLANS = {
    "digits": Plan(
        "Digits of scikit-learn (UCI optical recognition of handwritten digits), CC BY 4.0",
        *(60, 64, 2e-3, 1),
        noise=0.1,
        half=False,
    ),
    "mnist": Plan("MNIST (LeCun et al. 1998), CC BY-SA 3.0", 2, 128, 3e-3, 2),
    "fashion": Plan("Fashion-MNIST (Xiao et al. 2017), MIT", 8, 128, 3e-3, 1, flip=True),
    "cifar10": Plan("CIFAR-10 (Krizhevsky 2009)", 12, 128, 3e-3, 3, flip=True),
}

Sets = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], str]


def sets(name: str, settings: list[str]) -> Sets:
    """Images in [-1, 1] and labels to train on, those to judge on, and in words which they are."""
    if name == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        x = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
        label = torch.as_tensor(labels, dtype=torch.int64)
        kept, held = split(len(x), HELD)
        words = f"driftfield.data.stored.split({len(x)}, held={HELD}); `held_out` are its indices in load_digits()"
        return (x[kept], label[kept]), (x[held], label[held]), words
    source = settled(named(name), settings).load()
    return source.train(), source.held(), f"the published one: driftfield's {name}, held() is what it was judged on"


def accuracy(network: nn.Module, x: Tensor, label: Tensor) -> float:
    """The share of images that get their own label."""
    with torch.no_grad():
        right = [network(part).argmax(1) == own for part, own in zip(x.split(500), label.split(500), strict=True)]
    return float(torch.cat(right).double().mean())


def shift(x: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Move each image by up to `most` pixels along each axis; the border fills with -1."""
    wide = nn.functional.pad(x, (most,) * 4, value=-1.0)
    views = wide.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)  # (B, C, 2 most + 1, 2 most + 1, H, W)
    down, across = (integers(torch.empty(len(x)), 2 * most + 1, rng) for _ in range(2))
    return views[torch.arange(len(x)), :, down, across]


def augmented(x: Tensor, plan: Plan, rng: torch.Generator) -> Tensor:
    """Shifted, mirrored and slightly noisy images, as the plan says."""
    x = shift(x, plan.shift, rng)
    if plan.flip:
        mirror = uniform(torch.empty(len(x)), rng) < 0.5
        x[mirror] = x[mirror].flip(3)
    return x + plan.noise * normal(x, rng) if plan.noise else x


def start(network: nn.Module, rng: torch.Generator) -> None:
    """Fill the parameters: normal weights of variance 2 / fan-in, no bias; norms begin as the identity."""
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(normal(p, rng) * math.sqrt(2 / p[0].numel()) if p.ndim > 1 else torch.zeros_like(p))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def train(name: str, x: Tensor, label: Tensor, seed: int, epochs: int) -> Classifier:
    """Adam on the cross-entropy of augmented images, the step falling along a cosine."""
    plan, network = PLANS[name], untrained(name)
    network.to_empty(device="cpu")
    start(network, seeded(seed))
    steps = epochs * (len(x) // plan.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.top, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rng = seeded(seed, step)
        rows = integers(torch.empty(plan.batch), len(x), rng)
        seen = augmented(x[rows], plan, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.half):
            logits = network(seen)
        loss = nn.functional.cross_entropy(logits.float(), label[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def compact(network: nn.Module) -> dict[str, Tensor]:
    """The weights, matrices and kernels in float16."""
    return {key: v.half() if v.ndim > 1 else v for key, v in network.state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the data: path=FOLDER")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name, plan = options.name, PLANS[options.name]
    epochs, out = options.epochs or plan.epochs, options.out or WEIGHTS / weights_name(options.name)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    began = time.monotonic()
    kept, held, words = sets(name, options.set)
    network = train(name, *kept, options.seed, epochs)
    weights = network.state_dict() if name == "digits" else compact(network)
    network.load_state_dict({key: v.to(network.state_dict()[key]) for key, v in weights.items()})
    record = {
        "what": f"classifier of {name}, images {network.shape} in [-1, 1]; features are the layer below its logits",
        "accuracy": accuracy(network, *held),
        "train_accuracy": accuracy(network, *kept),
        "train": len(kept[0]),
        "held_out": split(1797, HELD)[1].tolist() if name == "digits" else len(held[0]),
        "split": words,
        "seed": options.seed,
        "epochs": epochs,
        "command": f"python benchmarks/train_features.py {name} --seed {options.seed} --epochs {epochs}",
        "versions": {"torch": torch.__version__},
        "data": plan.data,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, out, metadata={"record": json.dumps(record)})
    print(json.dumps({**record, "held_out": f"{len(held[0])} images"}, indent=1))
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
