"""Samples as files: in the user's units to all the digits that they have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from driftfield.data.base import Info
from driftfield.report.files import write_samples
from driftfield.rng import normal, seeded


@pytest.mark.parametrize(("shift", "scale", "kind"), [(1e4, 1e-3, np.float64), (3.0, 1.0, np.float32)])
def test_arrays_keep_their_digits(tmp_path, shift, scale, kind):
    """In `.npz` and in `.csv` alike; text reads back as the same numbers, and a far shift leaves 200 distinct ones."""
    info = Info("array", (3,), shift=shift, scale=scale)
    x = normal(torch.empty(200, 3), seeded(0))
    assert write_samples(x, None, info, tmp_path, None) == ["samples.npz", "samples.csv"]
    values = np.load(tmp_path / "samples.npz")["x"]
    assert values.dtype == kind
    np.testing.assert_array_equal(values, info.to_user(x))
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "samples.csv", delimiter=",", skiprows=1, dtype=kind), values)
    assert all(len(np.unique(column)) == 200 for column in values.T)
