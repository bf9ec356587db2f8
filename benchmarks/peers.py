"""Samplers of diffusers and k-diffusion, each on its own terms, walking one and the same flow: for `solvers.py`.

The flow is that of `x = x_0 + sigma eps`: `denoise(x, sigma)`, float64 sigma `()`, is the estimate of the data, `x` the
start at the level `high`, and the walk ends at the data. A peer that knows variance preserving states only (a table of
`alphas_cumprod`) gets the same state times alpha, a table of 1000 levels of the process itself, and is asked what the
data are at the level that it stands at, without rounding to a whole step.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """What a peer is given: the levels of the process at 1000 even times, least first, the estimate, the start."""

    levels: Tensor  # (1000,) float64
    denoise: Denoise
    start: Tensor

    @property
    def low(self) -> float:
        """The least level."""
        return self.levels[0].item()

    @property
    def high(self) -> float:
        """The level of the start."""
        return self.levels[-1].item()

    @property
    def betas(self) -> list[float]:
        """The variances whose running product is `1 / (1 + level^2)`."""
        log = -torch.log1p(self.levels.square())
        before = torch.cat((log.new_zeros(1), log[:-1]))
        return (-torch.expm1(log - before)).tolist()


Walk = Callable[[Problem, int], Tensor | None]  # None where the number of evaluations does not suit the method


def tabled(name: str, **settings: Any) -> Walk:
    """A scheduler of variance preserving states that keeps its levels in `sigmas`."""

    def walk(problem: Problem, nfe: int) -> Tensor | None:
        idle = name.startswith("DEIS") and ("use_karras_sigmas" in settings or "use_exponential_sigmas" in settings)
        scheduler = make(name, trained_betas=problem.betas, prediction_type="sample", **settings)
        scheduler.set_timesteps(nfe + idle)  # its last step there has no length: not counted
        x = problem.start / math.hypot(1, problem.high)
        for i, t in enumerate(scheduler.timesteps[: len(scheduler.timesteps) - idle]):
            sigma = scheduler.sigmas[i].double()
            x = scheduler.step(problem.denoise(x * torch.hypot(torch.ones_like(sigma), sigma), sigma), t, x).prev_sample
        last = scheduler.sigmas[-1].item()
        return x * math.hypot(1, last)

    return walk


def ddim(problem: Problem, nfe: int) -> Tensor:
    """DDIMScheduler, with the spacing that begins at the last time."""
    scheduler = make(
        "DDIMScheduler",
        trained_betas=problem.betas,
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(nfe)
    x = problem.start / math.hypot(1, problem.high)
    for t in scheduler.timesteps:
        signal = scheduler.alphas_cumprod[t].double()
        y = problem.denoise(x / signal.sqrt(), ((1 - signal) / signal).sqrt())
        x = scheduler.step(y, t, x).prev_sample
    return x


def leveled(name: str, twice: bool = False, **settings: Any) -> Walk:
    """A scheduler of states `x_0 + sigma eps` with a table, asked for the noise; `twice`: two evaluations a step."""

    def walk(problem: Problem, nfe: int) -> Tensor | None:
        if twice and nfe % 2 == 0:
            nfe -= 1  # an even number cannot be spent
        scheduler = make(name, trained_betas=problem.betas, prediction_type="epsilon", **settings)
        scheduler.set_timesteps((nfe + 1) // 2 if twice else nfe)
        x = problem.start
        for i, t in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[i].double()
            scheduler.scale_model_input(x, t)  # which it wants to be called; our estimate is of the state itself
            x = scheduler.step(((x - problem.denoise(x, sigma)) / sigma).to(x), t, x).prev_sample
        return x

    return walk


def edm(name: str, **settings: Any) -> Walk:
    """A scheduler that preconditions the model itself: it is given the output that stands for our estimate."""

    def walk(problem: Problem, nfe: int) -> Tensor:
        scheduler = make(name, sigma_min=problem.low, sigma_max=problem.high, **settings)
        scheduler.set_timesteps(nfe)
        x, zero = problem.start, torch.zeros_like(problem.start)
        for i, t in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[i].double()
            scheduler.scale_model_input(x, t)
            passed = scheduler.precondition_outputs(x, zero, sigma)  # c_skip x
            gain = scheduler.precondition_outputs(zero, torch.ones_like(x), sigma)  # c_out
            x = scheduler.step((problem.denoise(x, sigma) - passed) / gain, t, x).prev_sample
        return x

    return walk


def ipndm(problem: Problem, nfe: int) -> Tensor:
    """IPNDMScheduler, whose times are angles; with EDM's levels, which are better here than its own even angles."""
    fraction = torch.linspace(0, 1, nfe, dtype=torch.float64)
    levels = (problem.high ** (1 / 7) + fraction * (problem.low ** (1 / 7) - problem.high ** (1 / 7))) ** 7
    sines = torch.cat((levels / (1 + levels.square()).sqrt(), levels.new_zeros(1)))
    scheduler = make("IPNDMScheduler", trained_betas=sines.tolist())
    scheduler.set_timesteps(nfe)
    x = problem.start / math.hypot(1, problem.high)
    for i, t in enumerate(scheduler.timesteps):
        s, a = scheduler.betas[i].double(), scheduler.alphas[i].double()
        v = (a * x - problem.denoise(x / a, levels[i])) / s
        x = scheduler.step(v.to(x), t, x).prev_sample
    return x


