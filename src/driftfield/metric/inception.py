"""The network of the published FID protocol, from a file of the user's own."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from .features import Features
from .inception_net import Inception

SIDE = 299  # pixels


def inception(path: str | Path) -> Features:
    """The 2048 values below the logits of Inception-v3, by the weights in the file `path`.

    Pictures `(n, 1 or 3, H, W)` in [-1, 1], grey ones shown in three equal channels, are first rounded to 8 bits. Two
    kinds of file are known, and told apart by what is in them:

    - A TorchScript archive that takes `(uint8 pictures, return_features=True)` and resizes them itself, such as the
      `inception-2015-12-05.pt` that NVIDIA publishes and StyleGAN2-ADA, EDM and their kin use.
    - A state dict (`.pth`, `.pt`, or `.safetensors`) under the names of torchvision's Inception-v3 with 1008 classes,
      such as the `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid; pictures are resized to 299 (bilinear).

    Numbers agree with published ones only with the published weights, 50,000 samples and the published reference.
    A state dict is read without unpickling objects. A TorchScript archive is a program in a restricted language, which
    runs here: take it from its publisher.
    Raises: FileNotFoundError, or ValueError for any other file; on use, ValueError for what is not pictures.
    Source: Heusel et al. 2017; Szegedy et al. 2016. [heusel2017fid] [szegedy2016inception]
    """
    if not str(path):
        raise ValueError("inception features need the network's file: inception:FILE")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with an Inception network")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    scripted = _is_script(path)
    networks: dict[torch.device, Callable[[Tensor], Tensor]] = {}

    def extract(x: Tensor) -> Tensor:
        if x.device not in networks:
            networks[x.device] = (_script if scripted else _weights)(path, x.device)
        return networks[x.device](bytes_of(x))

    resize = f"{SIDE} px by the network's file" if scripted else f"{SIDE} px, bilinear"
    return Features(f"inception:{digest[:12]}", extract, resize, digest, batch=64)


def bytes_of(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] as uint8 `(n, 3, H, W)`, limited to 0..255 as 8 bits are, and rounded half up.

    Raises: ValueError for another shape.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"inception features need pictures (n, 1 or 3, H, W), got {tuple(x.shape)}; other data have features='raw'"
        )
    x = (127.5 * x.clamp(-1, 1) + 128).floor()
    return x.to(torch.uint8).expand(-1, 3, -1, -1)


def _is_script(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a state dict has no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _script(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        with warnings.catch_warnings():  # torch would have archives exported anew, which their publishers have not done
            warnings.filterwarnings("ignore", ".*torch.jit.load", DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"{path} is not a TorchScript archive that can be read ({_first(error)})") from None

    def extract(x: Tensor) -> Tensor:
        try:
            out: Tensor = network(x, return_features=True)
        except RuntimeError as error:
            raise ValueError(
                f"the network in {path} does not take (uint8 pictures, return_features=True): {_first(error)}"
            ) from None
        return out

    return extract


def _weights(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    with torch.device("meta"):
        network = Inception()
    network.load_state_dict(_fitting(_state(path), network, path), assign=True)
    network = network.to(device).eval().requires_grad_(False)

    def extract(x: Tensor) -> Tensor:
        y = x.float() / 127.5 - 1
        out: Tensor = network(nn.functional.interpolate(y, (SIDE, SIDE), mode="bilinear", align_corners=False))
        return out

    return extract


def _state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():  # that a pickle is of another kind than torch writes: said below, as an error
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} is neither a TorchScript archive nor a state dict ({_first(error)}); a pickled network is not "
            "read, because reading it runs its author's code"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a state dict of tensors")
    return found


def _fitting(state: dict[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The state that `network` takes; counts of batches, which nothing uses, may be absent. Raises: ValueError."""
    own = network.state_dict()
    state = {k: v.float() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    state |= {k: torch.zeros((), dtype=torch.int64) for k in own if k.endswith("num_batches_tracked")}
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape] + [k for k in state if k not in own]
    if wrong:
        raise ValueError(f"{path} is not the Inception-v3 of FID: {len(wrong)} tensors differ, the first {wrong[0]}")
    return state


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
