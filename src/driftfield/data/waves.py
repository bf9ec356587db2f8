"""Recordings as pictures: each one's wave above its spectrogram."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
WIDE, HIGH = 256, 64  # pixels of a wave, and of the spectrogram below it
_RANGE = 80.0  # decibels from the brightest to black
_SHADES = np.array([[12, 10, 30], [70, 25, 110], [190, 55, 85], [250, 150, 40], [252, 250, 190]], dtype=np.float64)


def panels(waves: npt.NDArray[np.floating]) -> Bytes:
    """Pictures `(n, 2 HIGH, WIDE, 3)` of waves `(n, C, T)`, the mean of whose channels is shown.

    Above, time runs to the right and the band reaches from the least to the largest value within each column, full
    scale from edge to edge (what passes it is cut off); below, frequency from 0 to half the rate upwards, in decibels
    below the loudest of this wave.
    """
    found = [np.concatenate((_band(wave), _spectrogram(wave))) for wave in waves.mean(1, dtype=np.float64)]
    return np.stack(found)


def _band(wave: npt.NDArray[np.float64]) -> Bytes:
    edges = np.linspace(0, len(wave), WIDE + 1).astype(int)
    picture = np.full((HIGH, WIDE, 3), 255, np.uint8)
    for x, (a, b) in enumerate(pairwise(edges)):
        part = wave[min(a, len(wave) - 1) : max(b, a + 1)]
        top, bottom = (np.clip((1 - v) / 2 * (HIGH - 1), 0, HIGH - 1) for v in (part.max(), part.min()))
        picture[round(top) : round(bottom) + 1, x] = (31, 90, 160)
    return picture


def _spectrogram(wave: npt.NDArray[np.float64]) -> Bytes:
    size = min(512, 2 ** int(np.log2(max(len(wave) // 16, 16))))  # at least 16 frames, side by side
    middles = np.linspace(0, len(wave) - 1, WIDE).astype(int)
    padded = np.pad(wave, size)
    frames = padded[middles[:, None] + np.arange(size) + size // 2] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)).T[::-1] ** 2  # the highest frequency on top
    rows = np.linspace(0, len(power) - 1, HIGH).round().astype(int)
    loudest = power.max()
    if loudest == 0:
        return np.broadcast_to(_SHADES[0].astype(np.uint8), (HIGH, WIDE, 3)).copy()
    floor = loudest * 10 ** (-_RANGE / 10)
    decibels = 10 * np.log10(np.maximum(power[rows], floor) / floor) / _RANGE
    at = np.linspace(0, 1, len(_SHADES))
    return np.stack([np.interp(decibels, at, _SHADES[:, c]) for c in range(3)], -1).round().astype(np.uint8)
