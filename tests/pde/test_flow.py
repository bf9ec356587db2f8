"""Sums over data, waves on a grid, overlaps, numerical transforms: against closed forms and against each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from driftfield import pde
from driftfield.denoise.empirical import Empirical
from driftfield.pde.flow import blob, overlap, posterior, simulate, time_at
from driftfield.pde.hankel import radial
from driftfield.process.gaussian import EDM
from driftfield.process.poisson import PFGM
from driftfield.rng import normal, seeded
from driftfield.special import gauss_legendre

DOUBLE = torch.float64


def at(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def points(n: int, m: int, key: int = 0) -> Tensor:
    return normal(torch.empty(m, n, dtype=DOUBLE), seeded(5, key))


# --- numerical transforms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 9))
def test_radial_transforms_with_known_answers(n):
    """A Gaussian, a Cauchy law near and far, and one with an algebraic transform: `(1 + k^2)^-a`, a Matern kernel."""
    s = at(0.0, 0.01, 0.7, 3.0, 9.0)
    gauss = (2 * math.pi) ** (-n / 2) * (-s.square() / 2).exp()
    torch.testing.assert_close(radial(lambda k: (-k.square() / 2).exp(), s, n), gauss, rtol=0, atol=1e-12)
    far = at(0.0, 0.5, 40.0, 1000.0)[: 4 if n < 7 else 3]
    cauchy = math.gamma((n + 1) / 2) * math.pi ** (-(n + 1) / 2) * (1 + far.square()) ** (-(n + 1) / 2)
    torch.testing.assert_close(radial(lambda k: (-k).exp(), far, n), cauchy, rtol=1e-8 * 30 ** max(0, n - 3), atol=0)
    if n == 3:  # a = 2: exp(-s) / (8 pi)
        known = (-s[1:]).exp() / (8 * math.pi)
        torch.testing.assert_close(radial(lambda k: (1 + k.square()) ** -2, s[1:], 3), known, rtol=1e-9, atol=1e-13)
        centre = radial(lambda k: (1 + k.square()) ** -2, at(0.0), 3)
        torch.testing.assert_close(centre, at(1 / (8 * math.pi)), rtol=1e-9, atol=0)


def test_radial_transforms_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="in up to 8 dimensions, got 9"):
        radial(lambda k: (-k).exp(), at(1.0), 9)
    assert radial(lambda k: 1 / (1 + k), at(0.0), 2).isinf()
    with pytest.raises(ValueError, match="does not converge"):
        radial(lambda k: (k * 7.3).cos(), at(1.0), 2)


# --- sums over data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5])
def test_flow_of_data_is_that_of_the_process(n):
    """Of Poisson, PFGM's; of diffusion, EDM's at the noise `sigma = sqrt(2 t)`, `d sigma / dt = 1 / sigma`."""
    x, data = 2 * points(n, 7), points(n, 20, 1)
    density, velocity, rate = posterior(pde.Poisson(), x, 0.8, data)
    process, t = PFGM(), at(0.8)[0]
    torch.testing.assert_close(velocity, process.velocity(x, t, Empirical(process, data)(x, t)))
    torch.testing.assert_close(density.log(), Empirical(process, data).log_prob(x, t))
    assert not rate.any()
    sigma = at(math.sqrt(2 * 0.8))[0]
    gauss, found = EDM(), posterior(pde.Diffusion(), x, 0.8, data)
    torch.testing.assert_close(found[1], gauss.velocity(x, sigma, Empirical(gauss, data)(x, sigma)) / sigma)
    torch.testing.assert_close(found[0].log(), Empirical(gauss, data).log_prob(x, sigma))


def test_flow_of_data_in_many_dimensions():
    """In 3072 dimensions a density is out of range of numbers, but not its logarithm nor the posterior."""
    x, data = 3 * points(3072, 4), points(3072, 9, 1)
    process, t = PFGM(), at(2.0)[0]
    known = process.velocity(x, t, Empirical(process, data)(x, t))
    torch.testing.assert_close(posterior(pde.Poisson(), x, 2.0, data)[1], known)
    torch.testing.assert_close(posterior(pde.Yukawa(1e-6), x, 2.0, data)[1], known, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "equation",
    [pde.Diffusion(), pde.Poisson(), pde.Yukawa(1.3), pde.Mixed(0.8, 1.7), pde.Helmholtz(0.3), pde.Fractional(0.7)],
    ids=lambda e: e.name,
)
def test_continuity_on_a_mixture_of_three_points(equation):
    """`dp/dt + div(p v) = rate p` by central differences of order 2, whose error falls with the square of the step."""
    data, x, t = at(0.0, 0.0, 1.0, 0.3, -0.4, 0.8).reshape(3, 2), points(2, 6, 2), 0.9

    def residual(h: float) -> Tensor:
        p, _, rate = posterior(equation, x, t, data)
        change = (posterior(equation, x, t + h, data)[0] - posterior(equation, x, t - h, data)[0]) / (2 * h)
        for j in range(2):
            step = h * torch.eye(2, dtype=DOUBLE)[j]
            (p1, v1, _), (p0, v0, _) = (posterior(equation, x + sign * step, t, data) for sign in (1, -1))
            change = change + (p1 * v1[:, j] - p0 * v0[:, j]) / (2 * h)
        return change - rate * p

    coarse, fine = residual(0.02).abs().max(), residual(0.005).abs().max()
    assert float(fine) < float(coarse) / 12


def test_what_cannot_be_summed_is_refused():
    with pytest.raises(ValueError, match="do not add up over data"):
        posterior(pde.Schrodinger(), points(2, 3), 1.0, points(2, 3))
    with pytest.raises(ValueError, match=r"must be \(B, N\) and \(M, N\)"):
        posterior(pde.Poisson(), points(2, 3), 1.0, points(3, 3))
    ahead = posterior(pde.DissipativeWave(1.0), 10 + points(2, 3), 1.0, points(2, 3))
    assert ahead[1].isnan().all(), "no wave has come there yet"


# --- waves on a grid --------------------------------------------------------------------------------------------------


def blobs(size: int, side: float, width: float, t: float, equation: pde.PDE) -> tuple[Tensor, Tensor, Tensor]:
    axis = (torch.arange(size, dtype=DOUBLE) - size // 2) * side / size
    s = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
    density = (-s.square().sum(0) / (2 * width**2)).exp() / (2 * math.pi * width**2)
    fluid = simulate(equation, torch.fft.ifftshift(density), t, side)
    return s, torch.fft.fftshift(fluid.density), torch.fft.fftshift(fluid.flux, (1, 2))


@pytest.mark.parametrize(
    "equation",
    [pde.Diffusion(), pde.IdealWave(), pde.DissipativeWave(2.0), pde.Schrodinger(), pde.Biharmonic(), pde.Mixed()],
    ids=lambda e: e.name,
)
def test_waves_on_a_grid_are_the_blob_of_the_plane(equation):
    """While nothing has come round the periodic box; and the flux is outward, of the size that continuity wants."""
    t = 0.12 if equation.name == "schrodinger" else 0.6
    s, density, flux = blobs(192, 16.0, 0.3, t, equation)
    row = slice(96, 130)
    known = blob(equation, s[0][row, 96], t, 2, 0.3)
    tail = {"mixed": 3e-4, "biharmonic": 3e-5}.get(equation.name, 1e-9)  # a heavy tail comes round early
    torch.testing.assert_close(density[row, 96], known, rtol=0, atol=tail * float(known.abs().max()))
    assert float(flux[1][row, 96].abs().max()) < 1e-9
    later, before = (blobs(192, 16.0, 0.3, t + h, equation)[1] for h in (1e-4, -1e-4))
    k = 2 * math.pi * torch.fft.fftfreq(192, 16.0 / 192, dtype=DOUBLE)
    waves = torch.fft.fft2(flux)
    divergence = torch.fft.ifft2(1j * k[:, None] * waves[0] + 1j * k * waves[1]).real
    change = (later - before) / 2e-4
    assert float((change + divergence).abs().max()) < 1e-4 * float(change.abs().max())


def test_a_simulation_refuses_what_it_cannot_be():
    density = torch.ones(8, 8, dtype=DOUBLE)
    with pytest.raises(ValueError, match="grow without bound"):
        simulate(pde.Custom(dispersion="I*k**2"), density, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"must be \(X, X\) and >= 0"):
        simulate(pde.Diffusion(), -density, 1.0, 1.0)
    with pytest.raises(ValueError, match="time must be above 0"):
        simulate(pde.Diffusion(), density, 0.0, 1.0)


# --- overlaps ---------------------------------------------------------------------------------------------------------


def test_known_overlaps():
    assert overlap(pde.Poisson(), 1.1, 0.9, 2) == pytest.approx(0.62126587, abs=5e-9)
    assert overlap(pde.Yukawa(1.3), 1.1, 0.9, 2) == pytest.approx(0.46551759, abs=5e-9)
    assert overlap(pde.Diffusion(), 1.1, 0.9, 2) == pytest.approx(0.84530687, abs=5e-9)
    for n in (1, 3, 3072):
        assert overlap(pde.Poisson(), 1.1, 0.9, n) == pytest.approx((1 + 1.21 / 3.24) ** (-(n + 1) / 2), rel=1e-9)
    assert overlap(pde.ThirdOrder(), 1.1, 1e4, 2) > 1 - 1e-9


def test_overlaps_of_blobs_tell_what_forgets():
    """Without a width, that of points; ideal waves part, quantum ones stay as they are, damped ones forget."""
    near = overlap(pde.DissipativeWave(3.0), 1.0, 50.0, 2, 0.2)
    assert near == pytest.approx(overlap(pde.Diffusion(), 1.0, 50 / 6, 2), abs=2e-3)
    assert overlap(pde.IdealWave(), 1.0, 40.0, 2, 0.1) < 0.02
    early, late = (overlap(pde.Schrodinger(), 0.3, t, 2, 0.2) for t in (0.1, 9.0))
    assert early == pytest.approx(late, abs=1e-12)
    assert early == pytest.approx(math.exp(-(0.3**2) / (4 * 0.2**2)))
    with pytest.raises(ValueError, match="give the sources a width above 0"):
        overlap(pde.IdealWave(), 1.0, 1.0, 2)


def test_the_time_of_a_spread():
    assert time_at(pde.Poisson(), 2.0, 0.1) == pytest.approx(2.0)
    assert time_at(pde.Diffusion(), 2.0, 0.1) == pytest.approx(4.0)
    # (sqrt(1 / 4 + m^2) - m) t = 1, so t = 4 (sqrt(1 / 4 + m^2) + m), also where the mass has underflowed
    for mass in (1.0, 1e3, 1e9):
        known = 4 * (math.hypot(0.5, mass) + mass)
        assert time_at(pde.Yukawa(mass), 2.0, 0.1) == pytest.approx(known, rel=1e-9)
    for growing in ("I*k**2", "I*k"):
        with pytest.raises(ValueError, match="waves of length 2 grow under this equation"):
            time_at(pde.Custom(dispersion=growing), 2.0, 0.1)
    assert time_at(pde.Schrodinger(), 2.0, 0.1) == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize(("radius", "enclosed"), [(0.2, 1), (1.0, 3), (5.0, 5)])
def test_flux_of_poissons_flow_through_a_sphere_is_the_enclosed_charge(radius, enclosed):
    """Gauss, spec/pfgm.md 8.13, of the library's own field: in (x, z) the density and its flux are `(p v, p)`, mirrored
    below the plane, so that a sphere around the first of five charges takes twice what leaves its upper half."""
    data = torch.tensor([[0.0, 0.0], [0.5, 0.2], [0.3, -0.4], [3.0, 0.0], [0.0, 4.0]], dtype=DOUBLE)
    cosine, weight = gauss_legendre(80)
    angle = torch.arange(160, dtype=DOUBLE) * (2 * math.pi / 160)
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    flux = 0.0
    for c, w in zip(((1 + cosine) / 2).tolist(), (weight / 2).tolist(), strict=True):
        s = math.sqrt(1 - c * c)
        p, v, births = posterior(pde.Poisson(), radius * s * circle, radius * c, data)
        assert bool((births == 0).all())
        flux += w * radius**2 * float((p * (v @ circle.mT).diagonal() * s + p * c).sum()) * (2 * math.pi / 160)
    assert flux == pytest.approx(enclosed / 5, abs=2e-5)


def test_densities_too_dear_to_sum_are_refused():
    """Short waves of a dispersive equation turn without end; before, it asked for 138 GB."""
    with pytest.raises(ValueError, match="have turned too often"):
        blob(pde.Custom(dispersion="w - k**3"), torch.linspace(0, 4, 300, dtype=DOUBLE), 5.0, 2, 0.08)
    with pytest.raises(ValueError, match="up to 2800 dimensions, got n=3072"):
        pde.Helmholtz(1.0).radius(3072)
    for n in (math.inf, math.nan):
        with pytest.raises(ValueError, match="the dimension must be a whole number"):
            pde.Poisson().green(at(1.0), 1.0, n)
