"""Train the small classifier of 8 x 8 digits that scores are measured on, and write the file the package ships.

    python benchmarks/train_digits_features.py

Under a minute on one core. The same seed gives the same file on the same machine and torch version.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import sklearn
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from driftfield.data.stored import split
from driftfield.metric.features import WEIGHTS, DigitsNet
from driftfield.rng import integers, normal, seeded

OUT = Path(__file__).parents[1] / "src" / "driftfield" / "weights" / WEIGHTS
HELD = 0.2  # twice the fraction that `Digits` holds out, so it contains those: scores are on images never trained on


def digits() -> tuple[Tensor, Tensor]:
    """All images `(1797, 1, 8, 8)` in [-1, 1], and their labels."""
    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return x, torch.as_tensor(labels, dtype=torch.int64)


def accuracy(network: nn.Module, x: Tensor, label: Tensor) -> float:
    """The share of images that get their own label."""
    with torch.no_grad():
        return float((network(x).argmax(1) == label).double().mean())


def shift(x: Tensor, rng: torch.Generator) -> Tensor:
    """Move each image by -1, 0 or 1 pixels along each axis; the border fills with background."""
    wide = nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    views = wide.unfold(2, 8, 1).unfold(3, 8, 1)  # (B, 1, 3, 3, 8, 8)
    down, across = (integers(torch.empty(len(x)), 3, rng) for _ in range(2))
    return views[torch.arange(len(x)), :, down, across]


def start(network: nn.Module, rng: torch.Generator) -> None:
    """Fill the parameters: normal weights of variance 2 / fan-in, no bias."""
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(normal(p, rng) * math.sqrt(2 / p[0].numel()) if p.ndim > 1 else torch.zeros_like(p))


def train(x: Tensor, label: Tensor, seed: int, epochs: int, batch: int = 64, top: float = 2e-3) -> DigitsNet:
    """Adam on the cross-entropy of shifted, slightly noisy images, the step falling along a cosine."""
    with torch.device("meta"):
        network = DigitsNet()
    network.to_empty(device="cpu")
    start(network, seeded(seed))
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=top, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rng = seeded(seed, step)
        rows = integers(torch.empty(batch), len(x), rng)
        seen = shift(x[rows], rng)
        seen = seen + 0.1 * normal(seen, rng)
        loss = nn.functional.cross_entropy(network(seen), label[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    began = time.monotonic()
    x, label = digits()
    kept, held = split(len(x), HELD)
    network = train(x[kept], label[kept], options.seed, options.epochs)
    record = {
        "what": "classifier of 8 x 8 digits, images in [-1, 1] (raw / 8 - 1); features are its last hidden layer",
        "accuracy": accuracy(network, x[held], label[held]),
        "train_accuracy": accuracy(network, x[kept], label[kept]),
        "train": len(kept),
        "held_out": held.tolist(),
        "split": f"driftfield.data.stored.split({len(x)}, held={HELD}); `held_out` are its indices in load_digits()",
        "seed": options.seed,
        "epochs": options.epochs,
        "command": f"python benchmarks/train_digits_features.py --seed {options.seed} --epochs {options.epochs}",
        "versions": {"torch": torch.__version__, "scikit-learn": sklearn.__version__},
        "data": "Digits of scikit-learn (UCI optical recognition of handwritten digits), CC BY 4.0",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), options.out, metadata={"record": json.dumps(record)})
    print(json.dumps({**record, "held_out": f"{len(held)} indices"}, indent=1))
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
