"""User's units and the model's are one another's inverse."""

import numpy as np
import pytest
import torch

from driftfield.data.base import Info

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
