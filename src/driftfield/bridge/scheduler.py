"""Driftfield's solvers as a scheduler of the diffusers library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..adapt.diffusers import MISSING, is_flow, mean_of, training
from ..adapt.model import read
from ..generation import USUAL, Plan, plan
from ..grid import named_grid, restart
from ..linear import expand
from ..plain import from_plain
from ..process.base import Isotropic, Process
from ..rng import Rng, integers, seeded
from ..solve.auto import named_solver
from .turns import Turns

try:
    from diffusers import ConfigMixin, SchedulerMixin
    from diffusers.configuration_utils import register_to_config
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerOutput
except ImportError:
    raise ImportError(MISSING) from None


_PICTURE = (1, 1, 1)  # (C, H, W): what pipelines make, of a size that a scheduler never learns


class DriftfieldScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A scheduler for diffusers pipelines that walks Driftfield's paths with its solvers.

    `pipe.scheduler = DriftfieldScheduler.from_config(pipe.scheduler.config, solver="deis")` is all; what the model was
    trained on is read from the configuration that it replaces. A pipeline's `num_inference_steps` is the number of
    evaluations of the model: at most that many are made, whatever the solver. A path begins at the most noise that the
    model knows and ends without noise, unless the pipeline gives `timesteps` or `sigmas`.

    Image-to-image pipelines start in the middle, which has to be between two moves of the solver. Noise comes from the
    pipeline's `generator`, or torch's own where there is none; without a climb and with a solver that adds none,
    nothing is drawn. The arithmetic of half-precision models is in float32.
    Raises: ValueError for an unknown solver or grid, for a solver that chooses its own steps, for too few evaluations,
            for a start inside a move and for settings of diffusers that change the estimate (thresholding).
    """

    _compatibles = [*(kind.name for kind in KarrasDiffusionSchedulers), "FlowMatchEulerDiscreteScheduler"]  # noqa: RUF012
    order = 1

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        set_alpha_to_one: bool = True,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        solver: str = "deis",
        grid: str = "natural",
        restarts: Sequence[Sequence[float]] = (),
        process: Mapping[str, Any] | None = None,
    ):
        """The last four are Driftfield's, by name, with `restarts` the `levels` of `df.restart`; the rest diffusers'.

        `process` is a process of Driftfield in plain form, whose own times are the timesteps, and the model then
        predicts data; where it is None, the other arguments say what the model was trained on.
        """
        if thresholding:
            raise ValueError("dynamic thresholding is not supported; give thresholding=False")
        named_grid(grid)
        self._training = training(dict(self.config)) if process is None else None
        self.process: Isotropic = from_plain(process) if self._training is None else self._training.process
        top = _double(self.process.span[1])
        self.init_noise_sigma = self.process.sigma(top).item() if self._training is None else 1.0
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1, dtype=torch.float32)
        self._turns: Turns | None = None

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        return_unused_kwargs: bool = False,
        *,
        solver: str | None = None,
        grid: str | None = None,
        restarts: Sequence[Sequence[float]] | None = None,
    ) -> Any:
        """The scheduler for a model trained as `config` says, the configuration of a diffusers scheduler or of this."""
        given = {"solver": solver, "grid": grid, "restarts": restarts}
        told = {k: v for k, v in given.items() if v is not None}
        if is_flow(config, str(config.get("_class_name", ""))):
            told["prediction_type"] = "flow_prediction"
        return super().from_config(dict(config), return_unused_kwargs, **told)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Plan a path of at most `num_inference_steps` evaluations; or walk given `timesteps` or `sigmas`, to the end.

        `sigmas` are levels, or times of flow matching, which are then shifted; `mu` is the shift of models that want
        one for each resolution. `self.timesteps` is what the model is to be called with, in turn.
        """
        if timesteps is not None and sigmas is not None:
            raise ValueError("give timesteps or sigmas, not both")
        shift = self._shift(mu)
        if timesteps is not None:
            path: Any = self._ended(self._time(_double(list(timesteps))))
        elif sigmas is not None:
            path = self._ended(self._of_sigmas(_double([v for v in sigmas if v > 0]), shift))
        else:
            path = self._builder(shift, USUAL if num_inference_steps is None else num_inference_steps)
        nfe = num_inference_steps if timesteps is None and sigmas is None else None
        route = plan(self.process, solver=self.config.solver, nfe=nfe, grid=path, shape=_PICTURE)
        if route.solver.adaptive:
            raise ValueError(f"solver {self.config.solver!r} chooses its own steps, which a pipeline cannot follow")
        self._turns = Turns(self.process, route, self._rng)
        self._starts, self._times, self._draws = _rehearsed(self.process, route)
        self._labels = self._label(torch.stack(self._times))
        self.timesteps = self._labels.to(torch.float32).to(device or "cpu")
        self.num_inference_steps = len(self.timesteps)
        self._given: Tensor | None = None
        self._at: int | None = None
        self._begin: int | None = None
        self._seeds: list[int] | None = None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """The place in `timesteps` at which the pipeline begins."""
        self._begin = begin_index

    @property
    def begin_index(self) -> int | None:
        """The place in `timesteps` at which the pipeline begins, where it said so."""
        return self._begin

    @property
    def step_index(self) -> int | None:
        """How many evaluations have been given; None before the first."""
        return self._at

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample as it is: the model is called with states of its own process."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Rng | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Take the model's output at `sample` and `timestep`; return the next state to call it with, or the last.

        Raises: ValueError before `set_timesteps`, after the last step, and for a start inside a move of the solver.
        """
        if self._turns is None:
            raise ValueError("call set_timesteps before the first step")
        working = torch.promote_types(sample.dtype, torch.float32)
        if self._at is None:
            self._at = self._index(timestep)
            self._seeds = self._drawn(generator, sample)
            self._device = sample.device
            self._turns.begin(sample.to(working), self._starts[self._at])
        elif self._turns.asked is None:
            raise ValueError("the path has ended; call set_timesteps to walk another")
        elif sample is not self._given and self._at in self._starts:  # the pipeline changed it
            self._turns.swap(sample.to(working))
        x = self._turns.asked if sample is self._given and self._turns.asked is not None else sample.to(working)
        y = self._mean(x, self._times[self._at], mean_of(model_output, sample).to(working))
        self._turns.tell(y)
        self._at += 1
        self._given = (self._turns.x if self._turns.asked is None else self._turns.asked).to(sample.dtype)
        return SchedulerOutput(prev_sample=self._given) if return_dict else (self._given,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`alpha x_0 + sigma eps` at the `timesteps`, `()` or one per row."""
        t = self._time(timesteps.double())
        a, s = (expand(curve(t), original_samples) for curve in (self.process.alpha, self.process.sigma))
        return a * original_samples + s * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` by the name that pipelines of flow matching know."""
        return self.add_noise(sample, noise, timestep)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    def _label(self, t: Tensor) -> Tensor:
        return t if self._training is None else self._training.label(t)

    def _time(self, label: Tensor) -> Tensor:
        return label if self._training is None else self._training.time(label)

    def _mean(self, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
        y = out if self._training is None else read(self.process, self._training.predicts, x, t, out)
        most = self.config.clip_sample_range
        return y.clamp(-most, most) if self.config.clip_sample else y

    def _shift(self, mu: float | None) -> float:
        if not self.config.use_dynamic_shifting:
            return float(self.config.shift)
        if mu is None:
            raise ValueError("this model shifts its times by the resolution, so set_timesteps needs mu")
        return math.exp(mu) if self.config.time_shift_type == "exponential" else mu

    def _of_sigmas(self, sigmas: Tensor, shift: float) -> Tensor:
        if self._training is None or not self._training.flow:
            return self.process.time(sigmas)
        return self.process.time(shift * self.process.level(sigmas))

    def _ended(self, times: Tensor) -> Tensor:
        """The given times and the end: no noise, or the least that the table knows, as `set_alpha_to_one` says."""
        clean = self.config.set_alpha_to_one and self.process.level(_double(0.0)) == 0
        last = 0.0 if clean else self.process.span[0]
        return torch.cat((times, _double([last]))) if times[-1] > last else times

    def _builder(self, shift: float, nfe: int) -> Callable[..., Tensor]:
        own = named_solver(self.config.solver, self.process, nfe, _PICTURE)[1]
        make = own if self.config.grid == "natural" else named_grid(self.config.grid)
        levels = [(int(p), int(k), a, b) for p, k, a, b in self.config.restarts]

        def build(process: Process, steps: int) -> Tensor:
            path = make(process, steps)
            path = path if shift == 1 else process.time(shift * process.level(path))
            return restart(path, levels, process=process) if levels else path

        return build

    def _index(self, timestep: Any) -> int:
        at = self._begin
        if at is None:
            same = (self._labels.float() == float(timestep)).nonzero()
            if not len(same):
                raise ValueError(f"timestep {float(timestep):g} is not one of this path; begin with one of `timesteps`")
            at = int(same[0])
        if at not in self._starts:
            near = min(self._starts, key=lambda k: abs(k - at))
            raise ValueError(
                f"evaluation {at} is inside a move of solver {self.config.solver!r}, where a path cannot begin; begin "
                f"at {near}, by another strength, or use a solver of one evaluation a step"
            )
        return at

    def _drawn(self, generator: Rng | None, like: Tensor) -> list[int] | None:
        """Seeds for the noise of the moves, one for all rows or one each; None if the path draws nothing."""
        if not self._draws:
            return None
        if generator is None:
            generator = torch.default_generator
        each = [generator] if isinstance(generator, torch.Generator) else generator
        zero = [torch.empty(1, device=g.device) for g in each]
        return [int(integers(z, 2**31, g)) for z, g in zip(zero, each, strict=True)]

    def _rng(self, k: int) -> Rng:
        if self._seeds is None:
            return torch.Generator()  # from which nothing is drawn
        each = [seeded(seed, k, device=self._device) for seed in self._seeds]
        return each[0] if len(each) == 1 else each


def _rehearsed(process: Process, route: Plan) -> tuple[dict[int, int], list[Tensor], bool]:
    """Walk a path without a model: which evaluations begin a move, the time of each, and whether noise is drawn."""
    used: list[torch.Generator] = []

    def rng(k: int) -> torch.Generator:
        used.append(seeded(0, k))
        return used[-1]

    turns = Turns(process, route, rng)
    starts: dict[int, int] = {}
    times: list[Tensor] = []
    turns.begin(torch.ones(1, 1, dtype=torch.float64))
    while turns.asked is not None:
        if turns.fresh and torch.allclose(turns.asked, turns.x):  # and not at a state of the solver's own making
            starts[len(times)] = turns.k
        times.append(turns.t)
        turns.tell(torch.zeros_like(turns.asked))
    drawn = any(not torch.equal(g.get_state(), seeded(g.initial_seed()).get_state()) for g in used)
    return starts, times, drawn


def _double(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)
