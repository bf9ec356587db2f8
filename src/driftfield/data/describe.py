"""What data are, in numbers: shape, scale, dimension, distances, copies and classes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..column.base import Category, Column, Number
from ..rng import permutation, seeded
from .base import Info, Source
from .spacing import QUANTILES, Spacing, effective_dimension, spacing, strays, widest
from .stream import MOST
from .table import TableSource
from .table_info import TableInfo

_SAMPLE, _WIDE = 4096, 1024  # items that the covariance, and the largest direction, are taken from
_VALUES = 2**20  # numbers among which distinct values are counted
_SUBSET, _COVARIANCE = 0x46414354, 0x434F5641  # streams that choose items
_SHOWN = 12


@dataclass(frozen=True)
class Part:
    """The values of one channel or coordinate in the model's units, or what a column of a table is in the user's.

    `missing` is the share of values that are not there.
    """

    name: str
    what: str
    missing: float
    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class Facts:
    """What is known of a data set before anything is learned. All in the model's units (`Info`), unless said.

    `count` is the size of the training split (0: a law drawn afresh), of which `seen` items were looked at, and `held`
    that of the held-out split. `std` is the natural `sigma_data` of `Info`; `mean`, `low` and `high` are over all
    values, `parts` by channel, coordinate or column; `missing` is the share of values that are not there, which
    distances take to be at their coordinate's mean. `step` is the gap between neighbouring values where they are
    rounded, 0 where they are not. `constant` counts the coordinates that never change. `effective` is the participation
    ratio of the covariance, None where it does not follow from the items, and `widest` the size of the data along their
    largest direction, seen from 0 (on 1,024 items). `copies` counts training items equal to an earlier one and `leaked`
    held-out items equal to a training item, two missing values being equal; `near_expected` is what chance makes of
    `spacing.near` at the intrinsic dimension, and `near_held` the share of held-out items with a training item that
    close. `balance` counts training items by class, `unlabelled` those without one. `shift` and `scale` lead to the
    user's units.
    """

    kind: str
    shape: tuple[int, ...]
    count: int
    seen: int
    held: int
    low: float
    high: float
    mean: float
    std: float
    shift: float
    scale: float
    parts: tuple[Part, ...]
    missing: float
    step: float
    constant: int
    effective: float | None
    widest: float
    spacing: Spacing
    copies: int
    leaked: int
    near_expected: float | None
    near_held: float
    classes: tuple[str, ...]
    balance: tuple[int, ...]
    unlabelled: int

    @property
    def dimension(self) -> int:
        """How many numbers an item has."""
        return math.prod(self.shape)

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, as plain values that JSON keeps."""
        return {**asdict(self), "dimension": self.dimension, "quantiles": QUANTILES}

    def __str__(self) -> str:
        """One page of text."""
        lines = _page(self)
        width = max(len(name) for name, _ in lines) + 2
        return "\n".join(f"{name:<{width}}{text}".rstrip() for name, text in lines)


