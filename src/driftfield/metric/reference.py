"""A reference measured once: its features and their moments, in a file that later scores find again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..files import write
from .features import Features
from .frechet import Moments
from .mmd import Within
from .sides import Side

_FORMAT = 1  # of the files; another number makes other names, so that old files are not found


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are compared with: its features, or moments alone, and the record of how they were taken.

    `record` holds `features`, `resize`, `split` and `n_reference`, None where a file does not say. `file` is where
    `kept` keeps it.
    """

    side: Side
    record: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @classmethod
    def of(cls, x: Tensor, features: Features, split: str = "held-out") -> Reference:
        """Measure `x`, `(n, *shape)`, which is the part of some data that `split` says."""
        return cls(
            Side(features(x)),
            {"features": features.name, "resize": features.resize, "split": split, "n_reference": len(x)},
        )

    def check(self, features: Features) -> None:
        """Raise a ValueError where this was measured on other features than those given."""
        for name, own in (("features", features.name), ("resize", features.resize)):
            if self.record.get(name) not in (None, own):
                raise ValueError(
                    f"the reference was measured with {name} {self.record[name]!r}, the samples with {own!r}; "
                    "measure both alike"
                )

    def save(self, path: Path) -> None:
        """Write it to a `.safetensors` file, whole or not at all. Raises: OSError; ValueError without features."""
        if self.side.rows is None:
            raise ValueError("a reference of mean and covariance alone is not kept again; keep the file it came from")
        tensors = {"features": self.side.rows.cpu().contiguous()}
        notes = {"record": json.dumps(self.record)}
        for sums in self.side.sums:
            tensors["kernel"] = sums.rows.cpu()
            notes["pure"] = repr(sums.pure)

        def make(part: Path) -> None:
            try:
                safetensors.torch.save_file(tensors, part, metadata=notes)
            except safetensors.SafetensorError as error:  # how safetensors reports a full disk
                raise OSError(str(error)) from error

        write(path, make)

    def keep(self) -> None:
        """Add to its file, if it has one, KID's sums where they were found since: a minute's work for 60,000 rows."""
        if self.file is None or not self.side.sums:
            return
        with suppress(OSError, safetensors.SafetensorError):  # the file went, or the disk is full: that costs time
            with safetensors.safe_open(self.file, "pt") as file:
                there = "pure" in (file.metadata() or {})
            if not there:
                self.save(self.file)

    @staticmethod
    def read(path: str | Path) -> Reference:
        """A file that `save` wrote, or a `.npz` with `mu` `(F,)` and `sigma` `(F, F)`, as kept for FID.

        Nothing is unpickled. Raises: FileNotFoundError, or ValueError for any other file or damaged ones.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no reference file {path}")
        if path.suffix.lower() == ".npz":
            return _statistics(path)
        try:
            with safetensors.safe_open(path, "pt") as file:
                notes = file.metadata() or {}
                record, rows = json.loads(notes["record"]), file.get_tensor("features")
                sums = [Within(file.get_tensor("kernel"), float(notes["pure"]))] if "pure" in notes else []
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"{path} is not a reference file ({error}); expected one that driftfield kept, or a .npz with mu "
                "and sigma"
            ) from None
        return Reference(Side(rows, sums=sums), record)


def _statistics(path: Path) -> Reference:
    try:
        with np.load(path, allow_pickle=False) as found:
            mean, covariance = (torch.from_numpy(np.asarray(found[k], dtype=np.float64)) for k in ("mu", "sigma"))
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a file of FID statistics ({error}); expected arrays mu and sigma") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{path}: mu should be (F,) and sigma (F, F), got {tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    return Reference(Side(None, [Moments.given(mean, covariance)]), {"split": path.name})


def kept(folder: Path, x: Tensor, features: Features, split: str = "held-out") -> Reference:
    """`Reference.of`, from a file in `folder` where it was measured before, and else kept there.

    Files are named by a digest of the numbers in `x`, the features with their weights and resize rule, and the split,
    so that nothing else is ever found. Features without a digest, such as raw values, are measured and not kept; nor
    are any where the folder cannot be written. Raises: what `features` raises.
    """
    if features.digest is None:
        return Reference.of(x, features, split)
    state = hashlib.sha256(np.ascontiguousarray(x.detach().cpu().numpy()).data)
    words = (_FORMAT, tuple(x.shape), str(x.dtype), features.name, features.digest, features.resize, split)
    state.update(repr(words).encode())
    path = folder / f"reference-{state.hexdigest()[:32]}.safetensors"
    with suppress(ValueError, OSError):  # not there, or damaged: measured anew
        found = Reference.read(path)
        if found.side.rows is not None and len(found.side.rows) == len(x):
            return Reference(found.side.to(x.device), found.record, path)
    made = replace(Reference.of(x, features, split), file=path)
    with suppress(OSError):  # a full or read-only cache costs time, not the score
        made.save(path)
    return made
