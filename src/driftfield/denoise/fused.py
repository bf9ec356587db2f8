"""The posterior mean in one pass on an accelerator, for data of few dimensions: a Triton kernel.

Where the data have many dimensions the two matrix products of `stream` are all the work. In few they are not: what is
done to the distances between them is, and here nothing of it leaves the chip. Distances are differences, not products,
so that they are accurate beside small noise. The PyTorch path is the reference; the kernel agrees with it to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .stream import Points

_ROWS, _DATA = 32, 64  # in a block


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]  # pragma: no cover: compiled, or interpreted in a process of its own
    z_at,
    a_at,
    scale_at,
    data_at,
    mean_at,
    least_at,
    rows,
    count,
    dims: tl.constexpr,
    wide: tl.constexpr,
    power: tl.constexpr,
    gaussian: tl.constexpr,
    some: tl.constexpr,
    many: tl.constexpr,
):
    """For `some` rows, all data: sums with the weights `(1 + rise / (scale + least))^-power`, or their Gaussian limit.

    As in `stream`, the reference is the least squared distance so far, and sums are faded where it falls.
    """
    row = tl.program_id(0) * some + tl.arange(0, some)
    inside = row < rows
    a = tl.load(a_at + row, mask=inside, other=1.0)
    scale = tl.load(scale_at + row, mask=inside, other=1.0)
    axis = tl.arange(0, wide)
    least = tl.full((some,), 1e38, tl.float32)
    mass = tl.zeros((some,), tl.float32)
    mean = tl.zeros((some, wide), tl.float32)
    for start in range(0, count, many):
        datum = start + tl.arange(0, many)
        known = datum < count
        d2 = tl.zeros((some, many), tl.float32)
        for k in tl.static_range(dims):
            z = tl.load(z_at + row * dims + k, mask=inside, other=0.0)
            u = tl.load(data_at + datum * dims + k, mask=known, other=0.0)
            gap = z[:, None] - a[:, None] * u[None, :]
            d2 += gap * gap
        d2 = tl.where(known[None, :], d2, 1e38)
        closer = tl.minimum(least, tl.min(d2, 1))
        rise = tl.where(known[None, :], d2 - closer[:, None], 0.0)
        fall = tl.where(start > 0, least - closer, 0.0)  # before the first tile there are no sums to fade
        if gaussian:
            weight = tl.exp(-rise / (2 * scale[:, None]))
            fade = tl.exp(-fall / (2 * scale))
        else:
            base = scale + closer
            q = rise / base[:, None]
            near = 1 + q
            # log(1 + q) without the loss of a small q
            weight = tl.exp(-power * tl.where(near == 1, q, tl.log(near) * q / tl.where(near == 1, 1.0, near - 1)))
            q0 = fall / base
            near0 = 1 + q0
            fade = tl.exp(-power * tl.where(near0 == 1, q0, tl.log(near0) * q0 / tl.where(near0 == 1, 1.0, near0 - 1)))
        weight = tl.where(known[None, :], weight, 0.0)
        u = tl.load(
            data_at + datum[:, None] * dims + axis[None, :], mask=known[:, None] & (axis < dims)[None, :], other=0.0
        )
        mass = mass * fade + tl.sum(weight, 1)
        mean = mean * fade[:, None] + tl.dot(weight, u, input_precision="ieee")
        least = closer
    tl.store(least_at + row, least, mask=inside)
    out = mean / mass[:, None]
    tl.store(mean_at + row[:, None] * dims + axis[None, :], out, mask=inside[:, None] & (axis < dims)[None, :])


def fused_mean(law: Any, points: Points, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """`E[x_0 | x_t = x]`, `(B, N)` float64, for float32 states `x` `(B, N)`; and which rows are accurate, `(B,)`.

    `law` is Gaussian or Student's t (it has `freedom`), `t` a time `()` or `(B,)`. A row is accurate where rounding
    moves no log-weight by more than 1e-4: of a sum of `n` squares, `4 + sqrt(n)` units are taken.
    Source: Dao et al. 2022, the softmax over tiles that stay on the chip. [dao2022flashattention]
    """
    b, n = x.shape
    time = t.double().to(x.device).expand(b)
    a, variance = law.alpha(time), law.sigma(time).square()
    z = x.double() if points.origin is None else x.double() - a[:, None] * points.origin
    data = points.data.flatten(1).float() if points.origin is None else _gathered(points)
    gaussian = math.isinf(law.freedom)
    scale = variance if gaussian else law.freedom * variance
    power = 0.0 if gaussian else (n + law.freedom) / 2
    mean, least = torch.empty(b, n, device=x.device), torch.empty(b, device=x.device)
    _kernel[(triton.cdiv(b, _ROWS),)](
        z.float().contiguous(),
        a.float().contiguous(),
        scale.float().contiguous(),
        data.contiguous(),
        mean,
        least,
        b,
        len(data),
        n,
        max(16, triton.next_power_of_2(n)),
        power,
        gaussian,
        _ROWS,
        _DATA,
    )
    near = least.double()
    slope = 1 / (2 * variance) if gaussian else power / (scale + near)
    sound = (4 + math.sqrt(n)) * torch.finfo(torch.float32).eps * near * slope < 1e-4
    y = mean.double() if points.origin is None else mean.double() + points.origin
    return y, sound


def _gathered(points: Points) -> Tensor:
    return torch.cat([u for _, u in points.tiles(torch.float32)])
