"""Training, on one page.

`train` is a generator: it yields after every step, and the caller decides what a step is worth (print it, log it, save
a checkpoint, draw samples, stop). Step k depends on (seed, k) alone, so there is no random state to save and a resumed
run is the unbroken one, bit for bit. A batch is cut into (processes x accumulate) pieces with streams of their own: two
processes take the steps of one that accumulates twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from .. import ranks
from ..data.base import Source
from ..data.stream import ahead
from ..objective.base import Batch
from ..recipe import Recipe
from ..rng import ambient, seeded
from .checkpoint import optimizer_tensors, pack, restore_optimizer, unpack
from .ema import average_of, follow

_DATA, _NOISE, _DROPOUT = (0, 0), (1, 0), (2, 0)  # the streams of one piece of one step
_BEHIND_THE_RECIPE = {
    "ACCELERATE_MIXED_PRECISION": "training.precision",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "training.accumulate",
    "ACCELERATE_DYNAMO_BACKEND": "training.compile",
    "ACCELERATE_USE_FSDP": "--fsdp",
    "ACCELERATE_USE_DEEPSPEED": "--fsdp",
    "ACCELERATE_USE_MEGATRON_LM": "--fsdp",
}


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
                "Lower the learning rate, or check the data, or the process: noise with tails as heavy as those of "
                "PFGMPP below D = 0.3 and Fractional below beta = 0.2 does not fit float32"
            )
        self.pending = None


@dataclass
class Step:
    """What a step leaves behind. `loss` is the mean over the batch, on the device: reading it waits for the step.
    `norm` is that of the gradient before clipping; `averages` are by their `sigma_rel`."""

    step: int
    loss: Tensor
    lr: float
    norm: Tensor
    model: nn.Module
    averages: dict[float, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    guard: Guard
    blank: Callable[[], nn.Module] | None = None

    @property
    def average(self) -> nn.Module:
        """The first of the averages: the one that is drawn from."""
        return next(iter(self.averages.values()))

    def whole(self) -> Step:
        """This step with its averages in one piece: itself, unless they are split over the processes (`fsdp`).

        Every process asks at once. `blank` makes a network for the pieces to be put together in.
        """
        if self.blank is None:
            return self
        averages = {}
        for sigma_rel, split in self.averages.items():
            averages[sigma_rel] = average_of(self.blank())
            averages[sigma_rel].load_state_dict({k: ranks.whole(v) for k, v in split.state_dict().items()})
        return replace(self, averages=averages)

    def tensors(self) -> dict[str, Tensor]:
        """All that `train` needs to go on from here, as named tensors, whole; every process asks at once.

        Raises: FloatingPointError if this step was not finite: what is kept is always sound.
        """
        self.guard.flush()
        memories = {f"optimizer{i}": optimizer_tensors(o) for i, o in enumerate(self.optimizers)}
        counts = {"step": torch.tensor(self.step), "skipped": torch.tensor(self.guard.skipped)}
        averages = {f"average{i}": average.state_dict() for i, average in enumerate(self.averages.values())}
        named = pack({"model": self.model.state_dict(), **averages, "count": counts, **memories})
        return {name: ranks.whole(tensor) for name, tensor in named.items()}


def strength(step: int, steps: int, warmup: int, decay: float) -> float:
    """The learning rate at a step, as a share of the full one: up over `warmup`, level, down over the last `decay`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (steps - step) / (decay * steps)) if decay else 1.0
    return min(rise, fall)


