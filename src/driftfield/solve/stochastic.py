"""Solvers that add noise on the way down: the reverse-time process and its relatives.

On a process with one noise level every one of them is two exact moves: the deterministic step to a level below its
goal, then the process's own noise up to the goal. For Gaussian noise that is stochastic DDIM to the letter; for
Student's t it is the only one that keeps the law, since noise of another shape does not add up to Student's t.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..field.base import Field
from ..linear import expand
from ..process.base import Isotropic
from ..process.gaussian import GaussianProcess
from ..process.poisson import LEAST_CLIMB
from ..rng import Rng, normal
from .base import Solver, reversal
from .exponential import held
from .renoise import noisy_step


class _Renoised(Solver):
    """One evaluation a step: down to `below(level_t, level_s)`, and up to `level_s` by the process's own noise."""

    order = 1
    noisy = True

    @abstractmethod
    def below(self, begin: Tensor, end: Tensor) -> Tensor:
        """The level to go down to, at most `end`, on a step from the level `begin` to `end`."""

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1

    def _isotropic(self, field: Field, process: Isotropic, x: Tensor, t: Tensor, s: Tensor, rng: Rng) -> Tensor:
        check_descent(self, t, s)
        if s == 0:
            return field.arrive(x, t)
        y, level = reversal(field).predict(x, t), process.level(s)
        low = self.below(process.level(t), level)
        if low == level:
            return held(process, x, y, t, s)
        if isinstance(process, GaussianProcess):  # the two moves in one, also below the least level of the process
            old, new = process.alpha(s) * low, process.alpha(s) * ((level - low) * (level + low)).sqrt()
            mean = expand(process.alpha(s), x) * y + old * process.eps(x, t, y)
            return mean + reversal(field).s_noise * new * normal(x, rng)
        if low > level * (1 - LEAST_CLIMB):  # less noise than the move can draw
            return held(process, x, y, t, s)
        goal = process.time(low)
        return field.diffuse(held(process, x, y, t, goal), goal, s, rng)


@dataclass(frozen=True)
class ReverseSDE(_Renoised):
    """The reverse-time process with noise `lam` times its own: 0 is the deterministic flow, 1 the reversal in law.

    The estimate of the data is held over the step and everything else is exact (stochastic gDDIM; stochastic DDIM on
    scalar processes). Processes whose noise is Student's t get its own noise, hence keep their law at any `lam`.
    Raises: ValueError for a negative or infinite `lam`; TypeError for a field that is not the reversal of a process,
            or one that has neither one level nor Gaussian noise.
    Source: Zhang et al. 2023, Eqs. 20 to 23. [zhang2023gddim]
    """

    lam: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lam < float("inf"):
            raise ValueError(f"lam is the strength of the noise, a finite number >= 0, got {self.lam}")

    def below(self, begin: Tensor, end: Tensor) -> Tensor:
        return end * (end / begin) ** (self.lam**2)

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        process = reversal(field).process
        if isinstance(process, Isotropic):
            return self._isotropic(field, process, x, t, s, rng), None
        check_descent(self, t, s)
        if not isinstance(process, GaussianProcess):
            raise TypeError(f"ReverseSDE needs Gaussian noise or one noise level, which {type(process).__name__} lacks")
        rest, noise = noisy_step(process, self.lam, t.item(), s.item())
        lifted = process.lift(reversal(field).predict(x, t))
        mean = process.signal(s)(lifted) + rest(x - process.signal(t)(lifted))
        return (mean if self.lam == 0 else mean + reversal(field).s_noise * noise(normal(x, rng))), None


