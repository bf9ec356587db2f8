"""Error against evaluations of every solver, ours beside those of diffusers and k-diffusion, on one and the same flow.

    python benchmarks/solvers.py mixture/EDM mixture/VP mixture/PFGM++ cifar/EDM cifar/VP
    python benchmarks/solvers.py run --run runs/quality-fashion/PFGMPP-D-128-0
    python benchmarks/solvers.py --figure docs/images/solvers.webp

The error is the root-mean-square distance, in units of the data, to 1,000 steps of Heun's method from the same start;
a standard error beside it comes from the trajectories. A row is a method, a column a number of evaluations, and a cell
the best that the method does over its spacings (ours: karras, power, geometric; the peers': those that they offer).
`searched` is a path searched for this very denoiser. `auto` is one choice, made from the process, the number and the
shape of the data alone; `flow-` are the methods that it chooses among, on its spacing.
Results are kept in FOLDER, a file for each case, and what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peers import Problem, Walk, peers
from torch import Tensor

import driftfield as df
from driftfield.field.reverse import Reverse
from driftfield.field.wrap import Counted
from driftfield.generation import first_state
from driftfield.grid import geometric, karras, logistic, power
from driftfield.linear import expand, flat
from driftfield.process.base import Isotropic
from driftfield.rng import normal, rows, seeded
from driftfield.solve.base import Solver, sample

NFES = (5, 6, 8, 10, 15, 20, 35)
GRIDS: dict[str, Any] = {"karras": karras, "power": power, "geometric": geometric}
PROCESSES: dict[str, Callable[[], Isotropic]] = {"EDM": df.EDM, "VP": df.VP, "PFGM++": partial(df.PFGMPP, 128.0)}
OURS: dict[str, Solver] = {
    "Heun": df.Heun(),
    "RK4": df.RK4(),
    "rho-RK 2": df.RhoRK(2),
    "rho-RK 3": df.RhoRK(3),
    "DPM-Solver 2": df.DPMSolver(2),
    "DPM-Solver 3": df.DPMSolver(3),
    "DDIM": df.DDIM(),
    "DEIS 2": df.DEIS(2),
    "DEIS 3": df.DEIS(3),
    "DEIS 4": df.DEIS(4),
    "rho-DEIS 3": df.DEIS(3, clock="rho"),
    "log-DEIS 3": df.DEIS(3, clock="log"),
    "iPNDM 3": df.IPNDM(3),
    "iPNDM 4": df.IPNDM(4),
    "DPM-Solver++ 2M": df.DPMSolverPP(2),
    "DPM-Solver++ 3M": df.DPMSolverPP(3),
    "UniPC 2": df.UniPC(2),
    "UniPC 3": df.UniPC(3),
}
CHOICES: dict[str, Solver] = {  # among which `auto` chooses
    "flow-DPM 2": df.Exponential(2, "data", "flow"),
    "flow-DEIS 3": df.DEIS(3, clock="flow"),
    "flow-DEIS 4": df.DEIS(4, clock="flow"),
}
BRIEF = re.compile(  # of the dear cases: what led on the mixtures, and one of each peer
    r"auto|flow-.*|diffusers (DDIM|iPNDM|DPM-Solver\+\+ [23]M|UniPC [23]|DEIS 3|Heun) \((karras|even|trailing)\)"
    r"|(Heun|DDIM|DEIS 4|iPNDM 4|DPM-Solver\+\+ 3M|UniPC 3) \((karras|power)\)|k-diffusion DPM\+\+ 2M \(karras\)"
)
SEARCHED = "DEIS 3"
SEED, FINE = 0, 1000


class Heavy:
    """The exact denoiser of a mixture under Student's t, by a fixed rule for the variance: `df.Mixture`, but fast.

    The logarithm of the variance runs evenly over [-1.5, 1.5], where all of it is at D = 128; `check` compares.
    """

    def __init__(self, mixture: df.Mixture, freedom: float):
        self.means, self.log_weights = mixture.means.double(), mixture.weights.double().log()
        self.values, self.axes = torch.linalg.eigh(mixture.covariances.double())
        self.centre = torch.einsum("ki,kij->kj", self.means, self.axes)
        self.w = torch.linspace(-1.5, 1.5, 160, dtype=torch.float64)
        self.prior = -freedom / 2 * (self.w + torch.expm1(-self.w))

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        turned = torch.einsum("bi,kij->kbj", x.double(), self.axes) - self.centre[:, None]
        spread = self.values[:, None] + t.double() ** 2 * self.w.exp()[:, None]  # (K, J, N)
        log = -(turned.square() @ (1 / spread).mT + spread.log().sum(2)[:, None]) / 2  # (K, B, J)
        log = log + self.prior + self.log_weights[:, None, None]
        share = (log - log.amax((0, 2), keepdim=True)).exp()
        share = share / share.sum((0, 2), keepdim=True)
        gain = share @ (self.values[:, None] / spread)  # (K, B, N)
        y = torch.einsum("kbj,kij->bi", gain * turned, self.axes) + share.sum(2).T @ self.means
        return y.to(x.dtype)


def mixture(process: Isotropic) -> tuple[Any, tuple[int, ...]]:
    """24 overlapping Gaussians in 64 dimensions: deviations fall like 1 / sqrt(axis), means are 2/3 of the variance."""
    rng, K, N = seeded(SEED, 64), 24, 64
    fall = torch.arange(1, N + 1, dtype=torch.float64) ** -0.5
    means = normal(torch.empty(K, N, dtype=torch.float64), rng) * fall
    axes = torch.linalg.qr(normal(torch.empty(K, N, N, dtype=torch.float64), rng))[0]
    covariances = axes @ ((fall.square() / 2)[None, :, None] * axes.mT)
    scale = 0.5 / (1.5 * fall.square().mean()).sqrt()  # a deviation of about 1/2 for each number
    means, covariances = scale * means, scale**2 * covariances
    weights = torch.full((K,), 1 / K, dtype=torch.float64)
    exact = df.Mixture(process, weights, means, (covariances + covariances.mT) / 2)
    if math.isinf(process.freedom):
        return exact, (N,)
    fast = Heavy(exact, process.freedom)
    for level in (0.01, 0.3, 5.0, 80.0):
        t = torch.tensor(level, dtype=torch.float64)
        x = process.perturb(means[:2], t, rng)
        if not torch.allclose(fast(x, t), exact(x, t), atol=1e-7):
            raise RuntimeError(f"the fixed rule of {Heavy.__name__} misses the exact mean at level {level}")
    return fast, (N,)


def cifar(process: Isotropic) -> tuple[Any, tuple[int, ...]]:
    """The exact denoiser of the first 5,000 pictures of CIFAR-10."""
    from driftfield.data.cifar import CIFAR10

    x = torch.cat([part for part, _ in islice(CIFAR10().load().parts(5000), 1)])
    return df.Empirical(process, x), tuple(x.shape[1:])


@dataclass(frozen=True)
class Case:
    """A denoiser of a process, and the starts of `n` trajectories."""

    name: str
    n: int
    run: Path | None = None

    @cached_property
    def parts(self) -> tuple[Isotropic, Any, tuple[int, ...]]:
        """The process, the denoiser, the shape of a datum."""
        if self.name == "run":
            process, denoiser, recipe = df.load(self.run)
            return process, denoiser, recipe.info.shape
        kind, process = self.name.split("/")
        law = PROCESSES[process]()
        return law, *{"mixture": mixture, "cifar": cifar}[kind](law)

    @cached_property
    def cond(self) -> Any:
        """The classes in turn, where the model has any."""
        if self.name != "run":
            return None
        classes = len(df.load(self.run)[2].info.classes)
        return torch.arange(self.n) % classes if classes else None

    def start(self, seed: int = SEED) -> Tensor:
        """`(n, *data)`: the state at the most noise."""
        process, _, shape = self.parts
        top = torch.tensor(process.span[1], dtype=torch.float64)
        return first_state(process, top, (self.n, *shape), rows(seed, 0, self.n), torch.float32)

    def field(self, denoiser: Any = None) -> Reverse:
        """The flow."""
        return Reverse(self.parts[0], denoiser or self.parts[1], self.cond)

    def reference(self) -> Tensor:
        """The end of 1,000 steps of Heun's method."""
        return sample(self.field(), self.start(), karras(self.parts[0], FINE), df.Heun(), torch.Generator())

    def problem(self, denoiser: Any) -> Problem:
        """The same flow for a peer."""
        process, cond = self.parts[0], self.cond

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            t = process.time(sigma)
            return denoiser((expand(process.alpha(t), x) * x).float(), t, cond).to(x.dtype)

        low, high = (torch.tensor(v, dtype=torch.float64) for v in process.span)
        even = process.level(torch.linspace(low, high, 1000, dtype=torch.float64))
        ends = even[0].item(), even[-1].item()
        # A table even in time is that of discrete models; EDM's time is the level, whose table nobody would make even.
        levels = even if process.alpha(high) < 1 else torch.linspace(*(v ** (1 / 7) for v in ends), 1000).double() ** 7
        levels[0], levels[-1] = ends
        return Problem(levels, denoise, self.start() / expand(process.alpha(high), self.start()).float())


