"""Generation: rows depend on their seed alone, starts and streams and errors are as promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import driftfield as df
from driftfield.generation import plan
from driftfield.network.embed import Condition
from driftfield.rng import rows
from driftfield.solve.base import cost

DATA = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
restarted = lambda p, n, **k: df.restart(df.karras(p, n + 3, **k), [(3, 1, 0.2, 1.0)], process=p)


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=2.0), df.PFGMPP(D=128.0)], ids=str)
@pytest.mark.parametrize("grid", ["natural", restarted], ids=["plain", "restart"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_samples_do_not_depend_on_the_batch(process, grid, dtype, bound):
    denoiser = df.Empirical(process, DATA.to(dtype))
    draw = lambda **kw: df.generate(
        process, denoiser, (kw.pop("n", 9), 2, 3), nfe=30, seed=5, dtype=dtype, grid=grid, **kw
    )
    whole = draw(batch=9)
    scale = DATA.std().item()
    for other in (draw(batch=1), draw(batch=4), torch.cat((draw(n=2), draw(n=7, first=2)))):
        assert (other - whole).abs().max() < bound * scale


def test_noise_bits_do_not_depend_on_the_batch():
    for process in (df.EDM(), df.PFGMPP(D=0.5), df.PFGM()):
        whole = process.prior((6, 5), rows(7, 0, 6))
        assert torch.equal(whole[2:4], process.prior((2, 5), rows(7, 2, 4)))
        t = torch.tensor(1.0, dtype=torch.float64)
        up = process.diffuse(whole, t, 2 * t, rows(8, 0, 6))
        assert torch.equal(up[2:4], process.diffuse(whole[2:4], t, 2 * t, rows(8, 2, 4)))


def test_seeds_differ_and_repeat():
    process, denoiser = df.EDM(), df.Empirical(df.EDM(), DATA)
    a, b, c = (df.generate(process, denoiser, (4, 2, 3), seed=s, dtype=torch.float64) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=128.0)], ids=str)
def test_start_is_noised_to_the_level(process):
    """SDEdit: with the exact denoiser of the data, a start at a small level comes back to its own datum."""
    denoiser = df.Empirical(process, DATA)
    near = df.generate(process, denoiser, (40, 2, 3), start=DATA + 0.01, level=0.05, nfe=15, dtype=torch.float64)
    assert (near - DATA).abs().max() < 1e-3
    far = df.generate(process, denoiser, (40, 2, 3), start=DATA[0], level=50.0, nfe=31, dtype=torch.float64)
    assert len({int((f - DATA).flatten(1).norm(dim=1).argmin()) for f in far}) > 5


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=float("inf"))], ids=str)
def test_a_path_that_begins_low_begins_with_its_own_noise(process):
    """Unit normal data from level 8 down: deviation 8 / sqrt(65) = 0.992 by the closed form, not 10 times as much."""

    def grid(p, n, **k):
        return df.karras(p, n, high=8.0, **k)

    drawn = df.generate(process, df.Normal(process, 0.0, 1.0), (4000, 1), grid=grid, nfe=99, dtype=torch.float64)
    assert abs(drawn.std().item() - 8 / 65**0.5) < 0.01 + 4 * (1 / 8000) ** 0.5


def test_encoding_needs_data():
    grid = df.karras(df.EDM(), 5)[:-1].flip(0)
    with pytest.raises(ValueError, match="give the data as start="):
        df.generate(df.EDM(), df.Point(torch.zeros(2)), (2, 2), grid=grid)


@pytest.mark.parametrize("nfe", [1, 2, 3, 7, 20, 33, 301])
def test_the_longest_path_is_found(nfe):
    """By search from the top: no grid of more steps keeps the budget."""
    for solver in (df.Euler(), df.Heun(), df.RK4()):
        best = max(k for k in range(1, nfe + 1) if cost(df.karras(df.EDM(), k), solver) <= nfe)
        assert len(plan(df.EDM(), solver=solver, nfe=nfe).path) == best + 1


def test_streaming_writes_what_memory_would_hold(tmp_path):
    process, denoiser = df.EDM(), df.Point(torch.tensor([1.0, 2.0]))
    kept = df.generate(process, denoiser, (10, 2), nfe=5)
    streamed = df.generate(process, denoiser, (10, 2), nfe=5, batch=3, to=tmp_path / "x.npy")
    assert streamed.nfe == kept.nfe == 5
    assert torch.equal(streamed, kept)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), kept.numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_a_failure_leaves_no_file(tmp_path):
    def broken(x, t, cond=None):
        return x / 0 if t < 1 else x * 0

    with pytest.raises(FloatingPointError, match=r"not finite after step \d+ of \d+ \(time 0\.\d+\)"):
        df.generate(df.EDM(), broken, (4, 2), nfe=20, batch=2, to=tmp_path / "x.npy")
    assert list(tmp_path.iterdir()) == []


def test_conditions_travel_with_their_rows():
    data, labels = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1, 1, 0, 1])

    def by_label(x, t, cond=None):
        label = cond.label if isinstance(cond, Condition) else cond
        return data[label]

    for cond in (labels, Condition(label=labels)):
        drawn = df.generate(df.EDM(), by_label, (5, 1), cond=cond, batch=2, nfe=5)
        torch.testing.assert_close(drawn, data[labels])


def test_a_given_path_is_walked_whole():
    process, point = df.EDM(), df.Point(torch.zeros(2))
    assert df.generate(process, point, (2, 2), grid=df.karras(process, 18)).nfe == 18
    assert df.generate(process, point, (2, 2), solver="heun", grid=df.karras(process, 18)).nfe == 35
    with pytest.raises(ValueError, match="costs 35 evaluations but nfe=20"):
        df.generate(process, point, (2, 2), solver="heun", grid=df.karras(process, 18), nfe=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "hun"}, "unknown solver 'hun'; did you mean 'heun'"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"nfe": 0}, "at least 1"),
        ({"solver": "rk4", "nfe": 3, "grid": lambda p, n, **k: df.karras(p, n + 1, **k)[:-1]}, "more than nfe=3"),
        ({"level": 1.0}, "give start="),
        ({"start": torch.zeros(3, 2)}, "must be one sample"),
        ({"start": torch.full((2,), float("nan"))}, "not finite"),
        ({"batch": 0}, "at least one"),
        ({"to": "x.npz"}, ".npy"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        df.generate(df.EDM(), df.Point(torch.zeros(2)), (2, 2), **options)


def test_s_noise_scales_the_noise_of_climbs():
    process = df.VP()
    x = torch.zeros(20_000, 1, dtype=torch.float64) + 0.3
    s, t = torch.tensor(0.2, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    up = df.Reverse(process, df.Point(torch.zeros(1)), s_noise=1.1).diffuse(x, s, t, torch.Generator().manual_seed(0))
    ratio = (process.alpha(t) / process.alpha(s)).item()
    sd = 1.1 * (process.sigma(t) ** 2 - ratio**2 * process.sigma(s) ** 2).sqrt().item()
    assert abs(up.mean().item() - ratio * 0.3) < 4 * sd / 20_000**0.5
    assert abs(up.std().item() / sd - 1) < 4 / (2 * 20_000) ** 0.5


@pytest.mark.parametrize("solver", [df.Euler(), df.Heun(), df.RK4()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.SubVP(), df.VE(), df.Rectified(), df.PFGMPP(D=8.0)], ids=str)
def test_nothing_reads_the_device_inside_the_loop(process, solver):
    """A state without storage: whatever would wait for its values (`item`, `bool`, a copy to the host) raises."""
    denoiser = df.Preconditioned(df.MLP((3,), width=8, depth=1), process).to("meta")
    x = torch.empty(4, 3, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError), match=r"[Mm]eta"):
        x.sum().item()
    grid = df.power(process, 4) if isinstance(process, df.Rectified) else df.karras(process, 4)
    last = df.sample(df.Reverse(process, denoiser), x, grid, solver, torch.Generator())
    assert last.device.type == "meta"
    assert last.dtype == torch.float32


def test_a_solver_that_remembers_more_than_there_are_steps():
    """By value it is refused; a name means at most its order. Restarts make short descents of a long path."""
    process, denoiser = df.EDM(), df.Normal(df.EDM(), 0.0, 1.0)
    with pytest.raises(ValueError, match=r"remembers 4 evaluations, but the longest descent of this path has 2 steps"):
        df.generate(process, denoiser, (2, 3), solver=df.DEIS(4), nfe=2)
    assert df.generate(process, denoiser, (2, 3), solver="deis", nfe=2).nfe == 2
    climbing = torch.tensor([5.0, 2.0, 4.0, 1.0, 3.0, 0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match="has 1 step; lower its order"):
        df.generate(process, denoiser, (2, 3), solver=df.DEIS(2), grid=climbing)


@pytest.mark.parametrize(
    "wrong", [lambda x, t, c=None: x[:, :1], lambda x, t, c=None: x.sum(), lambda x, t, c=None: x[:2]]
)
def test_a_denoiser_of_another_shape_is_named_with_its_time(wrong):
    with pytest.raises(ValueError, match=r"returned shape \(.*\) at time 80, but for each of the data \(4, 3\)"):
        df.generate(df.EDM(), wrong, (4, 3), nfe=5)
