"""User's units and the model's are one another's inverse."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from driftfield.column.base import Number
from driftfield.data.base import Info, alike
from driftfield.data.table_info import TableInfo

GREY, COLOUR = (Info("image", (c, 4, 8), shift=127.5, scale=127.5) for c in (1, 3))


@pytest.mark.parametrize(("info", "tail"), [(GREY, ()), (COLOUR, (3,))])
def test_every_byte_survives_the_round_trip(info, tail):
    pixels = np.resize(np.arange(256, dtype=np.uint8), (24, 4, 8, *tail))
    x = info.to_model(pixels)
    assert x.shape == (24, *info.shape)
    assert x.dtype == torch.float32
    assert x.min() == -1
    assert x.max() == 1
    back = info.to_user(x)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, pixels)


def test_channels_move_last():
    x = torch.full((1, 3, 4, 8), -1.0)
    x[0, 2, 1, 5] = 1.0
    pixels = COLOUR.to_user(x)
    assert pixels.shape == (1, 4, 8, 3)
    assert np.argwhere(pixels).tolist() == [[0, 1, 5, 2]]


def test_bytes_round_half_up_and_stop_at_the_ends():
    x = torch.tensor([0.0, 1.5, -7.0, 0.0039]).reshape(1, 1, 1, 4)  # 127.5, -, -, 127.99725
    assert Info("image", (1, 1, 4), shift=127.5, scale=127.5).to_user(x).tolist() == [[[128, 255, 0, 128]]]


def test_numbers_are_shifted_and_scaled():
    info = Info("array", (2, 3), shift=-7.0, scale=0.5)
    x = torch.linspace(-3, 3, 24).reshape(4, 2, 3)
    values = info.to_user(x)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, -7 + 0.5 * x.numpy().astype(np.float64), rtol=1e-7)
    torch.testing.assert_close(info.to_model(values), x, atol=2e-6, rtol=0)  # float32 of 8: 2^-21, over 0.5


def test_refusals():
    with pytest.raises(ValueError, match=r"2 of 3 samples hold NaN"):
        Info("points", (2,)).to_user(torch.tensor([[0.0, 1.0], [0.0, float("nan")], [float("inf"), 0.0]]))
    with pytest.raises(ValueError, match=r"shape \(2,\), got a batch of shape \(4, 3\)"):
        Info("points", (2,)).to_user(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"fit the shape \(2,\), got \(4, 3\)"):
        Info("points", (2,)).to_model(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"kind must be one of image, points, array, .*, got 'picture'"):
        Info("picture", (2,))
    with pytest.raises(ValueError, match="std must be a finite number above 0"):
        Info("array", (2,), std=0.0)


def test_a_far_shift_is_worked_out_in_float64():
    """Values of scale 1e-3 about 1e4, where float32 has steps of 1e-3: each comes back to the rounding of float64 of
    1e4 (2^-39) and that of the float32 sample, up to 2^-22 below 4, times the scale."""
    info = Info("array", (1,), shift=1e4, scale=1e-3)
    normal = torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = info.to_user(normal.float())
    assert values.dtype == np.float64
    assert len(np.unique(values)) == 200
    assert np.abs(values - (1e4 + 1e-3 * normal.numpy())).max() < 2**-39 + 2**-22 * 1e-3
    torch.testing.assert_close(info.to_model(values).double(), normal, rtol=0, atol=2**-22 + 2**-39 / 1e-3)


@pytest.mark.parametrize(
    ("shift", "scale", "kind"),
    [
        (0.0, 1e-30, np.float32),
        (100.0, 1.0, np.float32),
        (15000.0, 1.0, np.float32),  # 16,000 lies below 2^14, where the step is 2^-10, under a thousandth
        (16000.0, 1.0, np.float64),  # 17,000 lies above it, where the step is 2^-9
        (-1e6, 1e-3, np.float64),
        (0.0, 1e100, np.float64),
        (1e-50, 1e-50, np.float64),
    ],
)
def test_float32_unless_its_steps_are_coarse(shift, scale, kind):
    values = Info("array", (1,), shift=shift, scale=scale).to_user(torch.tensor([[-3.0], [0.0], [3.0]]))
    assert values.dtype == kind
    assert np.isfinite(values).all()


def test_information_is_compared_to_nine_digits():
    """Sums that other threads took differ in their last digits; anything more, or anything else, is another thing."""
    info = Info("array", (3,), ("a", "b"), 5.0, 2.0, 100, 0.7)
    assert alike(info, replace(info, std=0.7 * (1 + 1e-12), shift=5 * (1 - 1e-10)))
    for other in (
        {"std": 0.7 * (1 + 1e-8)},
        {"shift": 5.0001},
        {"count": 101},
        {"classes": ("a", "c")},
        {"classes": ("a",)},
        {"kind": "image"},
        {"shape": (4,)},
    ):
        assert not alike(info, replace(info, **other))
    column = Number("n", "float64", 10, (0.0, 1 / 3), (0.0, 10.0), None)
    table = TableInfo("table", (1,), columns=(column,))
    nearer, farther = (replace(column, knots=(0.0, 1 / 3 + step)) for step in (1e-13, 1e-8))
    assert alike(table, replace(table, columns=(nearer,)))
    assert not alike(table, replace(table, columns=(farther,)))
    assert not alike(table, replace(table, columns=(column, column)))
    assert not alike(table, info)
