"""Fréchet distance and KID of a trained network's samples against evaluations: our solvers beside the peers'.

    python benchmarks/solver_quality.py runs/quality-fashion/PFGMPP-D-128-0 [-n 1000]

Every row walks the same flow from the same starts, classes in turn, as in `solvers.py`; a cell is scored against the
training pictures on the features of the data's shipped classifier, its standard error over random halves. Results are
kept in FOLDER, and what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from solvers import NFES, Case, everything
from torch import Tensor

import driftfield as df
from driftfield.batches import rows_of
from driftfield.data.fetch import cache
from driftfield.denoise.base import Denoiser
from driftfield.metric.features import features
from driftfield.metric.reference import Reference, kept
from driftfield.report.score import auto_features, opened

ROWS = (
    "auto",
    "flow-DEIS 3 (logistic)",
    "Heun (karras)",
    "DDIM (karras)",
    "DEIS 3 (karras)",
    "DPM-Solver++ 2M (karras)",
    "UniPC 3 (karras)",
    "diffusers DDIM (trailing)",
    "diffusers Heun (karras)",
    "diffusers DPM-Solver++ 2M (karras)",
    "diffusers DPM-Solver++ 3M (karras)",
    "diffusers UniPC 3 (karras)",
    "diffusers DEIS 3 (exponential)",
    "diffusers iPNDM (karras)",
    "k-diffusion DPM++ 2M (karras)",
)
METRICS = ("frechet", "kid")
ROWS_AT_ONCE = 64  # what a processor's cache holds: a thousand at once take twice as long


def few_at_once(denoiser: Denoiser) -> Denoiser:
    """The same denoiser, a few rows at a time."""

    def call(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        n, parts = len(x), []
        for i in range(0, n, ROWS_AT_ONCE):
            j = min(i + ROWS_AT_ONCE, n)
            parts.append(denoiser(x[i:j], rows_of(t, i, j, n), rows_of(cond, i, j, n)))
        return torch.cat(parts)

    return call


def measure(case: Case, file: Path) -> dict[str, Any]:
    """Scores by row and number of evaluations: measured, or read where they were."""
    kept_cells: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    recipe = df.load(case.run)[2]
    extract = features(auto_features(recipe.data))
    reference: Reference = kept(cache(), opened(recipe, str(case.run)).train()[0], extract, "train")
    table, began = everything(case), time.monotonic()
    for name in (name for name in ROWS if name in table):
        for nfe in NFES:
            cells = kept_cells.setdefault(name, {})
            if str(nfe) in cells:
                continue
            with torch.no_grad():
                x = table[name](nfe, few_at_once(case.parts[1]))
            cells[str(nfe)] = None
            if x is not None and bool(x.isfinite().all()):
                seen = recipe.info.to_model(recipe.info.to_user(x))  # a picture has 8 bits
                found = df.evaluate(seen.float(), reference, metrics=METRICS, features=extract)
                cells[str(nfe)] = {m: [found.values[m], found.errors[m]] for m in METRICS}
            print(f"\r{time.monotonic() - began:5.0f} s  {name:40} {nfe}", end="", file=sys.stderr, flush=True)
            file.write_text(json.dumps(kept_cells))
    print(file=sys.stderr)
    return kept_cells


def main() -> None:
    """Print a table for each metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", "--number", type=int, default=1000, help="samples of each cell")
    parser.add_argument("--folder", type=Path, default=Path("runs/solver-quality"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = measure(
        Case("run", options.number, options.run), options.folder / f"{options.run.name}-{options.number}.json"
    )
    for metric, scale in (("frechet", 1), ("kid", 1000)):
        print(f"\n| {metric}{' x 1000' if scale > 1 else ''} | {' | '.join(map(str, NFES))} |\n{'|---' * 8}|")
        for name, cells in found.items():
            texts = []
            for nfe in NFES:
                value, error = (cells[str(nfe)] or {}).get(metric, (None, None))
                texts.append("-" if value is None else f"{scale * value:.3g} ± {scale * error:.1g}")
            print(f"| {'**auto**' if name == 'auto' else name} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