def ours(case: Case, solver: Any, grid: Any, nfe: int, denoiser: Any) -> Tensor | None:
    """Where our solver ends, or None where not one step fits."""
    try:
        named = {} if grid is None else {"grid": grid}
        route = df.plan(case.parts[0], solver=solver, nfe=nfe, shape=case.parts[2], **named)
    except ValueError:
        return None
    return sample(case.field(denoiser), case.start(), route.path, route.solver, torch.Generator())


def searched(case: Case, nfe: int, denoiser: Any) -> Tensor:
    """Where the solver ends on a path found with other starts."""
    process, plain, shape = case.parts
    n = min(case.n, 16)
    cond = None if case.cond is None else case.cond[:n]
    start, fine = (n, *shape), max(60, 2 * nfe)
    found = df.search_grid(process, plain, start, nfe=nfe, solver=OURS[SEARCHED], seed=SEED + 1, fine=fine, cond=cond)
    ended = ours(case, OURS[SEARCHED], found.path, nfe, denoiser)
    assert ended is not None
    return ended


def everything(case: Case) -> dict[str, Callable[[int, Any], Tensor | None]]:
    """All rows, by `method (spacing)`: given a number of evaluations and a denoiser, where they end."""
    table: dict[str, Callable[[int, Any], Tensor | None]] = {
        "auto": lambda nfe, d: ours(case, "auto", None, nfe, d),
    }

    def peer(walk: Walk) -> Callable[[int, Any], Tensor | None]:
        return lambda nfe, d: walk(case.problem(d), nfe)

    for name, solver in CHOICES.items():
        table[f"{name} (logistic)"] = lambda nfe, d, s=solver: ours(case, s, logistic, nfe, d)
    table |= {name: peer(walk) for name, walk in peers().items()}
    for name, solver in OURS.items():
        for label, grid in GRIDS.items():
            table[f"{name} ({label})"] = lambda nfe, d, s=solver, g=grid: ours(case, s, g, nfe, d)
    table[f"searched {SEARCHED}"] = lambda nfe, d: searched(case, nfe, d)
    return table


