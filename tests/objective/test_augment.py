"""Augmentation: the label says what was done, and doing nothing changes nothing."""

import math

import pytest
import torch

from driftfield.objective.augment import Augment
from driftfield.rng import normal, rows, seeded

ALL = Augment(probability=0.5, flip_y=True)
OFF = {"flip_x": False, "flip_y": False, "scale": 0.0, "rotate": 0.0, "stretch": 0.0, "translate": 0.0}


def images(b=6, c=3, h=12, w=16, dtype=torch.float64):
    return normal(torch.empty(b, c, h, w, dtype=dtype), seeded(1))


def blob(x, y, matrix=((1.0, 0.0), (0.0, 1.0)), shift=(0.0, 0.0), n=64):
    """A round Gaussian spot of deviation 4, centred (x, y) pixels right of and above the middle of a picture, as the
    linear map `matrix` and then `shift`, right and up, carry it: exact at every pixel."""
    i = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    at = torch.stack((i.expand(n, n), -i[:, None].expand(n, n)), -1) - torch.tensor(shift, dtype=torch.float64)
    old = torch.linalg.solve(torch.as_tensor(matrix, dtype=torch.float64), at[..., None])[..., 0]
    off = old - torch.tensor([x, y], dtype=torch.float64)
    return torch.exp(-off.square().sum(-1) / (2 * 4.0**2)).reshape(1, 1, n, n)


def close(a, b, tolerance):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), atol=tolerance, rtol=0)


def test_channels_count_what_is_switched_on():
    assert Augment().channels == 1 + 1 + 2 + 2 + 2
    assert Augment(flip_y=True, rotate=0.0).channels == 7
    assert Augment(**{**OFF, "flip_y": True}).channels == 1
    x, label = Augment()(images(), seeded(0))
    assert x.shape == images().shape
    assert label.shape == (6, Augment().channels)


