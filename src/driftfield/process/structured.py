"""Gaussian processes as structured linear maps: what VP, critically damped Langevin and blurring have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..linear import Linear, flat
from ..rng import Rng, device_of, normal
from .base import SCRATCH, Process, check_climb


class GaussianProcess(Process):
    """A process with `x_t = A_t x_0 + R_t eps`, `eps ~ N(0, I)`, both structured: `dx = F_t x dt + G_t dw`.

    Maps at a time `()` act on every row; at times `(B,)` there is one map per row. They are kept in float64.
    Source: Zhang et al. 2023, Sec. 2 and 3. [zhang2023gddim]
    """

    @property
    def flowing(self) -> bool:
        """Whether `root` solves `dR/dt = F R + G G^T R^-T / 2`: then `eps` stays fixed along the flow of one datum."""
        return True

    @abstractmethod
    def signal(self, t: Tensor) -> Linear:
        """`A_t`, on a lifted datum."""

    @abstractmethod
    def transition(self, t: Tensor, s: Tensor) -> Linear: ...

    @abstractmethod
    def root(self, t: Tensor) -> Linear:
        """`R_t`, the map that turns `eps` into the noise of `x_t`: a square root of `covariance`."""

    @abstractmethod
    def covariance(self, t: Tensor) -> Linear:
        """`Sigma_t = R_t R_t^T`, the covariance of `x_t` given `x_0`."""

    @abstractmethod
    def drift(self, t: Tensor) -> Linear:
        """`F_t`: the rate at which the mean moves."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Linear:
        """`G_t G_t^T`: the rate at which noise is added."""

    @abstractmethod
    def gain(self, t: Tensor, s: Tensor) -> Linear:
        """A square root of `Sigma_t - Psi(t, s) Sigma_s Psi(t, s)^T`: the noise added from `s` up to `t >= s`."""

    @abstractmethod
    def observe(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(w, g)` with `w = g modes(x_0) + N(0, I)`: all that `x_t = x` says of the datum, at unit noise.

        `w` is `(B, *data)`, like `x` in type; `g` broadcasts to it. Both are finite where no signal is left (`g = 0`).
        """

    def modes(self, x0: Tensor) -> Tensor:
        """Data `(B, *data)` in the orthonormal coordinates of `observe`. A hook: the data themselves."""
        return x0

    def from_modes(self, z: Tensor) -> Tensor:
        """The inverse of `modes`, and its transpose."""
        return z

    def prior(self, shape: Sequence[int], rng: Rng, dtype: torch.dtype = torch.float32) -> Tensor:
        x0 = torch.zeros(*shape, dtype=dtype, device=device_of(rng))
        return self.perturb(x0, torch.tensor(self.span[1], dtype=torch.float64), rng)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        return self.log_noise(x, torch.tensor(self.span[1], dtype=torch.float64))

    def log_noise(self, x: Tensor, t: Tensor) -> Tensor:
        """The log-density of `R_t eps`, the state of the datum 0, at `x`: `(B,)`, nats."""
        covariance = self.covariance(t)
        square = flat(x * covariance.inv(x)).sum(1)
        n = flat(x).shape[1]
        return -(square + covariance.log_det(x).to(square) + n * math.log(2 * math.pi)) / 2

    def perturb(self, x0: Tensor, t: Tensor, rng: Rng) -> Tensor:
        state = self.lift(x0)
        return self.signal(t)(state) + self.root(t)(normal(state, rng))

    def log_kernel(self, x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """By differences, which do not cancel, of a few data at a time."""
        w, g = self.observe(x, t)
        rows, scale = flat(w)[:, None], flat(g.expand(w.shape))[:, None]
        size = max(1, SCRATCH // max(1, w.numel()))
        parts = torch.split(flat(self.modes(x0.to(w))), size)
        return -torch.cat([(rows - scale * part).square().sum(2) for part in parts], 1) / 2

    def eps(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The noise that carries the data `y` to the state `x` at `t`: `R_t^-1 (x - A_t y)`."""
        return self.root(t).inv(x - self.signal(t)(self.lift(y)))

    def score(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The gradient of `log p_t` at `x`, given `y = E[x_0 | x_t = x]`: `-R_t^-T eps` (Tweedie)."""
        return -self.root(t).inv.T(self.eps(x, t, y))

    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """`F x - G G^T score / 2`."""
        pull = self.diffusion(t).scale(0.5) @ self.covariance(t).inv
        return self.drift(t)(x) + pull(x - self.signal(t)(self.lift(y)))

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        """Draw `x_t` given `x_s = x`, for `t >= s`: the noise of `gain` on the faded state.

        Exact:  the marginal law at `t` follows to rounding.
        Raises: ValueError for `t < s`, where the times are on the CPU.
        Source: Xu et al. 2023, forward step. [xu2023restart]
        """
        check_climb(s, t)
        return self.transition(t, s)(x) + self.gain(t, s)(normal(x, rng))
