"""Pictures of a report: samples, their nearest neighbours, and samples on their way; arrays in, a figure out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .style import FAINT, INK, WIDTH, Look, blank, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


def mosaic(images: Bytes, columns: int, rows: Sequence[str] = ()) -> Figure:
    """Images `(n, H, W)` or `(n, H, W, 3)`, uint8, in `columns`, row by row; `rows` are names of the rows, if any."""
    sheet = _tiled(images, columns)
    lines = math.ceil(len(images) / columns)
    figure, (ax,) = blank(max(0.8, (WIDTH - 0.35) * sheet.shape[0] / sheet.shape[1] + 0.1))
    with styled():
        _show(ax, sheet)
        pitch = images.shape[1] + 1
        if rows:
            ax.set_yticks([1 + i * pitch + images.shape[1] / 2 - 0.5 for i in range(lines)], rows)
            ax.tick_params(length=0)
        _bare(ax, ticks=bool(rows))
    return figure


def neighbours(samples: Bytes, spaces: dict[str, tuple[Bytes, Array]], most: int = 8) -> Figure:
    """Each sample beside its nearest training items, with their distances beneath.

    Shapes: `samples` `(n, H, W)` or `(n, H, W, 3)`, uint8; `spaces[name]` holds the items `(n, k, H, W[, 3])` and the
    distances `(n, k)` that count in that space. The first `most` samples are drawn.
    """
    count = min(most, len(samples))
    k = sum(items.shape[1] for items, _ in spaces.values())
    gap, pitch = 0.35, 1.3  # in widths of an image: between groups; from row to row
    wide = 1 + k + gap * len(spaces)
    tall = samples.shape[1] / samples.shape[2]
    figure, (ax,) = blank(0.35 + (WIDTH / wide) * count * (tall + pitch - 1))
    with styled():
        ax.set_xlim(-0.02, wide)
        ax.set_ylim(count * (tall + pitch - 1), -0.3)
        ax.set_aspect("equal")
        for i in range(count):
            _place(ax, samples[i], 0, i * (tall + pitch - 1), tall)
        ax.text(0.5, -0.08, "sample", ha="center", fontsize=7)
        left = 1 + gap
        for name, (items, distances) in spaces.items():
            ax.text(left + items.shape[1] / 2, -0.08, f"nearest by {name}", ha="center", fontsize=7)
            for i in range(count):
                top = i * (tall + pitch - 1)
                for j in range(items.shape[1]):
                    _place(ax, items[i, j], left + j, top, tall)
                    text = f"{distances[i, j]:.2f}" if distances[i, j] < 100 else f"{distances[i, j]:.0f}"
                    ax.text(left + j + 0.5, top + tall + 0.04, text, ha="center", va="top", fontsize=6)
            left += items.shape[1] + gap
        _bare(ax)
    return figure


def _place(ax: Any, image: Bytes, left: float, top: float, tall: float) -> None:
    pad = 0.03
    box = (left + pad, left + 1 - pad, top + tall - pad * tall, top + pad * tall)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
    ax.imshow(image, extent=box, aspect="auto", **grey)


def plane(samples: Array, data: Array | None, look: Look) -> Figure:
    """Points `(n, 2)`: the data on the left, where they can be had, and the samples on the right, on equal axes."""
    sets = [("data", data, INK), ("samples", samples, look.colour)] if data is not None else []
    sets = sets or [("samples", samples, look.colour)]
    figure, axes = blank(2.5 if len(sets) == 2 else 4.0, 1, len(sets))
    frame = samples if data is None else data
    centre = np.median(frame, 0)
    reach = 1.15 * np.quantile(np.abs(frame - centre).max(1), 0.995)
    with styled():
        for ax, (title, points, colour) in zip(axes, sets, strict=True):
            ax.scatter(points[:, 0], points[:, 1], s=1.2, color=colour, alpha=0.35, linewidths=0, rasterized=True)
            ax.set_xlim(centre[0] - reach, centre[0] + reach)
            ax.set_ylim(centre[1] - reach, centre[1] + reach)
            ax.set_aspect("equal")
            ax.set_title(f"{len(points)} points of {title}" if title == "data" else f"{len(points)} {title}")
            ax.tick_params(labelsize=7)
    return figure


def way_of_images(states: Bytes, estimates: Bytes, levels: Sequence[float]) -> Figure:
    """Images `(steps, n, H, W[, 3])` on their way from noise: two rows a sample, its state and the estimate of it.

    `levels` are the noise levels of the steps; the last is 0 where the state is the sample itself.
    """
    steps, count = states.shape[:2]
    both = np.stack((states, estimates), 2)  # (steps, n, 2, ...)
    sheet = _tiled(both.transpose(1, 2, 0, *range(3, both.ndim)).reshape(-1, *states.shape[2:]), steps)
    figure, (ax,) = blank(0.5 + (WIDTH - 0.6) * sheet.shape[0] / sheet.shape[1])
    with styled():
        _show(ax, sheet)
        height, width = states.shape[2] + 1, states.shape[3] + 1
        ax.set_yticks([1 + (i + 0.5) * height - 1 for i in range(2 * count)], ["state", "estimate"] * count, fontsize=7)
        names = ["∞" if v == math.inf else f"{v:.0f}" if v >= 100 else f"{v:.2g}" for v in levels]
        ax.set_xticks([1 + (i + 0.5) * width - 1 for i in range(steps)], names, fontsize=7)
        ax.tick_params(length=0)
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
        ax.set_xlabel("noise level (model units)", fontsize=8)
        _bare(ax, ticks=True)
    return figure


def way_in_plane(states: Array, estimates: Array, levels: Sequence[float]) -> Figure:
    """Points `(steps, n, 2)` on their way from noise, left, and the estimates of where they end, right."""
    figure, axes = blank(2.95, 1, 2)
    ends = states[-1]
    reach = 2.2 * np.quantile(np.abs(ends - np.median(ends, 0)).max(1), 0.95)
    with styled():
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.collections import LineCollection
        from matplotlib.colors import LogNorm

        shade = _on_log_axis(levels)
        norm = LogNorm(shade.min(), shade.max()) if shade.max() > shade.min() else None
        for ax, paths, title in zip(axes, (states, estimates), ("state", "estimate of its end"), strict=True):
            parts = np.stack((paths[:-1], paths[1:]), 2).reshape(-1, 2, 2)
            colours = np.repeat(shade[:-1], paths.shape[1])
            lines = LineCollection(
                list(parts), array=colours, cmap=colormaps["viridis"], norm=norm, linewidths=0.5, alpha=0.7
            )
            lines.set_rasterized(True)
            ax.add_collection(lines)
            ax.scatter(ends[:, 0], ends[:, 1], s=3, color=INK, linewidths=0, zorder=3)
            centre = np.median(ends, 0)
            ax.set_xlim(centre[0] - reach, centre[0] + reach)
            ax.set_ylim(centre[1] - reach, centre[1] + reach)
            ax.set_aspect("equal")
            ax.set_title(title)
            ax.tick_params(labelsize=7)
        bar = figure.colorbar(
            ScalarMappable(norm, colormaps["viridis"]), ax=axes, orientation="horizontal", shrink=0.6, aspect=40
        )
        bar.set_label("noise level (model units)", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    return figure


def way_of_values(states: Array, estimates: Array, levels: Sequence[float], look: Look) -> Figure:
    """Coordinates `(steps, n, k)` on their way from noise: a panel each, lines of states, dots of estimates."""
    count = min(3, states.shape[2])
    figure, axes = blank(0.5 + 1.5 * count, count, share=True)
    at = _on_log_axis(levels)
    with styled():
        for k, ax in enumerate(axes):
            ax.plot(at, states[:, :, k], color=look.colour, linewidth=0.8, alpha=0.7)
            ax.plot(at[:-1], estimates[:-1, :, k], ".", color=INK, markersize=2, alpha=0.6)
            ax.set_ylabel(f"coordinate {k}")
            ax.grid(True, color=FAINT)
        axes[-1].set_xscale("log")
        axes[-1].invert_xaxis()
        axes[-1].set_xlabel("noise level (model units), falling")
    return figure


def _on_log_axis(levels: Sequence[float]) -> Array:
    """Levels where a logarithmic axis can show them: no noise beside the least, no signal beside the most."""
    v = np.asarray(levels, np.float64)
    inside = v[(v > 0) & np.isfinite(v)]
    low, high = (inside.min(), inside.max()) if inside.size else (1.0, 1.0)
    shown: Array = np.where(v <= 0, low / 2, np.where(np.isfinite(v), v, 2 * high))
    return shown


def _tiled(images: Bytes, columns: int) -> Array:
    """Images side by side in one sheet with an alpha channel: the gaps let the page's ground through."""
    rgb = images if images.ndim == 4 else np.repeat(images[..., None], 3, 3)
    count, height, width = rgb.shape[:3]
    lines = math.ceil(count / columns)
    sheet = np.zeros((lines * (height + 1) + 1, columns * (width + 1) + 1, 4), np.uint8)
    for i, image in enumerate(rgb):
        top, left = 1 + (i // columns) * (height + 1), 1 + (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width, :3] = image
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet


def _show(ax: Any, image: Array) -> None:
    ax.imshow(image, **({"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}))


def _bare(ax: Any, ticks: bool = False) -> None:
    """No frame; no ticks unless they are names."""
    for spine in ax.spines.values():
        spine.set_visible(False)
    if not ticks:
        ax.set_yticks([])
    if not ticks or not ax.get_xticks().size or ax.xaxis.get_ticks_position() != "top":
        ax.set_xticks([])
