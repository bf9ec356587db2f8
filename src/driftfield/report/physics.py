"""An equation of physics in one figure: its waves, its response to a point, and what becomes of data under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..pde.base import PDE, Green
from ..pde.flow import blob, overlap, posterior, simulate, time_at
from ..rng import integers, normal, seeded
from .style import DASHES, FAINT, INK, RUNS, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 7.2  # inches wide: two columns of a paper
_POINTS, _SIDE = 384, 10.0  # of the periodic grid: points, and its side in radii of the data
_BLUR = 0.06  # deviation of the blobs that stand for points, in radii of the data
_REACHES = (0.12, 0.4, 1.0, 2.2)  # distances over which the data have spread when they are drawn, in their radii
_PATHS, _STEPS = 48, 120


@dataclass(frozen=True)
class Portrait:
    """What is drawn: an equation, the points `(M, 2)` it acts on, and the times at which one looks."""

    pde: PDE
    data: Tensor
    times: tuple[float, ...]

    @staticmethod
    def of(pde: PDE, data: Tensor, times: Sequence[float] = ()) -> Portrait:
        """The points moved to mean 0; the times, unless given, are those at which they have spread a little to far.

        Raises: ValueError for data that are not points in the plane, or times that are not finite, or do not increase
                from above 0.
        """
        if data.ndim != 2 or data.shape[1] != 2 or len(data) < 2:
            raise ValueError(f"the flow of a density is drawn for points in the plane, (M, 2), got {tuple(data.shape)}")
        data = data.double() - data.double().mean(0)
        found = tuple(times) or tuple(time_at(pde, reach * _radius(data), _BLUR * _radius(data)) for reach in _REACHES)
        if len(found) > 6:
            raise ValueError(f"six times fit side by side, got {len(found)}")
        if not all(a < b < math.inf for a, b in zip((0.0, *found), found, strict=False)):
            raise ValueError(
                f"times must increase from above 0 and be finite, got {', '.join(map('{:g}'.format, found))}"
            )
        return Portrait(pde, data, found)

    @property
    def radius(self) -> float:
        """Root of the mean squared distance of the data from their mean."""
        return _radius(self.data)


def _radius(data: Tensor) -> float:
    return float(data.square().sum(1).mean().sqrt())


def portrait(of: Portrait, seed: int = 0) -> Figure:
    """The figure: dispersion, response and overlap; the density at the times with its field lines; trajectories.

    There are no trajectories for an equation that does not generate, or where they soon leave the density. `seed`
    chooses which are drawn.
    """
    paths = trajectories(of, seed) if of.pde.verdict != "no" else None
    if paths is not None and paths[1][-1].isfinite().all(1).sum() < _PATHS / 4:
        paths = None  # nearly all have come where there is no density
    with styled():
        from matplotlib.figure import Figure

        heights = [2.2, 0.25 + min(3.0, SIZE / len(of.times))] + ([2.7] if paths is not None else [])
        figure = Figure(figsize=(SIZE, sum(heights) + 0.5), layout="constrained")
        rows: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
        for draw, ax in zip((_dispersion, _response, _overlaps), rows[0].subplots(1, 3), strict=True):
            draw(ax, of)
        for t, ax in zip(of.times, np.atleast_1d(rows[1].subplots(1, len(of.times))), strict=True):
            _density(ax, of, t)
        if paths is not None:
            left, right = rows[2].subplots(1, 2, width_ratios=(2, 3))
            _in_plane(left, of, paths[1])
            _in_time(right, of, *paths)
        names = {"wavenumber": "k0"}
        values = ", ".join(f"{names.get(k, k)} = {v:g}" for k, v in of.pde.parameters.items())
        verdict = {"yes": "generates", "conditional": "generates conditionally", "no": "does not generate"}
        title = f"{of.pde.name}{f' ({values})' if values else ''}:  {plain(of.pde.pde)}"
        reason = fill(f"{verdict[of.pde.verdict]}: {plain(of.pde.reason)}", 110)
        figure.suptitle(f"{title}\n{reason}", fontsize=9)
    return figure


def plain(text: str) -> str:
    """The text of an equation in letters and signs that a figure can show."""
    for long, short in (
        ("phi_ttt", "∂ₜ³φ"), ("phi_tt", "∂ₜ²φ"), ("phi_t", "∂ₜφ"), ("lap(lap(phi))", "∇⁴φ"), ("lap(phi)", "∇²φ"),
        ("2 eps", "2ε"), ("phi", "φ"), ("-lap", "−∇²"), ("beta", "β"), ("^2", "²"), ("^4", "⁴"), ("k0", "k₀"),
        ("omega", "ω"), ("Omega", "Ω"),
    ):  # fmt: skip
        text = text.replace(long, short)
    return text


def _dispersion(ax: Axes, of: Portrait) -> None:
    k = torch.linspace(0, 5 / of.radius, 401, dtype=torch.float64)[1:]
    for i, branch in enumerate(of.pde.omega(k)):
        strong: dict[str, Any] = {"linewidth": 1.8 if i == 0 else 0.9}
        ax.plot(k, branch.imag, color=RUNS[0], linestyle=DASHES[i % 4], **strong)
        ax.plot(k, branch.real, color=RUNS[1], linestyle=DASHES[i % 4], **strong)
    low, high = ax.get_ylim()
    reach = 1.1 * float(of.pde.omega(k)[0].abs().max())
    ax.set_ylim(max(low, -reach), min(high, reach))
    ax.axhline(0, color=FAINT, linewidth=0.5, zorder=0)
    ax.plot([], [], color=RUNS[0], label="Im ω")
    ax.plot([], [], color=RUNS[1], label="Re ω")
    ax.set_title("dispersion relation")
    ax.set_xlabel("wavenumber k")
    ax.legend(loc="best", handlelength=1.2)


def _response(ax: Axes, of: Portrait) -> None:
    """The density around one source in the plane: of waves, around a blob."""
    s = torch.linspace(0, 3.2 * of.radius, 321, dtype=torch.float64)[1:]  # at 0 a kernel may be infinite
    signed = False
    curves = []
    for t in of.times:
        p = blob(of.pde, s, t, 2, _BLUR * of.radius) if of.pde.sharp else _kernel(of.pde.green(s, t, 2))
        p = p / p.abs().max()
        signed |= bool((p < -1e-6).any())
        curves.append(p)
    for i, (t, p) in enumerate(zip(of.times, curves, strict=True)):
        ax.plot(s, p if signed else p.where(p > 1e-5, math.nan), color=_shade(i, len(curves)), label=f"t = {t:.3g}")
    if signed:
        ax.axhline(0, color=FAINT, linewidth=0.5, zorder=0)
        ax.set_ylim(-2.0, 1.1)  # room for the legend, as curves go everywhere else
        ax.set_yticks((-1, 0, 1))
    else:
        ax.set_yscale("log")
        ax.set_ylim(1e-7, 1.5)
        ax.set_yticks((1e-4, 1e-2, 1))
        ax.minorticks_off()
    ax.set_title("response to a blob" if of.pde.sharp else "Green's function, p")
    ax.set_xlabel("distance")
    ax.set_ylabel("share of the peak", fontsize=8)
    ax.legend(loc="lower center", ncols=2, handlelength=1.0, fontsize=7)


def _kernel(of: Green) -> Tensor:
    """The density up to a factor, also where it is so low that it underflows."""
    log = of.log_density
    return (log - log.max()).exp() if bool(log.isfinite().all()) else of.density


def _overlaps(ax: Axes, of: Portrait) -> None:
    """What can still be told of two sources."""
    from matplotlib.ticker import NullFormatter

    times = np.geomspace(of.times[0] / 4, of.times[-1] * 10, 60)
    width = 0.0 if of.pde.additive and not of.pde.sharp else 2 * _BLUR * of.radius
    for i, part in enumerate((0.5, 1.0, 2.0)):
        values = [overlap(of.pde, part * of.radius, t, 2, width) for t in times.tolist()]
        ax.plot(times, values, color=RUNS[i], linestyle=DASHES[i], label=f"{part * of.radius:.2g} apart")
    ax.axhline(1, color=FAINT, linewidth=0.5, zorder=0)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(min(-0.05, ax.get_ylim()[0]), 1.08)
    ax.set_title("overlap of two blobs, F" if width else "overlap of two sources, F")
    ax.set_xlabel("time t")
    ax.legend(loc="best", handlelength=1.6, fontsize=7)


def field_of(of: Portrait, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """The axis `(X,)`, density `(X, X)` and flux `(2, X, X)` at `t`, by waves on a periodic grid; first index: x."""
    side = _SIDE * 2 * of.radius
    axis = (torch.arange(_POINTS, dtype=torch.float64) - _POINTS // 2) * (side / _POINTS)
    blur = max(_BLUR * of.radius, 1.2 * side / _POINTS)
    density = torch.zeros(_POINTS, _POINTS, dtype=torch.float64)
    for part in torch.split(of.data, 500):  # a product of two profiles for each datum
        x, y = (torch.exp(-((axis - part[:, j : j + 1]) ** 2) / (2 * blur**2)) for j in (0, 1))
        density += x.mT @ y
    density /= len(of.data) * 2 * math.pi * blur**2
    fluid = simulate(of.pde, torch.fft.ifftshift(density), t, side)
    return axis, torch.fft.fftshift(fluid.density), torch.fft.fftshift(fluid.flux, (1, 2))


def _density(ax: Axes, of: Portrait, t: float) -> None:
    axis, p, flux = field_of(of, t)
    seen = axis.abs() <= 2.6 * of.radius
    axis, p, flux = axis[seen], p[seen][:, seen], flux[:, seen][:, :, seen]
    top, low = float(p.max()), float(p.min())
    box = (float(axis[0]), float(axis[-1])) * 2
    signed = low < -0.01 * top
    top = max(top, -low)
    look: dict[str, Any] = (
        {"cmap": "RdBu", "vmin": -top, "vmax": top} if signed else {"cmap": "Blues", "vmin": 0, "vmax": top}
    )
    ax.imshow(p.mT.numpy(), origin="lower", extent=box, interpolation="bilinear", **look)
    thin = slice(None, None, max(1, len(axis) // 60))
    x = np.linspace(float(axis[thin][0]), float(axis[thin][-1]), len(axis[thin]))  # evenly to the last digit
    flux = flux.where(p.abs() > 1e-4 * top, math.nan)  # lines where there is something to flow
    lines: dict[str, Any] = {"color": INK, "linewidth": 0.35, "density": 0.75, "arrowsize": 0.35}
    ax.streamplot(x, x, flux[0][thin, thin].mT.numpy(), flux[1][thin, thin].mT.numpy(), **lines)
    ax.set_xlim(box[:2])
    ax.set_ylim(box[:2])
    ax.set_xticks([])
    ax.set_yticks([])
    mass = of.pde.total_mass(t)
    text = f"\nmass {mass:.2g}" if mass else "\nmass < 1e-300"
    ax.set_title(f"t = {t:.3g}" + (text if abs(mass - 1) > 5e-3 else ""), fontsize=8.5)


def trajectories(of: Portrait, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Times `(T,)` and states `(T, B, 2)` along the exact flow: of data, from a little way off, to the last time.

    By Heun's method on a geometric grid. NaN from where the density is not above 0.
    """
    rng = seeded(seed, 0x50415448)
    few = of.data[integers(torch.empty(min(400, len(of.data))), len(of.data), rng)]
    start, scale = of.times[0] / 4, 0.05 * of.radius
    if of.pde.sharp:  # the front is gone, and what is left has this spread
        start, scale = of.times[1], 0.3 * of.radius
    x = few[integers(torch.empty(_PATHS), len(few), rng)] + scale * normal(torch.empty(_PATHS, 2), rng).double()
    times = torch.from_numpy(np.geomspace(start, 3 * of.times[-1], _STEPS + 1))
    states = [x]
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        v = _velocity(of.pde, x, t, few)
        x = x + (s - t) / 2 * (v + _velocity(of.pde, x + (s - t) * v, s, few))
        states.append(x)
    return times, torch.stack(states)


