"""The demo's scores over seeds: PFGM++ at D = 128 and EDM on handwritten digits, trained alike.

    python benchmarks/digits.py [--steps 900] [--seeds 3] [--folder runs/digits-bench]

Each run is that of `make demo`; a run folder that is already there is used as it is. Prints each seed's scores and the
largest, from which the demo's bound is set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

PROCESSES = {"PFGM++ (D = 128)": "PFGMPP(D=128)", "EDM": "EDM"}


def run(folder: Path, process: str, seed: int, steps: int) -> dict[str, float]:
    """Train one model unless it is there, and score it as the demo does."""
    command = [sys.executable, "-m", "driftfield"]
    where = folder / f"{process.partition('(')[0]}-{seed}"
    asked = ["train", "digits", "--process", process, "--steps", steps, "--seed", seed, "--run", where]
    subprocess.run([*command, *map(str, asked)], check=True)
    judge = ["evaluate", where, "-n", 1000, "--features", "digits", "--split", "train", "--json"]
    found = subprocess.run([*command, *map(str, judge)], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/digits-bench"))
    options = parser.parse_args()
    lines, largest = [], 0.0
    for name, process in PROCESSES.items():
        scores = [run(options.folder, process, seed, options.steps) for seed in range(options.seeds)]
        distances = [s["frechet"] for s in scores]
        largest = max(largest, *distances)
        error = statistics.stdev(distances) / len(distances) ** 0.5 if len(distances) > 1 else float("nan")
        each = ", ".join(f"{d:.3f}" for d in distances)
        kid = statistics.mean(1000 * s["kid"] for s in scores)
        nearest = statistics.mean(s["nearest"] for s in scores)
        lines.append(
            f"| {name} | {statistics.mean(distances):.3f} ± {error:.3f} | {each} | {kid:.1f} | {nearest:.2f} |"
        )
    print("\n| process | Fréchet, mean ± s.e. | each seed | KID x 1000 | nearest |\n|---|---|---|---|---|")
    print("\n".join(lines))
    print(f"\nlargest Fréchet distance: {largest:.3f}")


if __name__ == "__main__":
    main()
