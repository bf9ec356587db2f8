"""Models of the diffusers library, with what their scheduler's configuration says of how they were trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..names import pick
from ..process.base import Isotropic
from ..process.discrete import DiscreteVP
from ..process.gaussian import Rectified
from .model import Adapted, check_prediction

MISSING = "this works with models of the diffusers library: pip install 'driftfield[diffusers]'"
_PREDICTIONS = {"epsilon": "noise", "sample": "data", "v_prediction": "v", "flow_prediction": "flow"}
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")


@dataclass(frozen=True)
class Training:
    """What a model was trained on: its process, what it predicts of it, and the number its labels count to.

    A label is what the model is called with: under flow matching the time times `steps`, else the step of the table,
    0 the least noise; between two steps it is a fraction, which sinusoidal embeddings take as well as whole numbers.
    """

    process: Isotropic
    predicts: str
    steps: int

    @property
    def flow(self) -> bool:
        """Whether this is flow matching."""
        return isinstance(self.process, Rectified)

    def label(self, t: Tensor) -> Tensor:
        """What the model is called with at the times `t`."""
        return t * self.steps if self.flow else t - 1

    def whole(self, t: Tensor) -> Tensor:
        """The nearest whole label, int64: for models that know nothing between two steps."""
        return self.label(t).round().clamp(0, self.steps - 1).long()

    def time(self, label: Tensor) -> Tensor:
        """The time at which the model is called with `label`."""
        return label / self.steps if self.flow else label + 1


def training(scheduler: Any) -> Training:
    """What the configuration of a diffusers scheduler says of the training.

    `scheduler` is one, its `config`, or the dictionary of a `scheduler_config.json`. Flow matching is told by the name
    of the class, by a prediction of "flow_prediction" and by `use_flow_sigmas`; all else is variance preserving.
    Raises: ValueError for a configuration of another kind, and a prediction that there is not; ImportError without
            diffusers.
    """
    config, name = configuration(scheduler)
    steps = int(config.get("num_train_timesteps", 1000))
    if is_flow(config, name):
        return Training(Rectified(), "flow", steps)
    if "sigma_data" in config or ("beta_schedule" not in config and config.get("trained_betas") is None):
        raise ValueError(
            f"the configuration of {name or 'this scheduler'} has no betas, and is not of flow matching; "
            "adapt the model itself with df.Adapted(model, process, predicts)"
        )
    predicts = pick(str(config.get("prediction_type", "epsilon")), _PREDICTIONS, "prediction_type")
    process = DiscreteVP.of(_signal(config))
    check_prediction(process, predicts)
    return Training(process, predicts, steps)


def configuration(scheduler: Any) -> tuple[dict[str, Any], str]:
    """The configuration of a scheduler as a dictionary, and the name of its class, "" if it does not say."""
    config = dict(scheduler if isinstance(scheduler, Mapping) else scheduler.config)
    name = "" if isinstance(scheduler, Mapping) else type(scheduler).__name__
    return config, str(config.get("_class_name", name))


def is_flow(config: Mapping[str, Any], name: str = "") -> bool:
    """Whether a scheduler's configuration is of flow matching."""
    named = "FlowMatch" in name or config.get("prediction_type") == "flow_prediction"
    return bool(named or config.get("use_flow_sigmas") or ("shift" in config and "beta_schedule" not in config))


def _signal(config: Mapping[str, Any]) -> Tensor:
    """The table of alphas_cumprod in float64, as diffusers computes it.

    Where the last is 0 (`rescale_betas_zero_snr`), a quarter of the one before stands for it, at most the 2^-24 of
    diffusers' own multistep schedulers: a level, and as good as no signal.
    """
    try:
        from diffusers import DDPMScheduler
    except ImportError:
        raise ImportError(MISSING) from None
    try:
        scheduler = DDPMScheduler(**{k: config[k] for k in _BETAS if k in config})
    except NotImplementedError:
        raise ValueError(f"diffusers knows no beta_schedule {config.get('beta_schedule')!r}") from None
    table: Tensor = scheduler.alphas_cumprod.double()
    return torch.where(table == 0, (table.roll(1) / 4).clamp(max=2.0**-24), table)


def from_diffusers(model: nn.Module, scheduler: Any, *, whole: bool = False) -> tuple[Isotropic, Adapted]:
    """A diffusers model and its scheduler (or that one's configuration) as a process and its denoiser.

    `model` is one called by `model(x, timestep=...)`: `UNet2DModel`, `UNet2DConditionModel`, `DiTTransformer2DModel`
    and other transformers. A condition is a mapping of further arguments by name, or one tensor: for the argument
    `encoder_hidden_states` where the model has it, else for `class_labels`; one row serves all samples. A model that
    also predicts variances returns twice the channels; they are dropped. With `whole` it is called at the nearest whole
    step. Raises: ValueError as `training`, and for an output of another shape.
    """
    trained = training(scheduler)
    label = trained.whole if whole else trained.label
    names = inspect.signature(model.forward).parameters
    main = "encoder_hidden_states" if "encoder_hidden_states" in names else "class_labels"
    return trained.process, Adapted(model, trained.process, trained.predicts, label, partial(_asked, main))


def _asked(main: str, model: nn.Module, x: Tensor, label: Tensor, cond: Any) -> Tensor:
    given = {} if cond is None else cond if isinstance(cond, Mapping) else {main: cond}
    out = model(x, timestep=label, **{k: _for_all(v, len(x)) for k, v in given.items()})
    return mean_of(out if isinstance(out, Tensor) else out[0], x)


def _for_all(value: Any, rows: int) -> Any:
    """A tensor of one row as one of `rows`: a prompt that all samples share."""
    shared = isinstance(value, Tensor) and value.ndim > 0 and len(value) == 1
    return value.expand(rows, *value.shape[1:]) if shared else value


def mean_of(out: Tensor, x: Tensor) -> Tensor:
    """The first half of the channels where `out` has twice those of `x`: the rest are variances."""
    return out[:, : x.shape[1]] if out.ndim > 1 and out.shape[1] == 2 * x.shape[1] else out