def _velocity(pde: PDE, x: Tensor, t: float, data: Tensor) -> Tensor:
    """Of the points that are somewhere: those that came where there is no density are NaN, and stay so."""
    there = x.isfinite().all(1)
    v = torch.full_like(x, math.nan)
    v[there] = posterior(pde, x[there], t, data)[1]
    return v


def _in_plane(ax: Axes, of: Portrait, states: Tensor) -> None:
    x, y = of.data[:1500].T
    ax.scatter(x, y, s=1.0, color=RUNS[1], linewidths=0, rasterized=True)
    ax.plot(states[..., 0], states[..., 1], color=RUNS[0], linewidth=0.6, alpha=0.7)
    ax.set_xlim(-4 * of.radius, 4 * of.radius)
    ax.set_ylim(-4 * of.radius, 4 * of.radius)
    ax.set_aspect("equal")
    ax.set_title("trajectories of the flow; data in colour")


def _in_time(ax: Axes, of: Portrait, times: Tensor, states: Tensor) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    ax.plot(times, states[..., 0], color=RUNS[0], linewidth=0.6, alpha=0.7)
    ax.set_xscale("log")
    ax.set_yscale("asinh", linear_width=2 * of.radius)  # which has no kink, as symlog has
    unit, far = 10.0 ** math.floor(math.log10(2 * of.radius)), max(map(abs, ax.get_ylim()))
    decades = [unit * 10**i for i in range(20) if unit * 10**i <= far]
    ax.set_yticks([-v for v in reversed(decades)] + [0.0, *decades])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    begin = "after the fronts have passed" if of.pde.sharp else "data are on the left"
    ax.set_xlabel(f"time t: {begin}, generation runs from the right")
    ax.set_title("their first coordinate")


def _shade(i: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](0.85 * (1 - i / max(1, count - 1)))