def describe(source: Source, seed: int = 0, name: str = "the data set") -> Facts:
    """Look at an opened data set: a few seconds for 60,000 images, and the same answer for the same `seed`.

    A training split of more than 134 million numbers is looked at in part (`Streamed`), and so is a held-out split of
    more than a quarter of that; distances are taken on the subset that `Spacing` names, the covariance on 4,096 items.
    Raises: ValueError, its sentence beginning with `name`, for fewer than 2 training items.
    """
    info = source.info
    x, labels = source.train()
    if len(x) < 2:
        raise ValueError(f"{name} has {len(x)} item to train on, too few to take scales from; name a recipe")
    held, _ = source.some_held(max(2, MOST // 4 // math.prod(info.shape)), seeded(seed, _SUBSET))
    flat, held = x.flatten(1), held.flatten(1)
    gone = flat.isnan().double().mean(0) if info.incomplete else torch.zeros(flat.shape[1], dtype=torch.float64)
    if info.incomplete:
        middle = flat.nanmean(0)
        flat, held = (torch.where(y.isnan(), middle, y) for y in (flat, held))
    low, high, mean, variance = _moments(flat)
    gaps = spacing(flat, seed)
    median = gaps.nearest[QUANTILES.index(0.5)]
    some = permutation(len(flat), seeded(seed, _COVARIANCE))[:_SAMPLE]
    here, there = _alike(source, flat, held, seed)
    known, d = set(here), gaps.intrinsic
    return Facts(
        kind=info.kind,
        shape=tuple(info.shape),
        count=info.count,
        seen=len(flat),
        held=len(held),
        low=float(low.min()),
        high=float(high.max()),
        mean=float(mean.mean()),
        std=info.std,
        shift=info.shift,
        scale=info.scale,
        parts=_parts(torch.stack((gone, low, high, mean, variance)), info),
        missing=float(gone.mean()),
        step=_step(flat),
        constant=int((low == high).sum()),
        effective=effective_dimension(flat[some]),
        widest=widest(flat[some[:_WIDE]]),
        spacing=gaps,
        copies=len(here) - len(known),
        leaked=sum(one in known for one in there),
        near_expected=None if d is None else -math.expm1(-math.log(2) * 10**-d),
        near_held=float((strays(held, flat, seed) <= median / 10).double().mean()) if len(held) else 0.0,
        classes=tuple(info.classes),
        balance=_balance(labels, len(info.classes)),
        unlabelled=0 if labels is None else int((labels < 0).sum()),
    )


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least, most, mean and variance of each coordinate of `(M, N)`, in float64, a few rows at a time."""
    low, high = x.amin(0).double(), x.amax(0).double()
    tiles = torch.split(x, max(1, 2**20 // x.shape[1]))
    mean = torch.stack([t.sum(0, dtype=torch.float64) for t in tiles]).sum(0) / len(x)
    return low, high, mean, torch.stack([(t - mean).square().sum(0) for t in tiles]).sum(0) / len(x)


def _parts(columns: Tensor, info: Info) -> tuple[Part, ...]:
    """Coordinates pooled into channels or columns: from the share missing, the ends, mean and variance, `(5, N)`."""
    if isinstance(info, TableInfo):
        named = [(c.name, _column(c), c.width) for c in info.columns]
    else:
        word, each = ("coordinate", 1) if len(info.shape) == 1 else ("channel", math.prod(info.shape[1:]))
        named = [(f"{word} {i}", "", each) for i in range(info.shape[0])]
    found = []
    for (name, what, width), part in zip(named, torch.split(columns, [n for *_, n in named], 1), strict=True):
        if not width:
            found.append(Part(name, what, 0.0, 0.0, 0.0, 0.0, 0.0))
            continue
        gone, low, high, mean, variance = part
        centre = mean.mean()
        std = (variance + (mean - centre).square()).mean().sqrt()
        ends = (gone.mean(), low.min(), high.max(), centre, std)
        found.append(Part(name, what, *(float(v) for v in ends)))
    return tuple(found)


def _column(column: Column) -> str:
    """A column of a table in the user's words."""
    if isinstance(column, Number):
        low, high = column.range
        return f"{column.dtype}, {low:g} to {high:g}"
    if isinstance(column, Category):
        order = sorted(zip(column.shares.tolist(), map(str, column.values), strict=True), reverse=True)
        most = ", ".join(f"{name} {share:.0%}" for share, name in order[:4])
        return f"{len(order)} values: {most}{', ...' if len(order) > 4 else ''}"
    return "constant"


def _step(x: Tensor) -> float:
    """The least gap between distinct values of `(M, N)`, if there are few of them and each is common; else 0.

    Taken from whole rows, so that every coordinate has its part.
    """
    some = x[:: max(1, x.numel() // _VALUES)]
    values = torch.unique(some)
    rounded = 1 < len(values) <= min(4096, some.numel() / 16)
    return float(values.double().diff().min()) if rounded else 0.0


def _alike(source: Source, train: Tensor, held: Tensor, seed: int) -> tuple[list[Any], list[Any]]:
    """A key for each item of the two splits that equal items share.

    That of a row of a table is by its cells as the user has them: what a model sees of equal ones is dequantised.
    """
    if not isinstance(source, TableSource):
        return _digests(train), _digests(held)
    import pandas as pd

    rows = source.rows("held-out")
    rows = rows.iloc[permutation(len(rows), seeded(seed, _SUBSET))[: len(held)].numpy()]  # as `some_held` chooses
    both = pd.concat((source.rows("train"), rows), ignore_index=True)
    keys = both.groupby(list(both.columns), dropna=False, observed=True, sort=False).ngroup().tolist()
    return keys[: len(train)], keys[len(train) :]


def _digests(x: Tensor) -> list[bytes]:
    """One short digest per item; 0 and -0 are equal."""
    return [hashlib.blake2b((row + 0.0).tobytes(), digest_size=16).digest() for row in x.float().numpy()]


def _balance(labels: Tensor | None, classes: int) -> tuple[int, ...]:
    if labels is None or not classes:
        return ()
    return tuple(torch.bincount(labels[labels >= 0], minlength=classes).tolist())


def _page(f: Facts) -> list[tuple[str, str]]:
    """The lines of the page: a name and what is said of it."""
    size = "x".join(map(str, f.shape))
    count = f"{f.count:,} to train on" if f.count else "drawn afresh at every step"
    looked = "" if f.seen == f.count else f" ({f.seen:,} looked at)"
    s = f.spacing
    lines = [
        ("items", f"{count}{looked}, {f.held:,} held out; each is {f.kind} {size}, {f.dimension:,} numbers"),
        (
            "values",
            f"{_user(f, f.low)} to {_user(f, f.high)}, mean {_user(f, f.mean)}, deviation {f.std * f.scale:.4g}",
        ),
    ]
    if (f.shift, f.scale) != (0, 1):
        lines.append(("", f"the model sees {f.low:.4g} to {f.high:.4g}, mean {f.mean:.4g}, deviation {f.std:.4g}"))
    if len(f.parts) > 1:
        for p in f.parts[:_SHOWN]:
            said = p.what or f"{p.low:.4g} to {p.high:.4g}, mean {p.mean:.4g}, deviation {p.std:.4g}"
            lines.append((f"  {p.name}", said + (f"; {p.missing:.1%} missing" if p.missing else "")))
        if len(f.parts) > _SHOWN:
            lines.append(("", f"and {len(f.parts) - _SHOWN} more (--json has them all)"))
    rounding = f"values are rounded to steps of {f.step:.4g}" if f.step else "values are not rounded"
    lines.append(("", f"{rounding}; {f.constant:,} of {f.dimension:,} coordinates never change"))
    return lines + _geometry(f, s) + _copies(f) + _classes(f)


def _geometry(f: Facts, s: Spacing) -> list[tuple[str, str]]:
    said = [f"{f.effective:.3g} by covariance (participation ratio)" if f.effective is not None else ""]
    said.append(f"{s.intrinsic:.3g} by nearest neighbours" if s.intrinsic is not None else "")
    heads = "".join(f"{'least' if q == 0 else 'most' if q == 1 else f'{q:.0%}':>9}" for q in QUANTILES)
    return [
        ("dimension", f"{' and '.join(t for t in said if t) or 'too few items to say'}, of {f.dimension:,}"),
        ("distances", heads),
        ("  nearest", "".join(f"{v:>9.3g}" for v in s.nearest)),
        ("  any two", "".join(f"{v:>9.3g}" for v in s.pairwise)),
        ("", f"from {s.items:,} items to {s.among:,}, in the model's units; the nearest of 1,024 items are"),
        ("", f"{s.crowding:.3g} times as far as in a Gaussian of the same covariance"),
    ]


def _copies(f: Facts) -> list[tuple[str, str]]:
    chance = "" if f.near_expected is None else f" ({f.near_expected:.2%} by chance)"
    return [
        (
            "copies",
            f"{f.copies:,} training items repeat another; {f.leaked:,} held-out items are in the training split",
        ),
        (
            "  near",
            f"{f.spacing.near:.2%} of training items{chance}, {f.near_held:.2%} of held-out items: within a tenth of",
        ),
        ("", "the median nearest distance of a training item"),
    ]


def _classes(f: Facts) -> list[tuple[str, str]]:
    if not f.balance:
        return [("classes", "none")]
    total = sum(f.balance)
    most = sorted(zip(f.balance, f.classes, strict=True), reverse=True)
    shown = ", ".join(f"{name} {n / total:.1%}" for n, name in most[:_SHOWN])
    rest = f", and {len(most) - _SHOWN} more down to {most[-1][0] / total:.1%}" if len(most) > _SHOWN else ""
    missing = f"; {f.unlabelled:,} items without a label" if f.unlabelled else ""
    return [("classes", f"{len(f.classes)}: {shown}{rest}{missing}")]


def _user(f: Facts, value: float) -> str:
    return f"{f.shift + f.scale * value:.4g}"
