"""A user's folder of recordings."""

from __future__ import annotations

import os
import struct
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from scipy.io import wavfile

from .base import Data, Info, Source
from .folder import classes_of, files_in
from .stored import Stored, split

SUFFIXES = (".wav", ".flac", ".ogg")
_MANY = 2000  # files; fewer take about a second
_BROKEN = (ValueError, EOFError, OSError, struct.error, UnboundLocalError, ZeroDivisionError)

Wave = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AudioInfo(Info):
    """What a recording is: `shape` is `(channels, samples)`, `rate` is in samples a second, full scale is 1."""

    rate: int = field(kw_only=True)


@dataclass(frozen=True)
class Audio(Data):
    """The recordings of a folder and its sub-folders as `(C, T)`, full scale 1; hidden files are passed over.

    `length` is T, in samples: a longer recording is cut at its end, a shorter one is followed by silence; without it
    all must be of the same length. `rate`, in samples a second, is what all are resampled to (polyphase, with a filter
    against aliasing, whose rounding may pass full scale); without it all must have the same rate. `channels` is 1 (the
    mean of the channels) or 2 (one channel is heard on both); without it all must have the same number. Whole numbers
    are divided by their full scale, floats taken as they are. When every file lies in one of two or more sub-folders,
    their names are the classes. The model sees all values brought to mean 0 and deviation 1 by one shift and scale.
    WAV files are read by SciPy, FLAC and Ogg files by soundfile (extra `audio`).
    """

    path: str
    length: int | None = None
    rate: int | None = None
    channels: int | None = None
    held: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))
        for name, unit in (("length", "a number of samples"), ("rate", "in samples a second")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {unit}, at least 1; got {value}")
        if self.channels not in (None, 1, 2):
            raise ValueError(f"channels must be 1 (mono) or 2 (stereo), got {self.channels}")

    def load(self) -> Source:
        """Raises: FileNotFoundError, ImportError or ValueError with one sentence that names the folder or the file."""
        files = files_in(self.path, SUFFIXES, "recordings")
        if len(files) < 2:
            raise ValueError(f"{self.path} holds {len(files)} recording, but at least 2 are needed")
        waves: list[Wave] = []
        first_rate: int | None = None
        for file, (rate, wave) in zip(files, _read_all(files, self), strict=True):
            first_rate = first_rate or rate
            if rate != first_rate:
                raise ValueError(
                    f"the recordings differ in rate: {files[0]} has {first_rate} samples a second but {file} has "
                    f"{rate}; give one to resample to, such as rate={first_rate} (--set data.rate={first_rate})"
                )
            if waves and len(wave) != len(waves[0]):
                raise ValueError(
                    f"the recordings differ in channels: {files[0]} has {len(waves[0])} but {file} has {len(wave)}; "
                    "give channels=1 or channels=2 (--set data.channels=1)"
                )
            if waves and wave.shape[1] != waves[0].shape[1]:
                raise ValueError(
                    f"the recordings differ in length: {files[0]} has {waves[0].shape[1]} samples but {file} has "
                    f"{wave.shape[1]}; give one, such as length=16384 (--set data.length=16384)"
                )
            waves.append(wave)
        assert first_rate is not None
        silent = [file for file, wave in zip(files, waves, strict=True) if np.ptp(wave) == 0]
        if silent:
            warnings.warn(f"{len(silent)} of {len(files)} recordings are silent, the first {silent[0]}", stacklevel=2)
        try:
            return _opened(np.stack(waves), files, self, first_rate)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


def _opened(waves: Wave, files: Sequence[Path], data: Audio, rate: int) -> Source:
    train, _ = split(len(waves), data.held)
    part = waves[train.numpy()]
    shift, scale = float(part.mean()), float(part.std())
    if scale == 0:
        raise ValueError("all training recordings are silent, so nothing can be learned")
    labels, classes = classes_of([f.relative_to(data.path) for f in files])
    source = Stored(
        torch.from_numpy(((waves - shift) / scale).astype(np.float32)),
        kind="audio",
        held=data.held,
        labels=labels,
        classes=classes,
        shift=shift,
        scale=scale,
    )
    source.info = AudioInfo(**vars(source.info), rate=rate)
    return source


def _read_all(files: Sequence[Path], data: Audio) -> Iterator[tuple[int, Wave]]:
    """The rate and the wave `(C, T)` of each file, made to fit what `data` ask; read in threads, in order."""
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        waves = pool.map(partial(_fitting, data=data), files)
        quiet = len(files) < _MANY or not sys.stderr.isatty()
        console = Console(stderr=True)
        yield from track(waves, "Reading recordings", total=len(files), console=console, disable=quiet, transient=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _fitting(file: Path, data: Audio) -> tuple[int, Wave]:
    rate, wave = read(file)
    if data.channels == 1:
        wave = wave.mean(0, keepdims=True)
    elif data.channels == 2 and len(wave) != 2:
        if len(wave) != 1:
            raise ValueError(f"{file} has {len(wave)} channels, of which no two are asked; give channels=1")
        wave = wave.repeat(2, axis=0)
    if data.rate is not None and data.rate != rate:
        from scipy.signal import resample_poly  # takes a second to import

        common = gcd(data.rate, rate)
        wave, rate = resample_poly(wave, data.rate // common, rate // common, axis=1), data.rate
    if data.length is not None:
        wave = wave[:, : data.length]
        wave = np.pad(wave, ((0, 0), (0, data.length - wave.shape[1])))
    return rate, wave


def read(file: Path) -> tuple[int, Wave]:
    """The rate and the wave `(C, T)`, float64 with full scale 1, of one file.

    Raises: ValueError for a file that is damaged, cut short, empty or not finite; ImportError without soundfile.
    """
    values: npt.NDArray[Any]
    rate, values = _wav(file) if file.suffix.lower() == ".wav" else _soundfile(file)
    if values.size == 0:
        raise ValueError(f"{file} is empty: it holds no samples; remove it")
    wave: npt.NDArray[Any] = values[None] if values.ndim == 1 else np.ascontiguousarray(values.T)
    if wave.dtype.kind in "iu":
        bits = 8 * wave.dtype.itemsize
        middle = 128 if wave.dtype == np.uint8 else 0  # 8-bit sound has no sign
        wave = (wave.astype(np.float64) - middle) / 2.0 ** (bits - 1)
    if not np.isfinite(wave).all():
        raise ValueError(f"{file} holds NaN or infinite values; remove or replace it")
    return rate, wave.astype(np.float64)


def _wav(file: Path) -> tuple[int, npt.NDArray[Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)
            warnings.filterwarnings("ignore", "Chunk", wavfile.WavFileWarning)  # notes of other programs
            rate, values = wavfile.read(file)
        if rate < 1:
            raise ValueError(f"its rate is {rate}")
    except (*_BROKEN, wavfile.WavFileWarning) as error:
        raise ValueError(
            f"{file} cannot be read as a WAV file ({error}); it is damaged, cut short or of a kind that SciPy does not "
            "know: convert it to PCM, or remove it"
        ) from None
    return int(rate), values


def _soundfile(file: Path) -> tuple[int, npt.NDArray[Any]]:
    try:
        import soundfile
    except ImportError:
        raise ImportError(f"{file} is read by soundfile: pip install 'driftfield[audio]'") from None
    try:
        values, rate = soundfile.read(file, dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{file} cannot be read ({error}); it is damaged or of another kind, so remove it") from None
    return int(rate), values
