"""What a process is: how data dissolve, and the flow that brings them back.

A process is a frozen value with no weights and no device. Its state at time `t` is `x_t = A_t x_0 + R_t eps` with
`eps` from a fixed law; see docs/equation.md. Times are the process's own; a *level* is `sigma / alpha`, the noise in
units of the data, and serves as the common clock of all processes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..linear import Linear, Scalar, expand, flat
from ..rng import Rng, device_of, normal

SCRATCH = 1 << 20  # differences held at a time: 8 MiB in float64
_USUAL = 4.0  # times its mean, the square of a state that no noise needs explaining


class Process(ABC):
    """How data dissolve as `t` runs from `span[0]` (least noise) to `span[1]` (most), and the flow back.

    Shapes: data `x0` are `(B, *data)`; a time is `()`, shared by all rows, or `(B,)`.
    """

    span: tuple[float, float]

    @abstractmethod
    def prior(self, shape: Sequence[int], rng: Rng, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw `x_T` at `T = span[1]`, of `shape` `(B, *data)`, on the generator's device."""

    @abstractmethod
    def prior_log_prob(self, x: Float[Tensor, B * data]) -> Float[Tensor, " B"]:
        """The log-density of `prior` at `x`, in nats."""

    @abstractmethod
    def perturb(self, x0: Float[Tensor, B * data], t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` from its law given `x_0 = x0`: a state."""

    @abstractmethod
    def log_kernel(self, x: Float[Tensor, B * data], t: Tensor, x0: Float[Tensor, M * data]) -> Float[Tensor, "B M"]:
        """`log p_t(x_b | x0_m)` up to a term that does not depend on `x0`."""

    def lift(self, x0: Tensor) -> Tensor:
        """Data `(B, *data)` as a state without noise. A hook: the data themselves, unless a process adds to them."""
        return x0

    def data(self, x: Tensor) -> Tensor:
        """The part of a state that is data, `(B, *data)`: what a walk ends with. A hook, beside `lift`."""
        return x

    def target(self, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """What a denoiser of this process predicts the mean of: `x0`, unless a process says otherwise."""
        return x0

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """`dx/dt` of the deterministic flow through `x`, given `y = E[target | x_t = x]`."""

    @abstractmethod
    def level(self, t: Tensor) -> Tensor:
        """The noise level `sigma_t / alpha_t`: standard deviation (or scale) of the noise, in units of the data."""

    @abstractmethod
    def time(self, level: Tensor) -> Tensor:
        """The time at which the noise has this `level`: the inverse of `level`."""

    def log_snr(self, t: Tensor) -> Tensor:
        """The logarithm of the signal-to-noise ratio `alpha_t^2 / sigma_t^2`."""
        return -2 * self.level(t).log()

    def apparent(self, x: Tensor, t: Tensor, sigma_data: float) -> Tensor:
        """The time that a network is told for the states `x`, `(B, *data)`, of data of deviation `sigma_data`.

        `t` itself; but see `Isotropic` for noise whose size the time does not tell.
        """
        return t

    def outward(self, x: Tensor, t: Tensor) -> Tensor | None:
        """The share `q` of a target that a network does not have to learn, `x - q (x - y)`; None for all.

        See `Isotropic` for targets that lie between a far state and the data.
        """
        return None

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` given `x_s = x`, for `t >= s`: the upward move of Restart and churn, exact in law.

        Raises: ValueError for `t < s`, where the times are on the CPU; TypeError where the process has no kernel
        between two noisy times.
        """
        raise TypeError(f"{type(self).__name__} has no kernel between two noisy times, so it cannot be diffused upward")

    def transition(self, t: Tensor, s: Tensor) -> Linear:
        """`Psi(t, s) = A_t A_s^-1`: how the mean moves from time `s` (second argument) to time `t` (first).

        Raises: TypeError where the mean does not move linearly.
        """
        raise TypeError(f"{type(self).__name__} is not a location-scale process, so it has no transition map")

    def score(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The gradient of `log p_t` at `x`, given `y = E[x_0 | x_t = x]`, where one follows from the other.

        Raises: TypeError where it does not.
        """
        raise TypeError(
            f"the score of {type(self).__name__} does not follow from E[x_0 | x_t]; "
            "`velocity` gives its flow, and `Empirical(process, data).score` the exact score of a finite data set"
        )


class Isotropic(Process):
    """`x_t = alpha_t x_0 + sigma_t eps`, with `eps` from one rotation-invariant law: two curves and a profile."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal's scale at `t`."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's scale at `t`."""

    @abstractmethod
    def log_profile(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        """The log-kernel, 0 at its centre, at `d2 = |x - alpha_t x_0|^2` in `n` dimensions; `t` broadcasts to `d2`."""

    @abstractmethod
    def log_peak(self, t: Tensor, n: int) -> Tensor:
        """The log-kernel at its centre, in `n` dimensions: what makes `log_profile` a normalised log-density."""

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the noise, where it is Student's t: infinite for the Gaussian.

        Raises: TypeError for any other law.
        """
        raise TypeError(f"the noise of {type(self).__name__} is not Student's t, so it has no degrees of freedom")

    @property
    def heavy(self) -> bool:
        """Whether the noise lacks a fourth moment, so that an average of squared errors would have no variance."""
        return False

    def apparent(self, x: Tensor, t: Tensor, sigma_data: float) -> Tensor:
        """`t`; for heavy noise, at a state longer than is usual at its level, a time `(B,)` at which it is usual.

        Far from the data the Student t is, towards each datum, nearly a Gaussian whose variance is the square of the
        distance over the dimensions: that is the level by which to scale. Scaled by the level of `t`, the targets and
        errors of its rare long draws have no variance (below two degrees of freedom no mean), and drown all others.
        A weight or a scale that depends on the state leaves the mean of the target what it is.
        """
        if not self.heavy:
            return t
        level, square = self.level(t.double()), flat(x).double().square().mean(1)
        usual = _USUAL * (level.square() + sigma_data**2)
        return self.time((level.square() + (square - usual).clamp(min=0)).sqrt()).to(t)

    def outward(self, x: Tensor, t: Tensor) -> Tensor | None:
        """For heavy noise whose target is not the datum: the pull at a distance of `|x|` from one, `(B,)`."""
        return self.pull(flat(x).square().sum(1), t, flat(x).shape[1]) if self.heavy else None

    def log_drop(self, d2: Tensor, rise: Tensor, t: Tensor, n: int) -> Tensor:
        """`log_profile(d2 + rise) - log_profile(d2)`. A hook: a closed form is exact where the two nearly cancel."""
        return self.log_profile(d2 + rise, t, n) - self.log_profile(d2, t, n)

    def pull(self, d2: Tensor, t: Tensor, n: int) -> Tensor | None:
        """The share of `x - x_0` by which the flow of one datum moves, `dx / dlog(level) = pull (x - x_0)`.

        A hook: None where it is 1 at every distance, as for location-scale laws. Where the shape of the noise changes
        with time it depends on `d2 = |x - x_0|^2`, and the target is no longer the datum. `t` broadcasts to `d2`.
        """
        return None

    def rate(self, d2: Tensor, t: Tensor, n: int) -> Tensor | None:
        """Births for each particle and unit of time by one datum at squared distance `d2`; negative for deaths.

        A hook: None where the process keeps its mass. `t` broadcasts to `d2`.
        """
        return None

    def target(self, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """`x - pull (x - x_0)`, so that the flow is `dx / dlog(level) = x - E[target | x]`: `x_0` itself at pull 1."""
        gap = x - x0
        pull = self.pull(flat(gap).square().sum(1), t, flat(gap).shape[1])
        return x0 if pull is None else x - expand(pull, x) * gap

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha'_t, sigma'_t)`. A hook: by differentiating the curves, unless a process knows a closed form."""
        return _slope(self.alpha, t), _slope(self.sigma, t)

    def log_kernel(self, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """By differences, which do not cancel, of a few data at a time: memory of a few times `x` or 16 MiB."""
        rows = flat(x)[:, None]
        a = expand(self.alpha(t), rows)
        size = max(1, SCRATCH // max(1, x.numel()))
        d2 = torch.cat([(rows - a * part).square().sum(2) for part in torch.split(flat(x0), size)], 1)
        return self.log_profile(d2, t[:, None] if t.ndim else t, rows.shape[2]).to(d2.dtype)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        t, rows = torch.tensor(self.span[1], dtype=torch.float64), flat(x)
        return self.log_profile(rows.square().sum(1), t, rows.shape[1]) + self.log_peak(t, rows.shape[1])

    def prior(self, shape: Sequence[int], rng: Rng, dtype: torch.dtype = torch.float32) -> Tensor:
        x0 = torch.zeros(*shape, dtype=dtype, device=device_of(rng))
        return self.perturb(x0, torch.tensor(self.span[1], dtype=torch.float64), rng)

    def noise(self, like: Tensor, rng: Rng) -> Tensor:
        """Draw `eps`, shaped like the batch `like`."""
        return normal(like, rng)

    def perturb(self, x0: Tensor, t: Tensor, rng: Rng) -> Tensor:
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * self.noise(x0, rng)

    def eps(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The noise that carries `y` to `x` at `t`: `(x - alpha_t y) / sigma_t`."""
        return (x - expand(self.alpha(t), x) * y) / expand(self.sigma(t), x)

    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """`alpha'_t y + sigma'_t eps`: the slope of the path along which `y` and `eps` stay fixed."""
        alpha, sigma = self.alpha(t), self.sigma(t)
        d_alpha, d_sigma = self.slopes(t)
        rate = d_sigma / sigma
        return expand(rate, x) * x + expand(d_alpha - rate * alpha, x) * y

    def transition(self, t: Tensor, s: Tensor) -> Linear:
        return Scalar(self.alpha(t) / self.alpha(s))

    def root(self, t: Tensor) -> Linear:
        """`R_t`, the map that turns `eps` into the noise of `x_t`."""
        return Scalar(self.sigma(t))

    def level(self, t: Tensor) -> Tensor:
        return self.sigma(t) / self.alpha(t)


class ByLevel(Isotropic):
    """Time is the noise level: `alpha = 1` and `sigma = t`. To be mixed in before the law of the noise."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)

    def time(self, level: Tensor) -> Tensor:
        return level


def _slope(curve: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    with torch.enable_grad():
        at = t.detach().requires_grad_()
        value = curve(at)
        return torch.autograd.grad(value.sum(), at)[0] if value.requires_grad else torch.zeros_like(t)


def check_span(span: tuple[float, float]) -> None:
    """Raise a ValueError unless `span` is an increasing pair of finite numbers, the first of them >= 0."""
    low, high = span
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low < high):
        raise ValueError(f"span must be (least, most) noise with 0 <= least < most, got {span}")


def check_end(process: Process) -> None:
    """Raise a ValueError unless `process` carries no noise at time 0, so that a path can end there."""
    if process.level(torch.tensor(0.0, dtype=torch.float64)).item() != 0:
        raise ValueError(
            f"{type(process).__name__} carries noise at time 0, so no path of it ends there; "
            f"end the path at span[0]={process.span[0]:g}"
        )


def check_climb(s: Tensor, t: Tensor) -> None:
    """Raise a ValueError unless `0 <= s <= t`.

    Times on an accelerator are taken on trust: looking at them would make the host wait.
    """
    if s.device.type == t.device.type == "cpu" and not bool(((s >= 0) & (t >= s)).all()):
        raise ValueError(f"an upward move needs 0 <= s <= t, got s={s.tolist()} and t={t.tolist()}")