def train(
    recipe: Recipe,
    source: Source,
    saved: Mapping[str, Tensor] | None = None,
    device: str = "",
    fsdp: bool = False,
) -> Iterator[Step]:
    """Train the recipe's network on `source`, yielding after every step.

    `recipe` is resolved and says how many steps; `saved` are the tensors of a `Step` to go on from. `device` is "cpu",
    "cuda" or "" for the best there is. The yielded `model` and `averages` are denoisers. Where several processes are
    `joined`, each calls this, with data that it opened itself, and takes its share of every batch; with `fsdp` the
    weights, the averages and the optimiser's memory are split over them as well.
    Raises: FloatingPointError naming the step and seed when a loss is not finite; ValueError where the batch does not
    divide evenly.
    Source: Zhao et al. 2023, for `fsdp`. [zhao2023fsdp]
    """
    plan = recipe.training
    if plan.steps is None:
        raise ValueError("train needs the number of steps; set training.steps")
    pieces = shared(recipe, fsdp)
    accelerator = _accelerator(device)
    where = accelerator.device
    wanted = "cpu" if device == "cpu" or not (device or torch.cuda.is_available()) else device or "cuda"
    if torch.device(wanted).type != where.type:
        raise ValueError(
            f"training would run on {where}, not on {wanted!r}, which is not here or not free to choose now"
        )
    build = partial(_built, recipe, where)
    model = build()
    averages = {sigma_rel: average_of(model) for sigma_rel in plan.ema}
    start, guard = 0, Guard(plan.seed, plan.skip)
    if saved is not None:
        model.load_state_dict(unpack(saved, "model"))
        for i, average in enumerate(averages.values()):
            average.load_state_dict(unpack(saved, f"average{i}"))
    if fsdp:
        for module in (model, *averages.values()):
            _split(module, where)
    optimizers = plan.optimizer.build(model)
    if saved is not None:
        for i, optimizer in enumerate(optimizers):
            restore_optimizer(optimizer, unpack(saved, f"optimizer{i}"))
        start, guard.skipped = int(saved["count/step"]), int(saved["count/skipped"])
    blank = build if fsdp else None
    full = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    compiled = torch.compile(model, fullgraph=True) if plan.compile else model
    trained: Any = model if fsdp else accelerator.prepare_model(compiled)
    mine = range(ranks.rank() * plan.accumulate, (ranks.rank() + 1) * plan.accumulate)

    each, reference = plan.batch // pieces, recipe.objective.reference

    def draw(step: int, piece: int) -> tuple[Tensor, Tensor | None]:
        return source.draw(max(each, reference), seeded(plan.seed, *_DATA, piece, step, device=where))

    drawn = ahead(draw, range(start, plan.steps), mine, source.slow, where)
    for step in range(start, plan.steps):
        share = strength(step, plan.steps, plan.warmup, plan.decay)
        for optimizer, rates in zip(optimizers, full, strict=True):
            for group, lr in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * share
        total = torch.zeros((), device=where)
        for piece in mine:
            x, label = next(drawn)
            rng = seeded(plan.seed, *_NOISE, piece, step, device=where)
            last = piece == mine[-1]
            if fsdp:
                trained.set_requires_gradient_sync(last)
            with nullcontext() if last or fsdp else accelerator.no_sync(trained):
                with ambient(plan.seed, *_DROPOUT, piece, step, device=where):
                    losses = recipe.objective({"denoiser": trained}, Batch.of(x, label, each, reference), rng)
                loss = losses.mean() / plan.accumulate
                accelerator.backward(loss)
            total += loss.detach()
        total = ranks.mean(total)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if ranks.count() > 1 and len(gradients) < sum(p.requires_grad for p in model.parameters()):
            idle = next(name for name, p in model.named_parameters() if p.requires_grad and p.grad is None)
            raise ValueError(f"the loss does not depend on {idle!r}, so several processes cannot share its gradient")
        norm = torch.nn.utils.get_total_norm(gradients)
        if plan.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), plan.clip, norm)
        norm = ranks.whole(norm)
        if guard.check(step + 1, total + norm):
            for optimizer in optimizers:
                optimizer.step()
        for sigma_rel, average in averages.items():
            follow(average, model, step + 1, sigma_rel)
        for optimizer in optimizers:
            optimizer.zero_grad()
        if step + 1 == plan.steps:
            guard.flush()
        yield Step(step + 1, total, plan.optimizer.lr * share, norm, model, averages, optimizers, guard, blank)


def _accelerator(device: str) -> Accelerator:
    """accelerate's choice of device and its data parallelism; what else its settings can do is the recipe's to say."""
    for name, own in _BEHIND_THE_RECIPE.items():
        if (value := os.environ.get(name, "").lower()) not in ("", "0", "1", "no", "false"):
            raise ValueError(f"{name}={value} would go behind the recipe's back; launch without it, and use {own}")
    return Accelerator(cpu=device == "cpu")


def _built(recipe: Recipe, where: torch.device) -> nn.Module:
    """The untrained denoiser: the same on every process."""
    with ambient(recipe.training.seed, *_DROPOUT):
        model = recipe.denoiser().to(where)
    return model.to(memory_format=torch.channels_last) if recipe.training.channels_last else model  # type: ignore


def shared(recipe: Recipe, fsdp: bool) -> int:
    """The number of pieces in which the processes and `accumulate` cut a batch.

    Raises: ValueError for a batch that does not divide evenly; for a reference that is smaller than a piece, or larger
    than the data; with `fsdp`, for what needs the weights whole, or where there is one process.
    """
    plan, count = recipe.training, ranks.count()
    pieces = count * plan.accumulate
    if plan.batch % pieces:
        raise ValueError(
            f"training.batch={plan.batch} does not divide evenly over {count} processes with "
            f"accumulate={plan.accumulate}; choose a multiple of {pieces}, such as {-(-plan.batch // pieces) * pieces}"
        )
    each, reference = plan.batch // pieces, recipe.objective.reference
    if 0 < reference < each:
        raise ValueError(
            f"the reference of {reference} items is smaller than the {each} that a process learns from at a time, "
            f"which it must contain; set objective.reference to at least {each}, or training.accumulate higher"
        )
    if recipe.info is not None and 0 < recipe.info.count < reference:
        raise ValueError(
            f"the reference of {reference} items is larger than the training split of {recipe.info.count}; "
            f"set objective.reference to at most {recipe.info.count}"
        )
    if fsdp and count == 1:
        raise ValueError("fsdp splits the weights over several processes, but there is one; start it with torchrun")
    if fsdp and (plan.compile or not plan.optimizer.elementwise):
        name = "compile" if plan.compile else type(plan.optimizer).__name__
        raise ValueError(f"{name} needs the weights whole, so it does not go with fsdp; leave one of the two out")
    return pieces


def _split(model: nn.Module, where: torch.device) -> FSDPModule:
    """Split each weight over the processes, along its first axis, to be whole only while the network runs."""
    return fully_shard(model, mesh=init_device_mesh(where.type, (ranks.count(),)))
