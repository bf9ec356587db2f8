"""The lines of a run's log: one after every so many steps, the same whether the run was interrupted or not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..files import write_text

NAME = "log.jsonl"


@dataclass
class Window:
    """The mean loss over the steps since the last line; steps that were skipped have none.

    `mean` is that of the last line, NaN before the first. A run's state keeps it all, so that the next line of a run
    that goes on is that of one that never stopped.
    """

    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    count: int = 0
    mean: float = math.nan

    @classmethod
    def of(cls, saved: Mapping[str, Tensor]) -> Window:
        """That of a saved state, or a new one where it has none, as at the start from another run's weights."""
        if "window/total" not in saved:
            return cls()
        return cls(saved["window/total"], int(saved["window/count"]), float(saved["window/mean"]))

    def add(self, loss: Tensor) -> None:
        """Count the loss of one step, on its device, where nothing waits for it."""
        self.total, self.count = self.total.to(loss.device) + loss, self.count + 1

    def close(self) -> None:
        """Take the mean, and begin anew."""
        if self.count:
            self.mean, self.total, self.count = float(self.total) / self.count, torch.zeros(()), 0

    def tensors(self) -> dict[str, Tensor]:
        """What `of` reads, to be saved with the state."""
        count, mean = torch.tensor(self.count), torch.tensor(self.mean, dtype=torch.float64)
        return {"window/total": self.total, "window/count": count, "window/mean": mean}


def trim(path: Path, step: int) -> None:
    """Drop the lines after `step`, which the run will say again, and a last line torn by a kill."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        write_text(path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
