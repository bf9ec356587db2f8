"""Training, on one page.

`train` is a generator: it yields after every step, and the caller decides what a step is worth (print it, log it, save
a checkpoint, draw samples, stop). Step k depends on (seed, k, rank) alone, so there is no random state to save and a
resumed run is the unbroken one, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data.base import Source
from ..objective.base import Batch
from ..recipe import Recipe
from ..rng import ambient, seeded
from .checkpoint import optimizer_tensors, pack, restore_optimizer, unpack
from .ema import average_of, follow

_DATA, _NOISE, _DROPOUT = 0, 1, 2  # the streams of one step


@dataclass
class Guard:
    """Stops at a non-finite loss, one step late so that nothing waits; or skips such steps, and counts them."""

    seed: int
    allowed: int
    skipped: int = 0
    pending: tuple[int, Tensor] | None = None

    def check(self, step: int, health: Tensor) -> bool:
        """Note the health (loss plus gradient norm) of a step; say whether the step may be taken."""
        if self.allowed == 0:
            self.flush()
            self.pending = (step, health)
            return True
        if health.isfinite().item():
            return True
        self.skipped += 1
        if self.skipped > self.allowed:
            raise FloatingPointError(
                f"{self.skipped} steps had a loss or gradient that is not finite, the last at step {step}; "
                f"skip={self.allowed} allows no more (seed {self.seed} reproduces it)"
            )
        return False

    def flush(self) -> None:
        """Read the health of the last step."""
        if self.pending is not None and not self.pending[1].isfinite().item():
            raise FloatingPointError(
                f"the loss or its gradient is not finite at step {self.pending[0]}; seed {self.seed} reproduces it. "
                "Lower the learning rate, or check the data"
            )
        self.pending = None


@dataclass
class Step:
    """What a step leaves behind. `loss` is the mean over the batch, on the device: reading it waits for the step."""

    step: int
    loss: Tensor
    lr: float
    model: nn.Module
    average: nn.Module
    optimizers: list[torch.optim.Optimizer]
    guard: Guard

    def tensors(self) -> dict[str, Tensor]:
        """All that `train` needs to go on from here, as named tensors.

        Raises: FloatingPointError if this step was not finite: what is kept is always sound.
        """
        self.guard.flush()
        memories = {f"optimizer{i}": optimizer_tensors(o) for i, o in enumerate(self.optimizers)}
        counts = {"step": torch.tensor(self.step), "skipped": torch.tensor(self.guard.skipped)}
        groups = {"model": self.model.state_dict(), "average": self.average.state_dict(), "count": counts}
        return pack({**groups, **memories})


def strength(step: int, steps: int, warmup: int, decay: float) -> float:
    """The learning rate at a step, as a share of the full one: up over `warmup`, level, down over the last `decay`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (steps - step) / (decay * steps)) if decay else 1.0
    return min(rise, fall)


def train(
    recipe: Recipe, source: Source, saved: Mapping[str, Tensor] | None = None, device: str = ""
) -> Iterator[Step]:
    """Train the recipe's network on `source`, yielding after every step.

    `recipe` is resolved and says how many steps; `saved` are the tensors of a `Step` to go on from. `device` is "cpu",
    "cuda" or "" for the best there is. The yielded `model` and `average` are denoisers.
    Raises: FloatingPointError naming the step and seed when a loss is not finite.
    """
    plan = recipe.training
    if plan.steps is None:
        raise ValueError("train needs the number of steps; set training.steps")
    accelerator = Accelerator(cpu=device == "cpu")
    where = accelerator.device
    wanted = "cpu" if device == "cpu" or not (device or torch.cuda.is_available()) else device or "cuda"
    if torch.device(wanted).type != where.type:
        raise ValueError(
            f"training would run on {where}, not on {wanted!r}, which is not here or not free to choose now"
        )
    with ambient(plan.seed, _DROPOUT, 0):
        model = recipe.denoiser().to(where)
    if plan.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = average_of(model)
    optimizers = plan.optimizer.build(model)
    start, guard = 0, Guard(plan.seed, plan.skip)
    if saved is not None:
        model.load_state_dict(unpack(saved, "model"))
        average.load_state_dict(unpack(saved, "average"))
        for i, optimizer in enumerate(optimizers):
            restore_optimizer(optimizer, unpack(saved, f"optimizer{i}"))
        start, guard.skipped = int(saved["count/step"]), int(saved["count/skipped"])
    full = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    trained = accelerator.prepare_model(torch.compile(model, fullgraph=True) if plan.compile else model)
    part, rank = plan.batch // plan.accumulate, accelerator.process_index

    for step in range(start, plan.steps):
        share = strength(step, plan.steps, plan.warmup, plan.decay)
        for optimizer, rates in zip(optimizers, full, strict=True):
            for group, lr in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * share
        total = torch.zeros((), device=where)
        for piece in range(plan.accumulate):
            x, label = source.draw(part, seeded(plan.seed, _DATA, rank, piece, step, device=where))
            rng = seeded(plan.seed, _NOISE, rank, piece, step, device=where)
            with ambient(plan.seed, _DROPOUT, rank, piece, step, device=where):
                losses = recipe.objective({"denoiser": trained}, Batch(x, label), rng)
            loss = losses.mean() / plan.accumulate
            last = piece + 1 == plan.accumulate
            with nullcontext() if last else accelerator.no_sync(trained):
                accelerator.backward(loss)
            total += loss.detach()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if plan.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), plan.clip, norm)
        if guard.check(step + 1, total + norm):
            for optimizer in optimizers:
                optimizer.step()
            follow(average, model, (step + 1) * plan.batch, plan.batch, plan.ema_halflife, plan.ema_rampup)
        for optimizer in optimizers:
            optimizer.zero_grad()
        if step + 1 == plan.steps:
            guard.flush()
        yield Step(step + 1, total, plan.optimizer.lr * share, model, average, optimizers, guard)
