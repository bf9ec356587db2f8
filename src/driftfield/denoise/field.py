"""A network that learns the direction of the Poisson field in the data's space and one dimension more."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..linear import expand, flat
from ..process.poisson import PFGMPP
from .learned import Learned

_REACH = 4  # root mean square norms of the data, beyond which no posterior mean is believed


class FieldNetwork(Learned):
    """A network that predicts `v = -sqrt(N) E / (|E| + gamma)`, as a denoiser: `y = x - z v_x / v_z`.

    `E = (x - E[x_0 | x], z)` is the field of the data's charges at `(x, z)`, scaled so that its last part is the time.
    Data of shape `(C, *grid)` need a network for `(C + 1, *grid)`, data of shape `(N,)` one for `(N + 1,)`: what it
    says in the last channel is averaged and becomes `v_z`; what it reads there is `ln(q^2 / (s^2 + z^2)) / 2`, how
    unusually far the point lies, with `q^2 = s^2 + z^2 + |x|^2 / N` and `s = sigma_data`. The other channels read
    `x / q`, and the noise label is `ln(z) / 4`. The output is added to the `v` of Cauchy data of scale `s`, for which
    `E_x = x z / (z + s)`, so that a network of zeros is the exact field of those.

    Two readings of `E_x` are at hand. Its direction is that of `-v_x`; its length follows from `v_z`, as `E_z = z`,
    or from `a = |v_x| / sqrt(N)` by solving `a = e / (sqrt(e^2 + z^2) + gamma)`. An error `d` of each component of `v`
    costs them the relative errors `d (e + gamma) / (z sqrt(N))` and `d (e + gamma)^2 / (e gamma sqrt(N))`, so the
    second is the better one where `1 / z > 1 / e + 1 / gamma`: below `z_sub`, which is `gamma` unless given, and 0 for
    never. What each makes of `v_z` is averaged with weights like the inverse squares of these errors, `z^2` and
    `z_sub^2`: the flow is smooth in `z`, so that it can be followed both ways.

    No posterior mean lies farther from the centre than the data do, so `e` is at most `|x|` plus their greatest norm,
    of which 4 times the root mean square is taken; this bounds `v_z` away from 0, and `a` from 1. An output that no
    data could have is read as the nearest one that they could; of a trained network that is rare.

    Raises: TypeError for a process that is not PFGM++ at `D = 1`; ValueError for a `gamma` or `z_sub` out of range.
    Source: Xu et al. 2022, Sec. 3.2 and App. B.2.3, where the second reading takes `e >> z`. [xu2022pfgm]
    """

    process: PFGMPP

    def __init__(
        self,
        network: nn.Module,
        process: PFGMPP,
        sigma_data: float = 0.5,
        gamma: float = 5.0,
        z_sub: float | None = None,
        autocast: torch.dtype | None = None,
    ):
        """`gamma` is that of the targets the network was trained on."""
        super().__init__(network, process, sigma_data, autocast)
        if not isinstance(process, PFGMPP) or process.D != 1:
            raise TypeError(f"a FieldNetwork predicts the field of PFGM, which is PFGMPP(D=1), not of {process}")
        if not 0 < gamma < math.inf or (z_sub is not None and not z_sub >= 0):
            raise ValueError(f"gamma must be finite and > 0, and z_sub at least 0; got {gamma} and {z_sub}")
        self.gamma = gamma
        self.z_sub = gamma if z_sub is None else z_sub

    def forward(self, x: Tensor, t: Tensor, cond: Any = None, field: bool = False) -> Tensor:
        """The estimate of `E[x_0 | x_t = x]`, `(B, *data)`; with `field`, what is regressed: `v`, `(B, N + 1)`."""
        z = x.new_zeros(len(x)) + t.to(x.dtype)
        v_x, v_z = self._field(x, z, cond)
        if field:
            return torch.cat((flat(v_x), v_z[:, None]), 1)
        return x - self._gap(x, z, v_x, v_z)

    def skip(self, x: Tensor, t: Tensor) -> Tensor:
        return x

    def _field(self, x: Tensor, z: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        if x.ndim < 2:
            raise ValueError(f"a FieldNetwork takes data (B, C, ...) or (B, N), got shape {tuple(x.shape)}")
        square, s = flat(x).square().mean(1), self.sigma_data
        base = z.square() + s**2
        extra = (square / base).log1p() / 2
        more = x.new_zeros(len(x), 1, *x.shape[2:]) + expand(extra, x)
        out = self._call(torch.cat((expand((square + base).rsqrt(), x) * x, more), 1), z.log() / 4, cond)
        n = x[0].numel()
        fall = z / (z + s)
        unit = math.sqrt(n) / ((n * square * fall.square() + z.square()).sqrt() + self.gamma)
        return out[:, :-1] - expand(unit * fall, x) * x, flat(out[:, -1:]).mean(1) - unit * z

    def _gap(self, x: Tensor, z: Tensor, v_x: Tensor, v_z: Tensor) -> Tensor:
        """`E_x = x - y`, from what the network says of the field."""
        root, g = math.sqrt(x[0].numel()), self.gamma
        most = flat(x).norm(dim=1) + _REACH * root * self.sigma_data
        longest = (most.square() + z.square()).sqrt() + g
        by_z = torch.minimum(torch.maximum(-v_z / z, root / longest), root / (z + g))
        square, top = flat(v_x).square().mean(1), (most / longest).square()
        kept = torch.minimum(square, top)  # a^2
        by_norm = (g + (kept * g**2 + (1 - kept) * z.square()).sqrt()) / (1 - kept) / root
        by_norm = by_norm * (top / torch.maximum(square, top)).sqrt()
        share = 1 / (1 + (z / self.z_sub).square())
        return -expand(1 / (share / by_norm + (1 - share) * by_z), x) * v_x
