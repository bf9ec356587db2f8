"""The U-Nets of the published EDM models, under the published names of their parameters: DDPM++, NCSN++ and ADM.

They are here to be filled with weights that somebody trained (`driftfield.adapt.edm`). To train one of your own,
`UNet` knows grids of one to three axes and is faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, scaled_dot_product_attention, silu

from .embed import Condition, check_dropout, check_sizes, condition


class _Published(nn.Module):
    """What the two families share: an encoder whose every output is read again by the decoder."""

    def __init__(
        self, size: int, channels: int, labels: int, augments: int, multipliers: Sequence[int], sizes: dict[str, int]
    ):
        super().__init__()
        check_sizes({"size": size, "channels": channels, "levels": len(multipliers)} | sizes)
        check_sizes({f"multipliers[{i}]": m for i, m in enumerate(multipliers)})
        if labels < 0 or augments < 0:
            raise ValueError(f"labels and augments must be at least 0, got {labels} and {augments}")
        if size % 2 ** (len(multipliers) - 1):
            raise ValueError(f"{len(multipliers)} levels halve the size {size}, which must stay whole; give fewer")
        self.size, self.channels, self.labels = size, channels, labels
        self.map_augment: nn.Linear | None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()

    def _told(self, x: Tensor, noise: Tensor, cond: Tensor | Condition | None) -> tuple[Tensor, Tensor | None]:
        """The class as a one-hot vector, 0 for none, and the augmentation; after the checks of everything."""
        if x.ndim != 4 or tuple(x.shape[1:]) != (self.channels, self.size, self.size):
            wanted = f"(B, {self.channels}, {self.size}, {self.size})"
            raise ValueError(f"this network takes x of shape {wanted}, got {tuple(x.shape)}")
        if noise.ndim != 1:
            raise ValueError(f"noise labels have shape (B,), got {tuple(noise.shape)}; give one number per row")
        label, augment, known, _ = condition(cond)
        if known is not None:
            raise ValueError("this network takes no known values; MLP(known=True) does")
        if label is not None and not self.labels:
            raise ValueError("this network was built without labels, so it takes no class label")
        if augment is not None and self.map_augment is None:
            raise ValueError("this network was built without augments, so it takes no record of an augmentation")
        classes = torch.arange(self.labels, device=x.device)
        hot = classes.expand(len(x), -1) == (-1 if label is None else label[:, None])
        return hot.to(x.dtype), augment

    def _decode(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        for name, block in self.dec.items():
            if isinstance(block, _Block):
                if "_block" in name:
                    x = torch.cat((x, skips.pop()), 1)
                x = block(x, emb)
        return x


class SongUNet(_Published):
    """DDPM++ and NCSN++, as EDM trained them on CIFAR-10 and on faces.

    `kind` is "ddpmpp" (sinusoidal noise embedding, box filter) or "ncsnpp" (Fourier embedding, a residual encoder, a
    smoother filter). Images are `size` pixels wide; `labels` is the number of classes, `augments` that of augmentation
    channels, 0 for none; `attention` lists the resolutions with self-attention. The defaults are CIFAR-10's.

    Shapes: `x` is `(B, channels, size, size)`, `noise` is `(B,)`, `cond` class labels `(B,)` (-1 for none) or a
            `Condition`; the result is like `x`.
    Raises: ValueError for an unknown kind, sizes that make no network, an `x` of another shape, and a condition that
            the network was built without.
    Source: Song et al. 2021, App. H; Karras et al. 2022, Table 7. [song2021score] [karras2022edm]
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        labels: int = 0,
        augments: int = 0,
        width: int = 128,
        multipliers: Sequence[int] = (2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        dropout: float = 0.0,
        kind: str = "ddpmpp",
    ):
        super().__init__(size, channels, labels, augments, multipliers, {"width": width, "blocks": blocks})
        check_dropout(dropout)
        if kind not in ("ddpmpp", "ncsnpp"):
            raise ValueError(f"kind is 'ddpmpp' or 'ncsnpp', got {kind!r}")
        smooth = kind == "ncsnpp"
        taps = (1.0, 3.0, 3.0, 1.0) if smooth else (1.0, 1.0)
        features = width * (2 if smooth else 1)

        def block(inp: int, out: int, way: str = "", attend: bool = False) -> _Block:
            return _Block(inp, out, 4 * width, way, int(attend), dropout, taps, song=True)

        self.map_noise = _Fourier(features) if smooth else _Waves(features, endpoint=True)
        self.map_label = nn.Linear(labels, features) if labels else None
        self.map_augment = nn.Linear(augments, features, bias=False) if augments else None
        self.map_layer0 = nn.Linear(features, 4 * width)
        self.map_layer1 = nn.Linear(4 * width, 4 * width)
        now, image, skips = width, channels, [width]
        for level, multiplier in enumerate(multipliers):
            at = f"{size >> level}x{size >> level}"
            if level == 0:
                self.enc[f"{at}_conv"] = _Conv(channels, width, 3)
            else:
                self.enc[f"{at}_down"] = block(now, now, "down")
                skips.append(now)
                if smooth:
                    self.enc[f"{at}_aux_residual"] = _Conv(image, now, 3, "down", taps, fused=True)
                    image = now
            for k in range(blocks):
                self.enc[f"{at}_block{k}"] = block(now, width * multiplier, attend=size >> level in attention)
                now = width * multiplier
                skips.append(now)
        for level in reversed(range(len(multipliers))):
            at, out = f"{size >> level}x{size >> level}", width * multipliers[level]
            if level == len(multipliers) - 1:
                self.dec[f"{at}_in0"] = block(now, now, attend=True)
                self.dec[f"{at}_in1"] = block(now, now)
            else:
                self.dec[f"{at}_up"] = block(now, now, "up")
            for k in range(blocks + 1):
                attend = k == blocks and size >> level in attention
                self.dec[f"{at}_block{k}"] = block(now + skips.pop(), out, attend=attend)
                now = out
        self.dec[f"{size}x{size}_aux_norm"] = _norm(now, 1e-6)
        self.dec[f"{size}x{size}_aux_conv"] = _Conv(now, channels, 3)

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | Condition | None = None) -> Tensor:
        """See the class."""
        hot, augment = self._told(x, noise, cond)
        emb: Tensor = self.map_noise(noise).unflatten(1, (2, -1)).flip(1).flatten(1)  # sines before cosines
        emb = emb.to(x.dtype)
        if self.map_label is not None:
            emb = emb + self.map_label(hot * math.sqrt(self.labels))
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment.to(x.dtype))
        emb = silu(self.map_layer1(silu(self.map_layer0(emb))))
        skips: list[Tensor] = []
        image = x
        for name, part in self.enc.items():
            if name.endswith("_aux_residual"):
                x = skips[-1] = image = (x + part(image)) * math.sqrt(0.5)
            else:
                x = part(x, emb) if isinstance(part, _Block) else part(x)
                skips.append(x)
        x = self._decode(x, emb, skips)
        norm, conv = list(self.dec.values())[-2:]
        out: Tensor = conv(silu(norm(x)))
        return out


