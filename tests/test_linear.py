"""The contract that every structured map inherits, against dense matrices."""

from __future__ import annotations

import pytest
import torch
from scipy import fft

from driftfield.linear import Block, Linear, Scalar, expand, flat
from driftfield.spectral import Filter, Spectral, cosine, frequencies


def scalar(rng, rowwise):
    shape = (3,) if rowwise else ()
    return Scalar(0.5 + torch.rand(shape, generator=rng, dtype=torch.float64))


def block(rng, rowwise):
    shape = (3, 2, 2) if rowwise else (2, 2)
    return Block(torch.eye(2, dtype=torch.float64) + 0.3 * torch.randn(shape, generator=rng, dtype=torch.float64))


def spectral(rng, rowwise):
    shape = (3, 5, 4) if rowwise else (5, 4)
    return Spectral(0.5 + torch.rand(shape, generator=rng, dtype=torch.float64), rowwise)


def filtering(rng, rowwise):
    times = torch.rand((3, 1, 1) if rowwise else (), generator=rng, dtype=torch.float64)
    return Filter((lambda lam: (-times * lam).exp(), lambda lam: 0.5 + 0 * lam), rowwise)


@pytest.fixture(
    params=[
        (scalar, (3, 2)),
        (scalar, (3, 2, 5, 4)),
        (block, (3, 2)),
        (block, (3, 2, 1, 5)),
        (spectral, (3, 2, 5, 4)),
        (spectral, (3, 5, 4)),
        (filtering, (3, 2, 5, 4)),
    ]
)
def kind(request):
    return request.param


@pytest.mark.parametrize("rowwise", [False, True])
class TestContract:
    def make(self, kind, rowwise, rng) -> tuple[Linear, Linear, torch.Tensor, torch.Tensor]:
        build, shape = kind
        x, y = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
        return build(rng, rowwise), build(rng, False), x, y

    def test_algebra(self, kind, rowwise, rng):
        p, q, x, y = self.make(kind, rowwise, rng)
        close = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        close(p(2 * x + y), 2 * p(x) + p(y))
        close((p @ q)(x), p(q(x)))
        close((q @ p)(x), q(p(x)))
        close((p + q)(x), p(x) + q(x))
        close((p - q)(x), p(x) - q(x))
        close(p.scale(-1.7)(x), -1.7 * p(x))
        close(p.inv(p(x)), x)
        close((p(x) * y).sum(), (x * p.T(y)).sum())

    def test_log_det(self, kind, rowwise, rng):
        """Of `P @ Q` it is the sum; of one map that of the dense matrix."""
        p, q, x, _ = self.make(kind, rowwise, rng)
        torch.testing.assert_close((p @ q).log_det(x), p.log_det(x) + q.log_det(x))
        basis = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
        torch.testing.assert_close(q.log_det(x), torch.linalg.slogdet(q(basis).flatten(1).mT)[1])
        assert p.log_det(x).shape == ((3,) if rowwise else ())

    def test_keeps_shape_and_dtype(self, kind, rowwise, rng):
        p, _, x, _ = self.make(kind, rowwise, rng)
        assert p(x.float()).dtype == torch.float32
        assert p(x).shape == x.shape

    def test_rows_are_independent(self, kind, rowwise, rng):
        p, _, x, y = self.make(kind, rowwise, rng)
        mixed = torch.cat((x[:1], y[1:]))
        torch.testing.assert_close(p(mixed)[0], p(x)[0], rtol=0, atol=1e-14)


def test_a_filter_is_spectral_on_the_grid_it_meets(rng):
    """On one grid after another, in either precision; a sum of a thousand terms is no deeper than one."""
    heat = Filter((lambda lam: (-0.3 * lam).exp(),))
    for shape in ((2, 1, 7), (2, 3, 4, 5), (2, 3, 4, 5), (1, 2, 3, 4, 2)):
        x = torch.randn(shape, generator=rng, dtype=torch.float64)
        lam = frequencies(shape[2:], x.device)
        wanted = Spectral((-0.3 * lam).exp())(x)
        torch.testing.assert_close(heat(x), wanted, rtol=0, atol=1e-14)
        torch.testing.assert_close(heat(x.float()), wanted.float())
    k, n = torch.arange(5, dtype=torch.float64), torch.tensor(5.0, dtype=torch.float64)
    torch.testing.assert_close(frequencies((5,), n.device), (torch.pi * k / n).square())
    total = heat
    for _ in range(2000):
        total = total + heat
    torch.testing.assert_close(total.scale(1 / 2001)(x), heat(x))


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 8, 5), (1, 1, 1)])
def test_cosine_transform_is_scipys_orthonormal_one(shape, rng):
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    axes = len(shape) - 1
    expected = torch.from_numpy(fft.dctn(x.numpy(), type=2, axes=range(1, len(shape)), norm="ortho"))
    torch.testing.assert_close(cosine(x, axes), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(cosine(cosine(x, axes), axes, inverse=True), x, rtol=0, atol=1e-12)


def test_a_number_per_row_takes_the_dtype_of_the_state():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        x = torch.ones(3, 2, dtype=dtype)
        for a in (torch.ones((), dtype=torch.float64), torch.ones(3, dtype=torch.float64), torch.ones(1)):
            assert (expand(a, x) * x).dtype == dtype
            assert Scalar(a)(x).dtype == dtype
    assert expand(torch.tensor([True, False]), torch.ones(2, 2)).dtype == torch.bool


def test_flat_keeps_rows():
    for shape, flattened in (((3,), (3, 1)), ((0,), (0, 1)), ((0, 2, 4), (0, 8)), ((3, 2, 4), (3, 8))):
        assert flat(torch.ones(shape)).shape == flattened


def test_misfits_are_refused():
    with pytest.raises(ValueError, match="one per row of a batch of 4"):
        expand(torch.ones(3), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"\(B, 2, \.\.\.\)"):
        Block(torch.eye(2))(torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"\(B, C, \*grid\)"):
        Filter((torch.exp,))(torch.ones(4, 3))
    with pytest.raises(ValueError, match="do not fit"):
        Spectral(torch.ones(4, 4))(torch.ones(2, 1, 5, 5))
