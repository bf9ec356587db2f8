"""Weights of few bits: whole numbers with one scale for each group, turned back when they are used.

`quantized` is for use; `rounded` repeats a published experiment on floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..denoise.learned import Learned
from .quiet import quiet

M = TypeVar("M", bound=nn.Module)
L = TypeVar("L", bound=Learned)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
GROUP = 32  # weights that share a scale at 4 bits
_SLACK = 2  # units of rounding within which a weight is a value of its grid


@dataclass(frozen=True)
class Footprint:
    """Bytes of a module's parameters and buffers: of the layers that are quantised, and of what is left alone."""

    layers: int
    rest: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.layers + self.rest


def footprint(model: nn.Module) -> Footprint:
    """The bytes that `model` keeps, whether quantised or not."""
    layers = 0
    for module in model.modules():
        if isinstance(module, LAYERS):
            names = [n for n in module.state_dict() if n == "weight" or n.startswith("parametrizations.weight.")]
            layers += sum(module.state_dict()[n].nbytes for n in names)
    return Footprint(layers, sum(t.nbytes for t in model.state_dict().values()) - layers)


def quantized(model: M, bits: int = 8) -> M:
    """A copy of `model` whose linear and convolutional weights are whole numbers of `bits` = 8 or 4 bits.

    At 8 bits each output channel has one scale; at 4 bits each 32 weights of a channel, in the order of the weight's
    axes, where 32 divides their number, and otherwise each channel. Scales are such that no weight is clipped, so a
    weight moves by at most half a scale: the largest weight of its group / 127 / 2 at 8 bits, / 7 / 2 at 4. Two
    4-bit numbers share a byte. Biases, normalisation, embeddings and layers of other kinds (subclasses included) keep
    their floats. What is saved is memory and file size: the arithmetic is float32, on weights that are turned back at
    every call, so a step takes a little longer.
    Raises: ValueError for other `bits` or a model without such layers, ImportError without torchao.
    """
    if bits not in (4, 8):
        raise ValueError(f"weights are quantised to 8 or 4 bits, got bits={bits}")
    made = deepcopy(model)
    layers = [m for m in made.modules() if type(m) in LAYERS and not parametrize.is_parametrized(m)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear or convolutional layer with plain weights to quantise")
    for layer in layers:
        _quantize(layer, bits)
    return made


def affine(weight: Tensor, bits: int) -> Tensor:
    """The weight moved to the nearest of `2^bits` evenly spaced values from about its least to about its largest.

    The step is `(largest - least) / (2^bits - 1)` and one of the values is 0, whose number is rounded down: a weight
    moves by at most half a step, or by less than one step at the ends. A number that is whole but for the rounding of
    the weights is not rounded down, and what is such a grid from end to end, 0 on it, stays bit for bit; so does a
    tensor of one value. As published, the range is not made to hold 0: where all values have one sign, those beyond it
    are clipped.
    Raises: ValueError for fewer than 1 bit or more than 16.
    Source: Xu et al. 2023, Sec. 6.2 and code. [xu2023pfgmpp]
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"weights are rounded to 1 to 16 bits, got bits={bits}")
    exact, top, rounding = weight.double(), 2**bits - 1, torch.finfo(weight.dtype).eps
    least, most = exact.amin(), exact.amax()
    step = (most - least) / top
    zero = (-least / step + min(_SLACK * rounding * top, 0.5)).clamp(0, top).floor()
    made = step * ((zero + exact / step).clamp(0, top).round() - zero)
    stays = (step == 0) | ((made - exact).abs() <= _SLACK * rounding * exact.abs()).all()
    return torch.where(stays, weight, made.to(weight.dtype))


def rounded(denoiser: L, bits: int, shape: Sequence[int]) -> L:
    """A copy of `denoiser`, of data of `shape`, whose inner weights are rounded as published, each tensor by `affine`.

    Left as they are, as published: what is no convolution or linear layer, linear layers that see one vector for a
    whole sample (of noise level and class), and on a grid what is at its full resolution. A layer is known by the
    number of points that it sees in one evaluation. For vectors, which have no resolution, all layers are rounded.
    Raises: ValueError for `bits` outside 1 to 16, or where no layer is left to round.
    """
    made = deepcopy(denoiser)
    seen: dict[nn.Module, int] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = inputs[0].shape[1:-1] if isinstance(layer, nn.Linear) else inputs[0].shape[2:]
        seen[layer] = max(seen.get(layer, 0), math.prod(axes))

    layers = [m for m in made.modules() if isinstance(m, LAYERS)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    first = next(made.parameters())
    with torch.no_grad():
        made(made.process.lift(first.new_zeros(1, *shape)), torch.ones((), dtype=torch.float64), None)
    for hook in hooks:
        hook.remove()
    full, grid = math.prod(shape[1:]), len(shape) > 1
    inner = [m for m in seen if not grid or (seen[m] != full and (seen[m] > 1 or not isinstance(m, nn.Linear)))]
    if not inner:
        raise ValueError(
            f"the published experiment rounds layers below the full resolution of {tuple(shape)}, and this network has "
            "none; use quantized(model, bits)"
        )
    for layer in inner:
        assert isinstance(layer.weight, Tensor)
        layer.weight = nn.Parameter(affine(layer.weight.detach(), bits), requires_grad=False)
    return made


def _quantize(layer: nn.Module, bits: int) -> None:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    numbers, scale = whole(weight.detach().flatten(1), bits)
    layer.weight = nn.Parameter(_packed(numbers) if bits == 4 else numbers, requires_grad=False)
    parametrize.register_parametrization(layer, "weight", _Restored(scale, weight.shape, bits), unsafe=True)


def whole(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The rows `(R, n)` as whole numbers, int8 `(R, n)`, and their scales `(R, groups)`: `weight = scale * number`."""
    choose, round_off, symmetric = _torchao()
    n = rows.shape[1]
    group = GROUP if bits == 4 and n % GROUP == 0 else n
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    flat = rows.float().reshape(-1, group)  # a row of groups each, which torchao takes at every size
    scale, zero = choose(
        flat,
        symmetric,
        (1, group),
        torch.int8,
        quant_min=least,
        quant_max=most,
        scale_dtype=torch.float32,
        zero_point_dtype=torch.int32,
    )
    numbers = round_off(flat, (1, group), scale, zero, torch.int8, quant_min=least, quant_max=most)
    return numbers.reshape(rows.shape), scale.reshape(len(rows), -1).to(rows.dtype)


def _packed(numbers: Tensor) -> Tensor:
    """Numbers from -8 to 7, two to a byte: uint8, one row for each row, an odd row padded by 0."""
    shifted = (nn.functional.pad(numbers, (0, numbers.shape[1] % 2)) + 8).to(torch.uint8)
    return shifted[:, ::2] + 16 * shifted[:, 1::2]


class _Restored(nn.Module):
    """From whole numbers to the weight they stand for."""

    def __init__(self, scale: Tensor, shape: torch.Size, bits: int):
        super().__init__()
        self.register_buffer("scale", scale)
        self.shape, self.bits = tuple(shape), bits

    scale: Tensor

    def forward(self, numbers: Tensor) -> Tensor:
        values = numbers.to(self.scale.dtype)
        if self.bits == 4:
            high = (values / 16).floor()  # in floats, which are exact here and the same in every runtime
            values = torch.stack((values - 16 * high, high), -1).flatten(1)[:, : math.prod(self.shape[1:])] - 8
        groups = values.reshape(*self.scale.shape, -1) * self.scale[..., None]
        return groups.reshape(self.shape)


def _torchao() -> tuple[Any, Any, Any]:
    """torchao's choice of scales, its rounding, and the name of the symmetric rule that clips nothing."""
    try:
        with quiet("torchao", "torch.utils._pytree"):  # of its kernels for accelerators, none of which is used
            from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine
    except ImportError:
        raise ImportError("quantisation is done by torchao: pip install 'driftfield[quantize]'") from None
    return choose_qparams_affine, quantize_affine, MappingType.SYMMETRIC_NO_CLIPPING_ERR