@dataclass(frozen=True)
class Ancestral(_Renoised):
    """DDIM with a share of fresh noise: `eta` 0 is deterministic, 1 draws from the posterior of DDPM.

    Raises: ValueError for `eta` outside [0, 1]; TypeError for a process without one level for all directions.
    Source: Song et al. 2021, Eq. 16. [song2021ddim]
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is a share of the noise in [0, 1], got {self.eta}")

    def below(self, begin: Tensor, end: Tensor) -> Tensor:
        ratio = end / begin
        return end * (1 - self.eta**2 * (1 - ratio) * (1 + ratio)).sqrt()

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        process = reversal(field).process
        if not isinstance(process, Isotropic):
            raise TypeError(
                f"ancestral sampling needs one noise level for all directions, which {type(process).__name__} lacks; "
                "use df.ReverseSDE(lam=1), which is the same where there is one"
            )
        return self._isotropic(field, process, x, t, s, rng), None


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """The plain discretisation of the reverse-time process with noise `lam` times its own; one evaluation a step.

    Kept to compare with; `ReverseSDE` is exact where this is of first order. A step to time 0 is the denoiser's
    estimate.
    Raises: ValueError for a negative or infinite `lam`; TypeError where the process has no score (finite D).
    Source: Song et al. 2021, App. D. [song2021score]
    """

    lam: float = 1.0
    order = 1
    noisy = True

    def __post_init__(self) -> None:
        if not 0 <= self.lam < float("inf"):
            raise ValueError(f"lam is the strength of the noise, a finite number >= 0, got {self.lam}")

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return 1

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        check_descent(self, t, s)
        if s == 0:
            return field.arrive(x, t), None
        process, y = reversal(field).process, reversal(field).predict(x, t)
        pull = process.score(x, t, y)
        if not isinstance(process, GaussianProcess):
            raise TypeError(f"Euler-Maruyama needs Gaussian noise; write {process} as df.EDM(span={process.span})")
        if not process.level(t).isfinite():
            raise ValueError(
                f"{type(process).__name__} keeps no signal at time {t:g}, where its noise grows without bound; "
                "begin the path lower, or use df.ReverseSDE()"
            )
        rate = process.diffusion(t)
        h = t - s
        x = x - h * process.velocity(x, t, y) + rate.scale(self.lam**2 / 2)(h * pull)
        return x + rate.factor(reversal(field).s_noise * self.lam * h.sqrt() * normal(x, rng)), None


@dataclass(frozen=True)
class Langevin(Solver):
    """After each step of `inner`, `steps` moves of Langevin's equation at the level reached, one evaluation each.

    What `inner` remembers is forgotten, as at a climb: the moves leave the path on which it was found.
    A move is `x + d Sigma score + sqrt(2 d) R z` with `d = 2 snr^2`, `Sigma = R R^T` the covariance of the noise; none
    at time 0. (The source measures `|z|^2 / |score|^2` in place of the variance, over a batch; by rows that is biased.)
    Raises: ValueError for fewer than one step or a `snr` not above 0; TypeError where the process has no score.
    Source: Song et al. 2021, Algs. 4 and 5. [song2021score]
    """

    inner: Solver
    steps: int = 1
    snr: float = 0.16
    noisy = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.snr < float("inf"):
            raise ValueError(f"Langevin takes steps >= 1 and a finite snr > 0, got steps={self.steps}, snr={self.snr}")

    @property
    def order(self) -> int:  # type: ignore[override]
        """That of `inner`."""
        return self.inner.order

    def init(self) -> Any:
        return None

    def evaluations(self, t: Tensor, s: Tensor, fresh: bool) -> int:
        return self.inner.evaluations(t, s, True) + (0 if s == 0 else self.steps)

    def step(self, field: Field, x: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        check_descent(self, t, s)
        x, _ = self.inner.step(field, x, t, s, self.inner.init(), rng)
        if s == 0:
            return x, None
        process = reversal(field).process
        root = process.root(s)
        for _ in range(self.steps):
            score = process.score(x, s, reversal(field).predict(x, s))
            x = x + 2 * self.snr**2 * root(root.T(score)) + 2 * self.snr * root(normal(x, rng))
        return x, None


def check_descent(solver: Solver, t: Tensor, s: Tensor) -> None:
    """Raise a ValueError unless the step goes down: noise is only added on the way to less of it."""
    if s > t:
        raise ValueError(
            f"{type(solver).__name__} adds noise on the way down and cannot go up from {t:g} to {s:g}; encode data "
            "with a solver without noise, such as df.DEIS() or df.Heun()"
        )
