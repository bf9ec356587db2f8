"""Where the steps of `solver="auto"` should lie: errors by the centre and the width of the grid `logistic`.

    python benchmarks/centres.py cifar/EDM -n 64
    python benchmarks/centres.py mixture/EDM -n 128
    python benchmarks/centres.py run --run RUN -n 16

The error is that of `solvers.py`: the root-mean-square distance to 1,000 steps of Heun's method from the same start.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from solvers import NFES, Case

import driftfield as df
from driftfield.grid import logistic
from driftfield.linear import flat
from driftfield.solve.base import sample


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", help="mixture/EDM, mixture/VP, mixture/PFGM++, cifar/EDM, cifar/VP or run")
    parser.add_argument("--run", type=Path, help="a trained run, for the case `run`")
    parser.add_argument("-n", "--number", type=int, default=64, help="trajectories")
    parser.add_argument("--centres", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--widths", type=float, nargs="+", default=[1.5, 2.0])
    options = parser.parse_args()
    case = Case(options.case, options.number, options.run)
    process, start, field = case.parts[0], case.start(), case.field()
    with torch.no_grad():
        exact = case.reference().double()
        print(f"| order | centre | width | {' | '.join(map(str, NFES))} |\n{'|---' * (3 + len(NFES))}|")
        for order in (3, 4):
            for centre in options.centres:
                for width in options.widths:
                    errors = []
                    for nfe in NFES:
                        grid = logistic(process, nfe, centre=centre, width=width)
                        end = sample(field, start, grid, df.DEIS(order, "flow"), torch.Generator())
                        errors.append(flat(end.double() - exact).square().mean().sqrt().item())
                    cells = " | ".join(f"{error:.2g}" for error in errors)
                    print(f"| {order} | {centre:g} | {width:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
