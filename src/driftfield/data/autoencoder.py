"""A user's autoencoder: any torch module with `encode(x) -> z` and `decode(z) -> x`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..plain import Build
from ..rng import ambient

_OPEN: dict[str, nn.Module] = {}  # by digest: one module is built once, and one given in Python is found again
_BATCH = 64  # rows at a time


@dataclass(frozen=True)
class Autoencoder:
    """Where an autoencoder is: the `build` of a module, with its `weights` in a safetensors file where it needs one.

    `Autoencoder.of(module)` is one that is in memory: neither written to files nor compared, it is known by its
    digest, and a run that learned with it must be given it again (`Autoencoder.of(module)`, in the same program)
    before it can draw. `digest` is SHA-256 of the module's numbers; where it is given, other numbers are refused.

    `encode` takes `(B, *shape)` float32 in the model's units of the data (images: [-1, 1]) and returns codes
    `(B, C, ...)`, `decode` the inverse. Where they return an object, as those of diffusers do, its distribution's mode
    or its field `latents` or `sample` is taken. A scaling factor is needless: codes are standardised by their own
    moments. Parameters that `weights` does not give begin as the constructor leaves them, with one fixed seed.
    """

    build: Build | None = None
    weights: str | None = None
    digest: str = ""
    module: nn.Module | None = field(default=None, compare=False, repr=False, metadata={"plain": False})

    def __post_init__(self) -> None:
        if self.weights is not None:  # found from wherever a run is resumed
            object.__setattr__(self, "weights", os.path.abspath(self.weights))

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """The autoencoder `module`. Raises: TypeError where it lacks `encode` or `decode`."""
        digest = digest_of(_checked(module))
        _OPEN[digest] = module
        return cls(digest=digest, module=module)

    @classmethod
    def named(cls, text: str) -> Self:
        """The autoencoder at an import path `module:Class`, or in a folder in which diffusers saved one.

        Raises: ValueError or FileNotFoundError where there is none.
        """
        if ":" in text:
            return cls(Build(text))
        folder = Path(text)
        settings, weights = folder / "config.json", folder / "diffusion_pytorch_model.safetensors"
        if not settings.is_file() or not weights.is_file():
            raise FileNotFoundError(
                f"{text!r} is no import path (module:Class) and no folder with {settings.name} and {weights.name}, "
                "as diffusers saves an autoencoder"
            )
        options = json.loads(settings.read_text())
        target = Build(f"diffusers:{options['_class_name']}")
        known = {k: v for k, v in options.items() if k in target.parameters()}
        return cls(replace(target, options=known), str(weights))

    def opened(self) -> Self:
        """The same with its module built and its digest known.

        Raises: ValueError where it cannot be built, is not at hand, or has other numbers than the digest says.
        """
        found = self.module if self.module is not None else _OPEN.get(self.digest)
        if found is None:
            if self.build is None:
                raise ValueError(
                    "this run learned codes of an autoencoder that was in memory and was not saved with it; hand it "
                    "over again with Autoencoder.of(module)"
                )
            found = _built(self.build, self.weights)
        digest = digest_of(found)
        if self.digest and digest != self.digest:
            where = self.weights or (self.build.target if self.build else "memory")
            raise ValueError(
                f"the autoencoder ({where}) has other weights than the one whose codes were learned, so its codes mean "
                "something else; bring those weights back, or train anew"
            )
        _OPEN[digest] = found
        return replace(self, digest=digest, module=found)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The codes `(B, C, ...)` of `x` `(B, *shape)`, float32, on its device, a part at a time."""
        module = self._on(x)
        return torch.cat([_tensor(module.encode(part), "encode") for part in torch.split(x, _BATCH)])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """What the codes `z` stand for, float32, on its device, a part at a time."""
        module = self._on(z)
        return torch.cat([_tensor(module.decode(part), "decode") for part in torch.split(z, _BATCH)])

    def _on(self, x: Tensor) -> Any:
        module = self.module if self.module is not None else self.opened().module
        assert module is not None
        return module.to(x.device).eval()


def _built(build: Build, weights: str | None) -> nn.Module:
    try:
        with ambient(0, 0x4145):
            module = _checked(build())
    except TypeError as error:
        raise ValueError(f"the autoencoder {build.target} cannot be used: {error}") from None
    if weights is None:
        return module
    if not Path(weights).is_file():
        raise FileNotFoundError(f"there is no file {weights} with the autoencoder's weights")
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a safetensors file that can be read ({error})") from None
    own = module.state_dict()
    wrong = [k for k in own if k not in tensors or own[k].shape != tensors[k].shape] + [
        k for k in tensors if k not in own
    ]
    if wrong:
        raise ValueError(f"the weights in {weights} are of another autoencoder than {build.target}: see {wrong[0]!r}")
    module.load_state_dict(tensors)
    return module


def _checked(module: Any) -> nn.Module:
    lacking = [name for name in ("encode", "decode") if not callable(getattr(module, name, None))]
    if lacking or not isinstance(module, nn.Module):
        what = f"no {lacking[0]}" if lacking else "no parameters: it is not a torch module"
        raise TypeError(
            f"an autoencoder is a torch module with encode and decode, and {type(module).__name__} has {what}"
        )
    return module.float().eval().requires_grad_(False)


def digest_of(module: nn.Module) -> str:
    """SHA-256 of a module's class and of all its parameters and buffers, by name."""
    state = hashlib.sha256(f"{type(module).__module__}:{type(module).__qualname__}".encode())
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        state.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        state.update(array.flatten().view(torch.uint8).numpy().data if array.numel() else b"")
    return state.hexdigest()


_FIELDS: Sequence[str] = ("latents", "sample")


def _tensor(out: Any, verb: str) -> Tensor:
    """The tensor in what an autoencoder returned."""
    if hasattr(out, "latent_dist"):
        out = out.latent_dist.mode()
    for name in _FIELDS:
        if not isinstance(out, Tensor) and isinstance(getattr(out, name, None), Tensor):
            out = getattr(out, name)
    if not isinstance(out, Tensor):
        raise TypeError(f"{verb} of the autoencoder returned a {type(out).__name__}, not a tensor")
    return out.float()
