"""Samples from an exported EDM or PFGM++ model with NumPy and ONNX Runtime alone: python sample_onnx.py model.onnx"""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import numpy as np
import onnxruntime


def opened(path):
    """The program as `y = denoise(x, t, label)`, and what the file says of itself."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    notes = json.loads(session.get_modelmeta().custom_metadata_map["driftfield"])

    def denoise(x, t, label=None):
        inputs = {"x": x.astype(np.float32), "t": np.full(len(x), t, np.float32)}
        if "label" in notes["inputs"]:
            inputs["label"] = np.broadcast_to(np.int64(-1 if label is None else label), len(x))
        return session.run(None, inputs)[0]

    return denoise, notes


def start(notes, n, rng):
    """`n` draws of the noise: normal at the largest time, or for PFGM++ Student's t, whose radius is r = t sqrt(D)."""
    D, shape = float(notes["process"].get("D", "inf")), notes["shape"]
    scale = np.sqrt(D / rng.chisquare(D, n)) if np.isfinite(D) else np.ones(n)
    return notes["process"]["span"][1] * scale.reshape(n, *[1] * len(shape)) * rng.standard_normal((n, *shape))


def sample(denoise, notes, x, steps=18, rho=7, label=None):
    """Heun's method from the noise `x` down Karras's grid, in `2 steps - 1` evaluations; in the user's units."""
    low, high = notes["process"]["span"]
    grid = (high ** (1 / rho) + np.linspace(0, 1, steps) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    grid = np.append(grid, 0)
    for t, s in pairwise(grid):
        slope = (x - denoise(x, t, label)) / t
        euler = x + (s - t) * slope
        x = euler if s == 0 else x + (s - t) / 2 * (slope + (euler - denoise(euler, s, label)) / s)
    return notes["shift"] + notes["scale"] * x


if __name__ == "__main__":
    model, said = opened(sys.argv[1])
    np.save("samples.npy", sample(model, said, start(said, 16, np.random.default_rng(0))))