def test_probability_zero_changes_no_bit():
    x = images()
    out, label = Augment(probability=0.0, flip_y=True)(x, seeded(0))
    assert torch.equal(out, x)
    assert (label == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_left_alone_keep_every_bit_and_others_move(dtype):
    x = images(200, dtype=dtype)
    out, label = Augment(probability=0.12, flip_y=True)(x, seeded(2))
    assert out.dtype == dtype
    for before, after, row in zip(x, out, label, strict=True):
        expected = before.flip(-1) if row[0] else before
        expected = expected.flip(-2) if row[1] else expected
        assert torch.equal(after, expected) == bool((row[2:] == 0).all())
    assert 20 < int((label == 0).all(1).sum()) < 180


def test_flips_are_their_own_inverse():
    augment = Augment(probability=0.5, **{**OFF, "flip_x": True, "flip_y": True})
    x = images(64)
    out, label = augment(x, seeded(3))
    assert set(map(tuple, label.tolist())) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert torch.equal(augment.transform(out, label), x)


def test_each_is_applied_with_the_probability_and_alone_has_the_stated_law():
    """n = 20,000 labels; every bound is 5 standard errors."""
    n, p = 20_000, 0.3
    label = Augment(probability=p, flip_y=True, rotate=0.5).label(n, seeded(4)).double()
    applied = torch.stack([part.ne(0).any(1) for part in label.split([1, 1, 1, 2, 2, 2], 1)], 1).double()
    assert (applied.mean(0) - p).abs().max() < 5 * math.sqrt(p * (1 - p) / n)
    pairs = applied.T @ applied / n  # independent of one another
    off = pairs[~torch.eye(6, dtype=torch.bool)]
    assert (off - p * p).abs().max() < 5 * math.sqrt(p * p * (1 - p * p) / n)
    for column in (2, 5, 6, 7, 8):
        z = label[label[:, column] != 0, column]
        assert abs(z.mean()) < 5 / math.sqrt(len(z))
        assert abs(z.var() - 1) < 5 * math.sqrt(2 / len(z))
    turned = label[label[:, 4] != 0]
    angle = torch.atan2(turned[:, 4], 1 + turned[:, 3]) / (math.pi / 2)
    assert angle.abs().max() <= 1
    assert abs(angle.mean()) < 5 / math.sqrt(3 * len(angle))
    assert abs(angle.square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / len(angle))


def test_a_row_depends_on_its_generator_alone():
    x = images(6)
    out, label = ALL(x, rows(5, 0, 6))
    for start in (0, 2, 4):
        part, part_label = ALL(x[start : start + 2], rows(5, start, start + 2))
        assert torch.equal(part_label, label[start : start + 2])
        close(part, out[start : start + 2], 1e-12)


def test_quarter_turns_are_exact():
    x = images(1, 2, 16, 16)
    augment = Augment(**{**OFF, "rotate": 1.0})
    for k in range(4):
        angle = torch.tensor(k * math.pi / 2, dtype=torch.float64)
        label = torch.stack((angle.cos() - 1, angle.sin()))[None]
        close(augment.transform(x, label), x.rot90(k, (-2, -1)), 1e-12)


def test_whole_pixel_shifts_are_exact_and_mirrored_at_the_border():
    x = images(1, 2, 8, 10)
    label = torch.tensor([[2 / 10, -1 / 8]], dtype=torch.float64)  # two to the right, one up, of (W, H) = (10, 8)
    out = Augment(**{**OFF, "translate": 1.0}).transform(x, label)
    close(out[..., :-1, 2:], x[..., 1:, :-2], 1e-12)
    close(out[..., :-1, :2], x[..., 1:, :2].flip(-1), 1e-12)  # the mirror stands at the picture's edge
    close(out[..., -1, 2:], x[..., -1, :-2], 1e-12)


C, S = math.cosh(math.log(2) / 2), math.sinh(math.log(2) / 2)
# torch's cubic (a = -3/4) is off by (2a + 1) s (1 - s) (1 - 2s) <= 0.0482 pixels times the slope, and by f''/16, along
# each axis; a spot of deviation 4 has slopes up to exp(-1/2) / 4 and f'' up to 1/16
ERROR = math.sqrt(2) * 0.0482 * math.exp(-0.5) / 4 + 2 / 16 / 16
INNER = (..., slice(8, -8), slice(8, -8))  # out of reach of the mirrored borders


@pytest.mark.parametrize(
    ("name", "strength", "label", "matrix"),
    [
        ("scale", 0.5, [1.0], [[2**0.5, 0], [0, 2**0.5]]),
        ("scale", 0.5, [-1.0], [[2**-0.5, 0], [0, 2**-0.5]]),
        ("rotate", 1.0, [0.5 - 1, 0.75**0.5], [[0.5, -(0.75**0.5)], [0.75**0.5, 0.5]]),  # 60 degrees counter-clockwise
        ("stretch", 0.25, [2.0, 0.0], [[2**0.5, 0], [0, 2**-0.5]]),  # along x
        ("stretch", 0.25, [-2.0, 0.0], [[2**-0.5, 0], [0, 2**0.5]]),  # along y
        ("stretch", 0.25, [0.0, 2.0], [[C, S], [S, C]]),  # along the rising diagonal
    ],
)
def test_a_label_is_the_linear_map_it_says(name, strength, label, matrix):
    """Pixel by pixel. The bound is that of the interpolation; a displacement by 1/8 pixel would exceed it."""
    augment = Augment(**{**OFF, name: strength})
    out = augment.transform(blob(6.0, 3.0), torch.tensor([label], dtype=torch.float64))
    close(out[INNER], blob(6.0, 3.0, matrix)[INNER], ERROR)


def test_all_together_are_one_map_in_the_stated_order():
    """Flip, zoom, turn, stretch, shift: each pixel is what the product of the maps brings there."""
    augment = Augment(flip_x=True, flip_y=False, scale=0.2, rotate=1.0, stretch=0.2, translate=0.05)
    angle = 0.7
    label = [1.0, 0.8, math.cos(angle) - 1, math.sin(angle), 0.6, -0.8, 1.2, -0.9]
    zoom = 2 ** (0.2 * 0.8)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    stretch = torch.matrix_exp(0.2 * math.log(2) * torch.tensor([[0.6, -0.8], [-0.8, -0.6]], dtype=torch.float64))
    flip = torch.tensor([-1.0, 1.0], dtype=torch.float64).diag()
    shift = (0.05 * 64 * 1.2, 0.05 * 64 * 0.9)  # down is negative here
    out = augment.transform(blob(7.0, -4.0), torch.tensor([label], dtype=torch.float64))
    close(out[INNER], blob(7.0, -4.0, stretch @ turn @ flip * zoom, shift)[INNER], ERROR)


def test_wide_pictures_turn_without_shear():
    """A spot in a 64 x 128 picture turned by 90 degrees about the centre stays round."""
    wide = torch.zeros(1, 1, 64, 128, dtype=torch.float64)
    wide[..., 32:96] = blob(10.0, 0.0)
    label = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    out = Augment(**{**OFF, "rotate": 1.0}).transform(wide, label)[..., 32:96]
    close(out, blob(0.0, 10.0), 1e-3)


def test_refusals():
    with pytest.raises(ValueError, match=r"images \(B, C, H, W\), got shape \(4, 8\)"):
        ALL(torch.zeros(4, 8), seeded(0))
    with pytest.raises(ValueError, match=r"labels of shape \(2, 9\), got \(2, 3\)"):
        ALL.transform(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"probability must be from 0 to 1, got 1\.5"):
        Augment(probability=1.5)
    with pytest.raises(ValueError, match="scale must be a finite number, at least 0"):
        Augment(scale=-0.1)
    with pytest.raises(ValueError, match="every transform is left out"):
        Augment(**OFF)