def measure(case: Case, folder: Path, only: str = "", again: str = "", full: bool = False) -> dict[str, Any]:
    """The squared distances of each trajectory, by row and number of evaluations: measured, or read where they were."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = case.name.replace("/", "-")
    file, goal = folder / f"{stem}.json", folder / f"{stem}-{case.n}.pt"
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    began = time.monotonic()
    if not goal.exists():
        torch.save(case.reference(), goal)
    ends = torch.load(goal)
    for name, end in everything(case).items():
        if only not in name or not (case.name.startswith("mixture") or full or BRIEF.fullmatch(name)):
            continue
        for nfe in NFES:
            cells = kept.setdefault(name, {})
            if str(nfe) in cells and not (again and again in name):
                continue
            counted = Counted(case.parts[1])
            with torch.no_grad():
                x = end(nfe, counted)
            if x is None:
                cells[str(nfe)] = None
            else:
                if counted.calls > nfe:
                    raise RuntimeError(f"{name} spent {counted.calls} evaluations of {nfe}")
                cells[str(nfe)] = flat(x.double() - ends.double()).square().mean(1).tolist()
        print(f"\r{case.name} {time.monotonic() - began:5.0f} s  {name:50}", end="", file=sys.stderr, flush=True)
        file.write_text(json.dumps(kept))
    print(file=sys.stderr)
    return kept


Cells = dict[str, list[float] | None]


def rms(cell: list[float] | None) -> float:
    """The root of the mean; infinite where nothing was or came out."""
    value = math.inf if cell is None else (sum(cell) / len(cell)) ** 0.5
    return value if math.isfinite(value) else math.inf


def spread(values: list[float]) -> float:
    """The standard error of the mean."""
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5


def methods(kept: dict[str, Cells]) -> dict[str, Cells]:
    """One row for each method: in each column its best spacing."""
    found: dict[str, Cells] = {}
    for name, cells in kept.items():
        row = found.setdefault(
            re.sub(r" \((karras|power|geometric|logistic|exponential|even|trailing)\)$", "", name), {}
        )
        for nfe, cell in cells.items():
            if rms(cell) < rms(row.get(nfe)):
                row[nfe] = cell
    return {name: row for name, row in found.items() if row}


def judged(rows: dict[str, Cells], nfe: int) -> tuple[str, float, bool]:
    """The best row, the error of `auto` over its own, and whether that is at most 1.1 within two standard errors."""
    best = min(rows, key=lambda name: (rms(rows[name].get(str(nfe))), name != "auto"))
    mine, other = rows["auto"][str(nfe)], rows[best][str(nfe)]
    assert mine is not None
    assert other is not None
    over = [a - 1.21 * b for a, b in zip(mine, other, strict=True)]
    return best, rms(mine) / rms(other) if rms(other) > 0 else math.inf, sum(over) / len(over) <= 2 * spread(over)


def table(name: str, rows: dict[str, Cells]) -> tuple[str, int, int]:
    """The table of a case in Markdown, in how many columns `auto` is within the bound, and how many there are."""
    n = len(next(cell for cell in rows["auto"].values() if cell))
    lines = [f"**{name}**, {n} trajectories", "", f"| method | {' | '.join(map(str, NFES))} |", "|---" * 8 + "|"]
    order = sorted(rows, key=lambda r: ("diffusion" in r or "diffusers" in r, r != "auto"))
    lowest = {k: min(rms(row.get(str(k))) for row in rows.values()) for k in NFES}
    for method in order:
        texts = []
        for k in NFES:
            cell = rows[method].get(str(k))
            value = rms(cell)
            if cell is None or math.isinf(value):
                texts.append("-")
                continue
            error = spread(cell) / (2 * value) if value > 0 else 0.0
            text = f"{value:.2g} ± {error:.1g}"
            texts.append(f"**{text}**" if value == lowest[k] else text)
        lines.append(f"| {'**auto**' if method == 'auto' else method} | {' | '.join(texts)} |")
    verdicts = {k: judged(rows, k) for k in NFES}
    good = sum(fine for _, _, fine in verdicts.values())
    misses = [f"{k} ({ratio:.2f} times {best})" for k, (best, ratio, fine) in verdicts.items() if not fine]
    lines += ["", f"`auto` is within 10 % of the best in {good} of {len(NFES)} columns{', not at ' if misses else ''}"]
    lines[-1] += ", ".join(misses) + "."
    near = [f"{k} ({ratio:.2f} times {best})" for k, (best, ratio, fine) in verdicts.items() if fine and ratio > 1.1]
    if near:
        lines[-1] += f" Above 1.1 times the best, but not by two standard errors: {', '.join(near)}."
    return "\n".join(lines), good, len(NFES)


def draw(cases: dict[str, dict[str, Cells]], to: Path) -> None:
    """Error against evaluations, a panel for each case: `auto`, our other solvers, the peers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    across = min(3, len(cases))
    down = -(-len(cases) // across)
    fig, axes = plt.subplots(down, across, figsize=(3.4 * across, 3.3 * down + 0.3), squeeze=False)
    for ax in axes.flat[len(cases) :]:
        ax.axis("off")
    for ax, (name, lines) in zip(axes.flat, cases.items(), strict=False):
        lowest = math.inf
        for method, row in sorted(lines.items(), key=lambda item: item[0] == "auto"):
            peer = "diffus" in method
            points = [(k, rms(row.get(str(k)))) for k in NFES if 0 < rms(row.get(str(k))) < math.inf]
            if not points:
                continue
            lowest = min(lowest, *(e for _, e in points))
            style = {"color": "#d6267f", "lw": 2.6, "marker": "o", "ms": 4, "zorder": 3, "label": "driftfield auto"}
            if method != "auto":
                color, label = ("#a0a7b0", "diffusers, k-diffusion") if peer else ("#7570b3", "driftfield, others")
                style = {"color": color, "lw": 1.0, "alpha": 0.75, "label": label, "zorder": 1 if peer else 2}
            ax.plot(*zip(*points, strict=True), **style)
        ax.set(xscale="log", yscale="log", title=name, xlabel="evaluations", ylim=(lowest / 1.5, 1))
        ax.set_xticks(NFES, [str(k) for k in NFES])
        ax.minorticks_off()
        ax.grid(color="#e6e8eb", lw=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("distance to the fine solution (rms)")
    handles = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="lower center", ncols=3, frameon=False)
    fig.tight_layout(rect=(0, 0.07 / down, 1, 1))
    picture = to.with_suffix(".png")
    fig.savefig(picture, dpi=110)
    Image.open(picture).convert("RGB").save(to, quality=85)
    picture.unlink()


def main() -> None:
    """Measure the cases; print the tables of all that were, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="mixture/EDM, mixture/VP, mixture/PFGM++, cifar/EDM, cifar/VP, run")
    parser.add_argument("--run", type=Path, help="a trained run, for the case `run`")
    parser.add_argument("-n", "--number", type=int, help="trajectories [128 of a mixture, else 16]")
    parser.add_argument("--folder", type=Path, default=Path("runs/solvers"))
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--again", default="", help="rows to measure again")
    parser.add_argument("--full", action="store_true", help="all rows also of the dear cases")
    parser.add_argument("--figure", type=Path, help="a .webp file to draw")
    options = parser.parse_args()
    for name in options.cases:
        if name == "run" and options.run is None:
            parser.error("the case run needs --run RUN")
        case = Case(name, options.number or (128 if name.startswith("mixture") else 16), options.run)
        measure(case, options.folder, options.only, options.again, options.full)
    found = {file.stem: methods(json.loads(file.read_text())) for file in sorted(options.folder.glob("*.json"))}
    found = {name: rows for name, rows in found.items() if len(rows.get("auto", {})) == len(NFES)}
    tables = [table(name, rows) for name, rows in found.items()]
    print("\n\n".join(text for text, _, _ in tables))
    good, columns = sum(g for _, g, _ in tables), sum(c for _, _, c in tables)
    print(f"\nIn all: `auto` is within 10 % of the best, beyond two standard errors, in {good} of {columns} columns.")
    if options.figure is not None:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