def make(name: str, **settings: Any) -> Any:
    """A scheduler of diffusers by the name of its class."""
    diffusers = importlib.import_module("diffusers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(diffusers, name)(**settings)


def k_diffusion() -> Any:
    """The samplers of k-diffusion, or None where it is not installed.

    Only its file `sampling` is imported: the package as a whole wants libraries for training that samplers do not.
    """
    if "k_diffusion" not in sys.modules:
        spec = importlib.util.find_spec("k_diffusion")
        if spec is None or spec.submodule_search_locations is None:
            return None
        package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
        package.__path__ = list(spec.submodule_search_locations)
        utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]  # type: ignore[attr-defined]
        package.utils = utils  # type: ignore[attr-defined]
        sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    return importlib.import_module("k_diffusion.sampling")


def k_walk(name: str, spacing: str, twice: bool = False, **settings: Any) -> Walk:
    """A sampler of k-diffusion on its Karras or exponential levels."""

    def walk(problem: Problem, nfe: int) -> Tensor:
        k = k_diffusion()
        steps = (nfe + 1) // 2 if twice else nfe
        sigmas = getattr(k, f"get_sigmas_{spacing}")(steps, problem.low, problem.high)

        def model(x: Tensor, sigma: Tensor) -> Tensor:
            return problem.denoise(x, sigma[0].double())

        return getattr(k, name)(model, problem.start, sigmas, disable=True, **settings)

    return walk


KARRAS, EXPONENTIAL = {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}
EVEN = {"timestep_spacing": "linspace"}


def peers() -> dict[str, Walk]:
    """Every method of the peers with every spacing that it offers and that begins at the start, by name."""
    found: dict[str, Walk] = {"diffusers DDIM (trailing)": ddim, "diffusers iPNDM (karras)": ipndm}
    for label, spacing in (
        ("karras", KARRAS),
        ("exponential", EXPONENTIAL),
        ("even", EVEN),
    ):
        for order in (2, 3):
            found[f"diffusers DPM-Solver++ {order}M ({label})"] = tabled(
                "DPMSolverMultistepScheduler", solver_order=order, **spacing
            )
            found[f"diffusers UniPC {order} ({label})"] = tabled(
                "UniPCMultistepScheduler", solver_order=order, **spacing
            )
            found[f"diffusers DEIS {order} ({label})"] = tabled("DEISMultistepScheduler", solver_order=order, **spacing)
        found[f"diffusers Heun ({label})"] = leveled("HeunDiscreteScheduler", twice=True, **spacing)
    for label in ("karras", "exponential"):
        for order in (2, 3):
            found[f"diffusers EDM DPM-Solver++ {order}M ({label})"] = edm(
                "EDMDPMSolverMultistepScheduler", sigma_schedule=label, solver_order=order
            )
        found[f"diffusers EDM Euler ({label})"] = edm("EDMEulerScheduler", sigma_schedule=label)
    if k_diffusion() is not None:
        for spacing in ("karras", "exponential"):
            found[f"k-diffusion Heun ({spacing})"] = k_walk("sample_heun", spacing, twice=True)
            found[f"k-diffusion DPM2 ({spacing})"] = k_walk("sample_dpm_2", spacing, twice=True)
            found[f"k-diffusion DPM++ 2M ({spacing})"] = k_walk("sample_dpmpp_2m", spacing)
            found[f"k-diffusion LMS 4 ({spacing})"] = k_walk("sample_lms", spacing)
    return found