class ADM(_Published):
    """The network of Dhariwal and Nichol, as EDM trained it on ImageNet at 64 pixels (the defaults but for `labels`).

    Sizes, shapes and errors as for `SongUNet`; self-attention has one head for every 64 channels.
    Source: Dhariwal and Nichol 2021, App. C; Karras et al. 2022, Table 7. [dhariwal2021adm] [karras2022edm]
    """

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        labels: int = 0,
        augments: int = 0,
        width: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] = (32, 16, 8),
        dropout: float = 0.0,
    ):
        super().__init__(size, channels, labels, augments, multipliers, {"width": width, "blocks": blocks})
        check_dropout(dropout)

        def block(inp: int, out: int, way: str = "", attend: bool = False) -> _Block:
            return _Block(inp, out, 4 * width, way, out // 64 if attend else 0, dropout, (1.0, 1.0), song=False)

        self.map_noise = _Waves(width, endpoint=False)
        self.map_augment = nn.Linear(augments, width, bias=False) if augments else None
        self.map_layer0 = nn.Linear(width, 4 * width)
        self.map_layer1 = nn.Linear(4 * width, 4 * width)
        self.map_label = nn.Linear(labels, 4 * width, bias=False) if labels else None
        now = width * multipliers[0]
        skips = [now]
        for level, multiplier in enumerate(multipliers):
            at = f"{size >> level}x{size >> level}"
            if level == 0:
                self.enc[f"{at}_conv"] = _Conv(channels, now, 3)
            else:
                self.enc[f"{at}_down"] = block(now, now, "down")
                skips.append(now)
            for k in range(blocks):
                self.enc[f"{at}_block{k}"] = block(now, width * multiplier, attend=size >> level in attention)
                now = width * multiplier
                skips.append(now)
        for level in reversed(range(len(multipliers))):
            at, out = f"{size >> level}x{size >> level}", width * multipliers[level]
            if level == len(multipliers) - 1:
                self.dec[f"{at}_in0"] = block(now, now, attend=True)
                self.dec[f"{at}_in1"] = block(now, now)
            else:
                self.dec[f"{at}_up"] = block(now, now, "up")
            for k in range(blocks + 1):
                self.dec[f"{at}_block{k}"] = block(now + skips.pop(), out, attend=size >> level in attention)
                now = out
        self.out_norm = _norm(now, 1e-5)
        self.out_conv = _Conv(now, channels, 3)

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | Condition | None = None) -> Tensor:
        """See the class."""
        hot, augment = self._told(x, noise, cond)
        emb = self.map_noise(noise).to(x.dtype)
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment.to(x.dtype))
        emb = self.map_layer1(silu(self.map_layer0(emb)))
        if self.map_label is not None:
            emb = emb + self.map_label(hot)
        emb = silu(emb)
        skips: list[Tensor] = []
        for part in self.enc.values():
            x = part(x, emb) if isinstance(part, _Block) else part(x)
            skips.append(x)
        out: Tensor = self.out_conv(silu(self.out_norm(self._decode(x, emb, skips))))
        return out


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    groups = min(32, channels // 4)
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels make no groups of at least four; choose a width that is a multiple of 4")
    return nn.GroupNorm(groups, channels, eps)


class _Waves(nn.Module):
    """Cosines and sines of the noise label, at frequencies from 1 down to 1/10000; `endpoint` includes the last."""

    def __init__(self, features: int, endpoint: bool):
        super().__init__()
        if features % 2 or features < 4:
            raise ValueError(f"the width must be even and at least 4, got {features}")
        self.count, self.last = features // 2, features // 2 - int(endpoint)

    def forward(self, noise: Tensor) -> Tensor:
        k = torch.arange(self.count, dtype=torch.float32, device=noise.device)
        angle = noise[:, None] * (1e-4 ** (k / self.last)).to(noise.dtype)
        return torch.cat((angle.cos(), angle.sin()), 1)


class _Fourier(nn.Module):
    """Cosines and sines of the noise label, at frequencies that were drawn once and belong to the weights."""

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("freqs", nn.init.normal_(torch.empty(features // 2), std=16.0))

    freqs: Tensor

    def forward(self, noise: Tensor) -> Tensor:
        angle = noise[:, None] * (2 * math.pi * self.freqs).to(noise.dtype)
        return torch.cat((angle.cos(), angle.sin()), 1)


class _Conv(nn.Module):
    """A convolution of odd `kernel` (0: none), after the resolution is doubled ("up") or halved ("down") by a filter.

    `fused` filters after the convolution instead, which sees the border differently.
    """

    def __init__(
        self,
        inp: int,
        out: int,
        kernel: int,
        way: str = "",
        taps: Sequence[float] = (1.0, 1.0),
        fused: bool = False,
    ):
        super().__init__()
        self.way, self.fused = way, fused
        plain = nn.Conv2d(inp, out, kernel) if kernel else None  # for its initialisation
        self.weight = None if plain is None else plain.weight
        self.bias = None if plain is None else plain.bias
        line = torch.tensor(taps)
        square = torch.outer(line, line)[None, None] / line.sum().square()
        self.register_buffer("resample_filter", square if way else None)

    resample_filter: Tensor

    def forward(self, x: Tensor) -> Tensor:
        pad = 0 if self.weight is None else self.weight.shape[-1] // 2
        if self.fused and self.weight is not None:
            inner = (self.resample_filter.shape[-1] - 1) // 2
            return self._filtered(conv2d(x, self.weight, padding=pad + inner), 0) + _channels(self.bias)
        if self.way:
            x = self._filtered(x, (self.resample_filter.shape[-1] - 1) // 2)
        return x if self.weight is None else conv2d(x, self.weight, self.bias, padding=pad)

    def _filtered(self, x: Tensor, pad: int) -> Tensor:
        n = x.shape[1]
        square = self.resample_filter.to(x.dtype).expand(n, 1, -1, -1)
        if self.way == "up":
            return conv_transpose2d(x, 4 * square, stride=2, padding=pad, groups=n)
        return conv2d(x, square, stride=2, padding=pad, groups=n)


def _channels(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.reshape(1, -1, 1, 1)


class _Block(nn.Module):
    """Two convolutions told of the noise, then attention; `song` adds the embedding, else it scales and shifts."""

    def __init__(
        self,
        inp: int,
        out: int,
        emb: int,
        way: str,
        heads: int,
        dropout: float,
        taps: Sequence[float],
        song: bool,
    ):
        super().__init__()
        eps = 1e-6 if song else 1e-5
        self.song, self.heads = song, heads
        self.norm0 = _norm(inp, eps)
        self.conv0 = _Conv(inp, out, 3, way, taps)
        self.affine = nn.Linear(emb, out if song else 2 * out)
        self.norm1 = _norm(out, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = _Conv(out, out, 3)
        mixes = out != inp or (song and way != "")
        self.skip = _Conv(inp, out, int(mixes), way, taps) if mixes or way else None
        if heads:
            self.norm2 = _norm(out, eps)
            self.qkv = _Conv(out, 3 * out, 1)
            self.proj = _Conv(out, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        gain = math.sqrt(0.5) if self.song else 1.0
        h = self.conv0(silu(self.norm0(x)))
        told = self.affine(emb)[:, :, None, None]
        if self.song:
            h = silu(self.norm1(h + told))
        else:
            scale, shift = told.chunk(2, 1)
            h = silu(self.norm1(h) * (1 + scale) + shift)
        x = (self.conv1(self.dropout(h)) + (x if self.skip is None else self.skip(x))) * gain
        if not self.heads:
            return x
        parts = self.qkv(self.norm2(x)).reshape(len(x), self.heads, x.shape[1] // self.heads, 3, -1)
        query, key, value = parts.permute(3, 0, 1, 4, 2)
        seen = scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(x.shape)
        out: Tensor = (x + self.proj(seen)) * gain
        return out
