"""Another data set as a user's autoencoder codes it: what large images are trained in."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import write
from ..plain import to_plain
from .autoencoder import Autoencoder
from .base import Data, Info, Source, alike
from .stored import Stored

_PART = 256  # items encoded at a time


@dataclass(frozen=True)
class LatentInfo(Info):
    """What a code is, and the way back: `decode(shifts + scales * x)` by channel is a sample of `inner`.

    `shape` is that of a code, `(C, ...)`; `shifts` and `scales` have one number for each channel. A user's values are
    the inner kind's: `to_user` decodes on the device of its samples.
    """

    inner: Info = field(kw_only=True)
    autoencoder: Autoencoder = field(kw_only=True)
    shifts: tuple[float, ...] = field(kw_only=True)
    scales: tuple[float, ...] = field(kw_only=True)

    @property
    def seen(self) -> Info:
        return self.inner

    def decode(self, x: Tensor) -> Tensor:
        self._check(x)
        shift, scale = _by_channel(self.shifts, x), _by_channel(self.scales, x)
        return self.autoencoder.decode((shift + scale * x.double()).float())

    def encode(self, x: Tensor) -> Tensor:
        """The inverse of `decode`, as near as the autoencoder comes: samples of `inner` as codes `(n, *shape)`."""
        z = self.autoencoder.encode(x)
        return ((z.double() - _by_channel(self.shifts, z)) / _by_channel(self.scales, z)).float()

    def to_user(self, x: Tensor) -> Any:
        return self.inner.to_user(self.decode(x))

    def to_model(self, values: npt.ArrayLike) -> Tensor:
        return self.encode(self.inner.to_model(values))


@dataclass(frozen=True)
class Latent(Data):
    """The codes of `data` under `autoencoder`, each channel brought to mean 0 and deviation 1 over the training split.

    All items are encoded once, on the accelerator if there is one, when the data are opened, and held in memory; the
    splits and the classes are the inner data's. `cache` is a file to keep the codes in: it is written where it is not
    there yet, and read where it is and holds these codes. Of a law that is drawn afresh, its fixed sample is encoded.
    Source: Rombach et al. 2022, Sec. 3. [rombach2022latent]
    """

    data: Data
    autoencoder: Autoencoder
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.cache is not None:
            object.__setattr__(self, "cache", os.path.abspath(self.cache))

    def load(self) -> Source:
        """Raises: what the inner data raise; ValueError or TypeError for an autoencoder that cannot be used, codes
        that are not finite or constant in a channel, and a cache that holds other codes."""
        inner, autoencoder = self.data.load(), self.autoencoder.opened()
        key, std = _key(self.data, inner.info, autoencoder.digest), inner.info.std
        path = None if self.cache is None else Path(self.cache)
        if path is not None and path.exists():
            tensors = _cached(path, key, std)
        else:
            tensors = _encoded(inner, autoencoder)
            if path is not None:
                write(path, lambda part: save_file(tensors, part, {"key": key, "std": str(std)}))
        return Encoded(inner, autoencoder, tensors)


class Encoded(Stored):
    """The opened codes of another source, which stays at hand as `seen`."""

    def __init__(self, inner: Source, autoencoder: Autoencoder, tensors: dict[str, Tensor]):
        """`tensors` are the codes `train` and `held`, and where there are labels `train_label` and `held_label`."""
        train, held = tensors["train"], tensors["held"]
        shifts, scales = _moments(train)
        codes = torch.cat((train, held))
        codes = ((codes - _by_channel(shifts, codes)) / _by_channel(scales, codes)).float()
        label = torch.cat((tensors["train_label"], tensors["held_label"])) if "train_label" in tensors else None
        items = torch.arange(len(codes))
        super().__init__(
            codes,
            kind="latent",
            held=(items[: len(train)], items[len(train) :]),
            labels=label,
            classes=inner.info.classes,
            shift=0.0,
            scale=1.0,
        )
        self.info = LatentInfo(
            **vars(self.info), inner=inner.info, autoencoder=autoencoder, shifts=shifts, scales=scales
        )
        self._inner = inner

    @property
    def seen(self) -> Source:
        return self._inner.seen


def _by_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device).reshape(-1, *[1] * (like.ndim - 2))


def _moments(z: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each channel of codes `(M, C, ...)`, in float64."""
    bad = int((~z.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"the autoencoder gives codes that are NaN or infinite for {bad} of {len(z)} training items")
    channels = [channel.double() for channel in z.unbind(1)]
    shifts, scales = [float(c.mean()) for c in channels], [float(c.std(correction=0)) for c in channels]
    dead = [i for i, scale in enumerate(scales) if not scale > 0]
    if dead:
        raise ValueError(
            f"channel {dead[0]} of the codes is the same for all training items, so there is nothing in it"
        )
    return tuple(shifts), tuple(scales)


def _encoded(inner: Source, autoencoder: Autoencoder) -> dict[str, Tensor]:
    from rich.console import Console
    from rich.progress import track

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, list[Tensor]] = {}

    def put(split: str, x: Tensor, label: Tensor | None) -> None:
        z = autoencoder.encode(x.to(device)).cpu()
        if z.ndim < 2 or len(z) != len(x):
            raise ValueError(
                f"the autoencoder makes codes of shape {tuple(z.shape)} of {len(x)} items; expected (B, C, ...)"
            )
        found.setdefault(split, []).append(z)
        if label is not None:
            found.setdefault(f"{split}_label", []).append(label)

    total = -(-inner.info.count // _PART) or None
    quiet = not sys.stderr.isatty() or (total or 1) < 4
    console = Console(stderr=True)
    for x, label in track(inner.parts(_PART), "Encoding", total=total, console=console, disable=quiet, transient=True):
        put("train", x, label)
    put("held", *inner.held())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _key(data: Data, info: Info, digest: str) -> str:
    """What the codes depend on: the inner data as described and as opened, and the autoencoder's numbers.

    The data's `std` is left to `_cached`: its last digits are no part of what they are (`alike`).
    """
    return hashlib.sha256(json.dumps([to_plain(data), to_plain(replace(info, std=1.0)), digest]).encode()).hexdigest()


def _cached(path: Path, key: str, std: float) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            if notes.get("key") == key and alike(float(notes.get("std", "nan")), std):
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as cached codes ({error}); remove it, or name another file") from None
    raise ValueError(
        f"{path} holds the codes of other data or of another autoencoder; remove it, or name another file as the cache"
    )
