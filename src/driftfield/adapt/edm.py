"""Weights in the format of the published EDM models, read as tensors and nothing else."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..denoise.preconditioned import Preconditioned
from ..network.song import ADM, SongUNet
from ..process.base import Isotropic
from ..process.gaussian import EDM

_CONVERT = (
    "where you trust it, load it once with the code it came with and save its tensors: "
    "torch.save(net.state_dict(), 'weights.pt') or safetensors.torch.save_file(net.state_dict(), 'weights.safetensors')"
)


def from_edm(
    weights: str | Path | Mapping[str, Tensor],
    *,
    process: Isotropic | None = None,
    sigma_data: float = 0.5,
    scaling: str = "edm",
) -> Preconditioned:
    """A published EDM network with its weights, as a denoiser of `process` (`EDM()` unless given).

    `weights` is the network's state, or a file of it: `.safetensors`, or what `torch.save(net.state_dict(), ...)`
    wrote. The network is built from the names and shapes of its parameters: DDPM++ and NCSN++ (`SongUNet`) and ADM, of
    any size and width. `scaling` is what it was trained in: "edm", or "vp", "ve", "iddpm" for weights of those.
    Raises: ValueError for a file that holds anything but tensors (nothing in it is run), and for weights of another
            network; OSError where there is no file.
    Source: Karras et al. 2022, App. F. [karras2022edm]
    """
    network = edm_network(weights)
    network.eval().requires_grad_(False)
    return Preconditioned(network, EDM() if process is None else process, sigma_data, scaling)


def edm_network(weights: str | Path | Mapping[str, Tensor]) -> SongUNet | ADM:
    """The network alone: see `from_edm`."""
    state = dict(weights) if isinstance(weights, Mapping) else _tensors(Path(weights))
    if strange := next((k for k, v in state.items() if not isinstance(v, Tensor)), None):
        raise ValueError(f"weights map names to tensors, but {strange!r} is a {type(state[strange]).__name__}")
    inner = {k.removeprefix("model."): v for k, v in state.items() if k != "u"}  # u: the levels of iDDPM, known anyway
    network = _built(inner)
    own = network.state_dict()
    made = {k for k in own if k.endswith("resample_filter")}  # files of parameters alone lack these constants
    if missing := sorted(set(own) - set(inner) - made):
        raise ValueError(f"these weights lack {_some(missing)} of a {type(network).__name__}")
    if more := sorted(set(inner) - set(own)):
        raise ValueError(f"these weights hold {_some(more)}, which a {type(network).__name__} does not have")
    if bad := sorted(k for k, v in inner.items() if v.shape != own[k].shape):
        shapes = f"{tuple(inner[bad[0]].shape)}, not {tuple(own[bad[0]].shape)}"
        raise ValueError(f"these weights are not of a {type(network).__name__}: {bad[0]} has shape {shapes}")
    network.load_state_dict(inner, strict=False)
    return network


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    refused = f"{path} holds more than tensors, or is no file of torch.save, and is not opened: {_CONVERT}"
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):  # a bare pickle, such as the published snapshots
            raise ValueError(refused)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise ValueError(refused) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not the state of a network: {_CONVERT}")
    return dict(state)


def _built(state: dict[str, Tensor]) -> SongUNet | ADM:
    """An untrained network of the sizes that the names and shapes of its parameters tell."""
    stem = next((k for k in state if re.fullmatch(r"enc\.(\d+)x\1_conv\.weight", k)), None)
    if stem is None or "map_layer0.weight" not in state:
        raise ValueError("these are not the weights of a published EDM network (DDPM++, NCSN++ or ADM)")
    if strange := next((k for k in state if "aux_skip" in k or "aux_up" in k), None):
        raise ValueError(f"these weights hold {strange}, of an encoder or decoder by skips, which is not supported")
    size, channels = int(stem.split(".")[1].split("x")[0]), state[stem].shape[1]
    places = [(int(m[1]), int(m[2])) for k in state if (m := re.match(r"enc\.(\d+)x\1_block(\d+)\.conv1\.weight", k))]
    heights = sorted({r for r, _ in places}, reverse=True)
    if not heights or heights != [size >> i for i in range(len(heights))]:
        raise ValueError(f"the encoder of these weights has resolutions {heights}, which do not halve from {size}")
    fourier = "map_noise.freqs" in state
    width = state["map_layer0.weight"].shape[1] // (2 if fourier else 1)
    sizes = {
        "labels": state["map_label.weight"].shape[1] if "map_label.weight" in state else 0,
        "augments": state["map_augment.weight"].shape[1] if "map_augment.weight" in state else 0,
        "width": width,
        "blocks": 1 + max(k for _, k in places),
    }
    multipliers = [state[f"enc.{r}x{r}_block0.conv1.weight"].shape[0] // width for r in heights]
    attention = [r for r in heights if f"enc.{r}x{r}_block0.qkv.weight" in state]
    if "out_conv.weight" in state:
        return ADM(size, channels, multipliers=multipliers, attention=attention, **sizes)
    kind = "ncsnpp" if fourier else "ddpmpp"
    return SongUNet(size, channels, multipliers=multipliers, attention=attention, kind=kind, **sizes)
