"""Pictures from their files: decoded in threads, brought to 8-bit grey or RGB, upright, and to one size."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps
from rich.console import Console
from rich.progress import track

from .. import ranks

MANY = 2000  # files; fewer take about a second
_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    *(Image.DecompressionBombError, ImageCms.PyCMSError),
)

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture `(C, H, W)`, and what there is to say of its file."""

    pixels: Bytes
    frames: bool = False
    cmyk: bool = False


def decoded(
    files: Sequence[Path], size: int | None, channels: int | None
) -> Iterator[tuple[Path, Picture | ValueError]]:
    """Each file with its pixels, or with the reason why there are none; decoded in threads, a few ahead, in order."""
    threads = max(1, min(16, (os.cpu_count() or 1) // ranks.local_count()))
    pool = ThreadPoolExecutor(threads)
    coming: deque[tuple[Path, Future[Picture | ValueError]]] = deque()
    try:
        quiet = len(files) < MANY or not sys.stderr.isatty()
        for file in track(files, "Reading images", console=Console(stderr=True), disable=quiet, transient=True):
            coming.append((file, pool.submit(_decode, file, size, channels)))
            if len(coming) > 4 * threads:
                done, future = coming.popleft()
                yield done, future.result()
        for done, future in coming:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(file: Path, size: int | None, channels: int | None) -> Picture | ValueError:
    """The pixels `(C, H, W)` of one file."""
    try:
        with Image.open(file) as opened:
            deep, frames, cmyk = _deep(opened), getattr(opened, "is_animated", False), opened.mode == "CMYK"
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            picture = _opaque(_from_cmyk(picture) if cmyk else picture)
    except _BROKEN as error:
        return ValueError(
            f"{file} cannot be read as an image ({error}); remove it, or leave such files out with "
            "skip_corrupt=True (--set data.skip_corrupt=true)"
        )
    if deep:  # Pillow would cut these to 8 bits, or clip them
        raise ValueError(f"{file} has more than 8 bits a channel; save it with 8, or the numbers as .npy")
    if channels is not None:
        picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(picture)
    pixels = pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return Picture(pixels, frames, cmyk)


def _deep(opened: Image.Image) -> bool:
    """Whether a picture, not yet decoded, has more than 8 bits a channel, which its mode may not say."""
    if opened.mode.startswith(("I", "F")):
        return True
    layout = str([tile[3] for tile in getattr(opened, "tile", [])])
    if opened.format in ("PNG", "TIFF"):
        return ";16" in layout
    return opened.format == "PPM" and any(int(n) > 255 for n in re.findall(r"\d+", layout))


def _from_cmyk(picture: Image.Image) -> Image.Image:
    """RGB from the inks: by the colour profile that the file carries, else by Pillow's plain complement."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture.convert("RGB")
    made = ImageCms.profileToProfile(picture, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert made is not None
    return made


def size_of(file: Path) -> tuple[int, int] | None:
    """The width and height that a file's header gives, as it will be seen; None where there is none to read."""
    try:
        with Image.open(file) as opened:
            turned = opened.getexif().get(0x0112, 1) >= 5
            return (opened.height, opened.width) if turned else opened.size
    except _BROKEN:
        return None


def check_sizes(files: Sequence[Path]) -> None:
    """Raises: ValueError where the headers of two files say different sizes: sooner than decoding them would tell."""
    first: tuple[Path, tuple[int, int]] | None = None
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for file, size in zip(files, pool.map(size_of, files), strict=True):
            if size is None:
                continue
            first = first or (file, size)
            if size != first[1]:
                raise mixed(*first, file, size)


def mixed(a: Path, of_a: tuple[int, int], b: Path, of_b: tuple[int, int]) -> ValueError:
    """What to say of two files whose widths and heights differ."""
    return ValueError(
        f"the images differ in size: {a} is {of_a[0]}x{of_a[1]} but {b} is {of_b[0]}x{of_b[1]}; "
        "give one size, such as size=64 (--set data.size=64)"
    )


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture as grey ("L") or "RGB", on a white ground where it is transparent."""
    mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if "transparency" not in picture.info and picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return picture.convert(mode)
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert(mode)
