"""The catalogue: verdicts, dispersion by algebra and by numbers, and Green's functions against known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
import torch
from scipy import integrate
from torch import Tensor

from driftfield import pde
from driftfield.pde.base import PDE
from driftfield.pde.dispersion import bernstein, forgets, forgets_at, numerical, symbols

DOUBLE = torch.float64
ALL = [kind() for kind in pde.CATALOGUE.values()]
NAMES = list(pde.CATALOGUE)
# C2 of the specification's table: whether some branch forgets the data. C1: whether the kernel is a density.
FORGETS = {
    "diffusion": True, "poisson": True, "yukawa": True, "mixed": True, "fractional": True, "third-order": True,
    "dissipative-wave": True, "helmholtz": False, "biharmonic": True, "ideal-wave": False, "schrodinger": False,
}  # fmt: skip
VERDICTS = {
    "diffusion": "yes", "poisson": "yes", "yukawa": "yes", "mixed": "yes", "fractional": "yes", "third-order": "yes",
    "dissipative-wave": "conditional", "helmholtz": "conditional",
    "biharmonic": "no", "ideal-wave": "no", "schrodinger": "no",
}  # fmt: skip


def at(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def only(x: Tensor) -> float:
    return float(x.reshape(()))


def values_of(equation: PDE) -> dict[sympy.Symbol, float]:
    return {symbols()[name]: value for name, value in equation.parameters.items()}


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("equation", ALL, ids=NAMES)
def test_verdict_is_that_of_the_table(equation):
    assert equation.verdict == VERDICTS[equation.name]
    assert bool(equation.condition) == (equation.verdict == "conditional")
    assert set(equation.record()) == {"name", "pde", "verdict", "condition", "reason"}


@pytest.mark.parametrize("equation", ALL, ids=NAMES)
def test_what_forgets_is_found_by_algebra_and_by_numbers_alike(equation):
    algebra = [forgets(branch) for branch in equation.branches]
    numbers = [forgets_at(numerical(branch, values_of(equation))) for branch in equation.branches]
    assert algebra == numbers
    assert any(algebra) == FORGETS[equation.name]
    assert algebra[0] == any(algebra), "the density follows the first branch"


@pytest.mark.parametrize("equation", ALL, ids=NAMES)
def test_branches_solve_their_equation(equation):
    """With d/dt = -i omega and lap = -k^2."""
    k, w = symbols()["k"], sympy.Symbol("w")
    m, k0, e, a, b, beta = (symbols()[n] for n in ("mass", "wavenumber", "damping", "a", "b", "beta"))
    t = -sympy.I * w
    waves = {
        "diffusion": t + k**2, "poisson": t**2 - k**2, "ideal-wave": t**2 + k**2,
        "dissipative-wave": t**2 + 2 * e * t + k**2, "helmholtz": t**2 - k**2 + k0**2, "yukawa": t**2 - k**2 - m**2,
        "schrodinger": sympy.I * t - k**2, "mixed": a * t**2 - b * t - k**2, "fractional": t + k ** (2 * beta),
        "third-order": t**3 + k**2, "biharmonic": t + k**4,
    }  # fmt: skip
    for branch in equation.branches:
        assert sympy.simplify(sympy.expand(waves[equation.name].subs(w, branch))) == 0
    assert len(equation.branches) == sympy.degree(waves[equation.name], w)
    formula = equation.omega(at(0.3, 1.9))
    by_hand = [[complex(br.subs(values_of(equation)).subs(k, v)) for v in (0.3, 1.9)] for br in equation.branches]
    torch.testing.assert_close(formula, torch.tensor(by_hand, dtype=torch.complex128))


def test_dispersion_roots_have_their_known_values():
    roots = pde.Mixed(a=0.7, b=1.2).omega(at(1.9))[:, 0]
    assert roots[1].item() == pytest.approx(3.28445345j, abs=1e-8)
    assert roots[0].item() == pytest.approx(-1.57016774j, abs=1e-8)
    third = pde.ThirdOrder().omega(at(1.0))[:, 0].tolist()
    assert third == pytest.approx([-1j, np.exp(1j * np.pi / 6), np.exp(5j * np.pi / 6)], abs=1e-15)
    for k in (0.4, 1.7):  # below and above the damping
        slow, fast = pde.DissipativeWave(0.9).omega(at(k))[:, 0].tolist()
        assert slow + fast == pytest.approx(-1.8j)
        assert slow * fast == pytest.approx(-(k**2))


@pytest.mark.parametrize(
    ("symbol", "member"),
    [
        (lambda k: k**2, True),
        (lambda k: k, True),
        (lambda k: k ** (mpmath.mpf(2) / 3), True),
        (lambda k: mpmath.sqrt(k**2 + 1) - 1, True),
        (lambda k: mpmath.log(1 + k**2), True),
        (lambda k: k**2 + 3 * k, True),
        (lambda k: k**4, False),
        (lambda k: k**2.02, False),
        (lambda k: k**2 / (1 + k**4), False),
        (lambda k: mpmath.sin(k) ** 2, False),
    ],
)
def test_bernstein_functions_are_told_from_others(symbol, member):
    assert (bernstein(symbol) is None) == member


@pytest.mark.parametrize("equation", [e for e in ALL if e.verdict == "no"], ids=str)
def test_what_does_not_generate_refuses_to_train(equation):
    with pytest.raises(ValueError, match=r"cannot be trained: .{20}"):
        equation.process()


# --- Green's functions ------------------------------------------------------------------------------------------------


def test_known_values():
    def green(equation: PDE) -> list[pde.Green]:
        return [equation.green(at(1.3), 0.7, n) for n in (2, 3, 4)]

    def check(found: list[Tensor], known: list[float]) -> None:
        assert [only(f) for f in found] == pytest.approx(known, abs=5e-10, rel=5e-9)

    check([g.density for g in green(pde.Poisson())], [0.0346125365, 0.0149240023, 0.00758085734])
    yukawa = green(pde.Yukawa(1.5))
    check([g.density for g in yukawa], [0.0121488417, 0.00670938519, 0.00401414561])
    check([g.potential for g in yukawa], [0.0117692749, 0.00544943952, 0.00276221173])
    check([-g.rate for g in yukawa], [2.17970315, 1.82747578, 1.54826880])
    helmholtz = green(pde.Helmholtz(0.6))
    check([g.density for g in helmholtz], [0.0456436461, 0.0183588760, 0.00874235311])
    check([g.density for g in green(pde.Mixed(0.8, 1.7))], [0.0433077905, 0.0212326974, 0.0115297294])
    wave = pde.DissipativeWave(2.0).green(at(1.1), 3.0, 2)
    assert only(wave.density) == pytest.approx(0.07067333, abs=5e-9)
    assert only(wave.velocity) * 1.1 == pytest.approx(0.17186709, abs=5e-9)
    telegraph = pde.DissipativeWave(1.0)
    assert only(telegraph.green(at(0.0), 2.0, 1).density) == pytest.approx(0.26188881, abs=5e-9)
    inside = integrate.quad(lambda s: 2 * only(telegraph.green(at(s), 2.0, 1).density), 0, 2)[0]
    assert inside == pytest.approx(0.86466472, abs=5e-9)
    assert telegraph.front(2.0) == pytest.approx(0.13533528, abs=5e-9)
    biharmonic = pde.Biharmonic().green(at(0.0, 5.1), 1.0, 2).density
    assert biharmonic.tolist() == pytest.approx([0.07052, -0.00397], abs=5e-6)
    assert pde.Yukawa(1.5).total_mass(0.7) == pytest.approx(0.34993775, abs=5e-9)


@pytest.mark.parametrize(
    ("n", "zero"), [(1, 2.19714), (2, 2.79839), (3, 3.38424), (16, 10.530), (64, 35.555), (256, 133.253)]
)
def test_helmholtz_is_positive_up_to_the_first_zero(n, zero):
    equation = pde.Helmholtz(0.5)
    assert equation.radius(n) * 0.5 == pytest.approx(zero, abs=6e-4 if n > 3 else 6e-6)
    t = 1e-3
    around = (equation.radius(n) * at(1 - 1e-7, 1 + 1e-7)).square().sub(t**2).sqrt()
    below, above = equation.green(around, t, n).log_density.tolist()
    assert math.isfinite(below)
    assert math.isnan(above)


def test_known_velocity_of_the_mixed_equation_in_the_plane():
    """`v = (x - x') (1 + m t rho / (rho + t)) / (t (1 + m rho))`, times `1 / sqrt(a)`."""
    a, b, t = 0.8, 1.7, 0.7
    m, d, s = b / (2 * math.sqrt(a)), t / math.sqrt(a), torch.logspace(-3, 3, 40, dtype=DOUBLE)
    rho = torch.hypot(s, torch.full_like(s, d))
    known = (1 + m * d * rho / (rho + d)) / (d * (1 + m * rho)) / math.sqrt(a)
    torch.testing.assert_close(pde.Mixed(a, b).green(s, t, 2).velocity, known, rtol=1e-11, atol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 64, 3072])
def test_limits(n):
    s = torch.linspace(0.05, 3, 30, dtype=DOUBLE) * math.sqrt(n)
    poisson = pde.Poisson().green(s, 0.7, n)
    for near in (pde.Yukawa(1e-7), pde.Helmholtz(1e-7), pde.Mixed(1.0, 1e-11)):
        found = near.green(s, 0.7, n)
        torch.testing.assert_close(found.log_density, poisson.log_density, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.velocity, poisson.velocity, rtol=1e-7, atol=0)
        assert n == 1 or float(found.rate.abs().max()) < 1e-9
    late = pde.Mixed(1e-9, 1.0).green(s / math.sqrt(n), 0.7, n)
    diffusion = pde.Diffusion().green(s / math.sqrt(n), 0.7, n)
    torch.testing.assert_close(late.log_density, diffusion.log_density, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(late.velocity, diffusion.velocity, rtol=1e-5, atol=0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_large_damping_is_diffusion(n):
    """Of time `t / (2 damping)`; the next term is of order 1 / (damping t)."""
    s = torch.linspace(0, 3, 20, dtype=DOUBLE)
    for damping in (1e3, 1e4):
        t = 2 * damping * 0.6
        wave, diffusion = pde.DissipativeWave(damping).green(s, t, n), pde.Diffusion().green(s, 0.6, n)
        torch.testing.assert_close(wave.density, diffusion.density, rtol=20 / (damping * t), atol=0)
        torch.testing.assert_close(2 * damping * wave.velocity, diffusion.velocity, rtol=20 / (damping * t), atol=0)
    small = pde.DissipativeWave(1e-6).green(s[:10], 2.0, 2).density
    torch.testing.assert_close(small, pde.IdealWave().green(s[:10], 2.0, 2).density, rtol=1e-5, atol=1e-6)


def test_ideal_waves_obey_huygens():
    """Behind the front there is nothing in odd dimensions from 3 on; in even ones the recursion of the dimensions."""
    s = at(0.2, 0.9)
    for n in (3, 5, 7):
        assert not pde.IdealWave().green(s, 1.5, n).potential.any()
    q = (1.5**2 - s.square()).sqrt()
    torch.testing.assert_close(pde.IdealWave().green(s, 1.5, 2).potential, 1 / (2 * math.pi * q))
    torch.testing.assert_close(pde.IdealWave().green(s, 1.5, 4).potential, -1 / (4 * math.pi**2 * q**3))
    assert not pde.IdealWave().green(at(1.6), 1.5, 2).density.any()


SMOOTH = [pde.Diffusion(), pde.Poisson(), pde.Yukawa(1.3), pde.Mixed(0.8, 1.7), pde.Fractional(0.75), pde.ThirdOrder()]


@pytest.mark.parametrize("equation", SMOOTH, ids=lambda e: e.name)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_densities_have_their_mass(equation, n):
    """The mass within a radius, and beyond it the tail, which is known: integrals by quadrature in `ln s`."""
    t = 0.8
    u = np.linspace(-14, 14, 4001)
    s = torch.from_numpy(np.exp(u))
    g = equation.green(s, t, n)
    sphere = 2 * math.pi ** (n / 2) / math.gamma(n / 2)
    mass = sphere * integrate.simpson((s**n * g.density).numpy(), x=u)
    tail = {"fractional": 1.5, "third-order": 2 / 3, "poisson": 1.0}.get(equation.name)
    if tail is not None:  # beyond the last radius the density is a power of index -(n + tail)
        mass += sphere * float(s[-1] ** n * g.density[-1]) / tail
    assert mass == pytest.approx(equation.total_mass(t), rel=2e-6)


@pytest.mark.parametrize("equation", [*SMOOTH, pde.Helmholtz(0.6), pde.Biharmonic()], ids=lambda e: e.name)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_densities_obey_their_continuity_equation(equation, n):
    """`dp/dt = -s^(1-n) d/ds (s^n c p) + rate p`, by central differences of order 4 in `t` and in `s`."""
    s, t, h = torch.linspace(0.4, 3.0, 9, dtype=DOUBLE), 0.9, 4e-3
    slope = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}

    def flux(at_s: Tensor) -> Tensor:
        g = equation.green(at_s, t, n)
        return at_s**n * g.velocity * g.density

    in_time = sum(w * equation.green(s, t + j * h, n).density for j, w in slope.items()) / h
    divergence = s ** (1 - n) * sum(w * flux(s + j * h) for j, w in slope.items()) / h
    now = equation.green(s, t, n)
    births = 0 if equation.name in ("biharmonic",) else now.rate * now.density
    residual = in_time + divergence - births
    assert float(residual.abs().max()) < 3e-8 * float(in_time.abs().max())


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize(
    ("equation", "waves"),
    [
        (pde.Poisson(), lambda tt, t1, lap, phi: tt + lap),
        (pde.Yukawa(1.3), lambda tt, t1, lap, phi: tt + lap - 1.69 * phi),
        (pde.Helmholtz(0.6), lambda tt, t1, lap, phi: tt + lap + 0.36 * phi),
        (pde.Mixed(0.8, 1.7), lambda tt, t1, lap, phi: 0.8 * tt - 1.7 * t1 + lap),
        (pde.Diffusion(), lambda tt, t1, lap, phi: t1 - lap),
        (pde.IdealWave(), lambda tt, t1, lap, phi: tt - lap),
        (pde.DissipativeWave(0.7), lambda tt, t1, lap, phi: tt + 1.4 * t1 - lap),
        (pde.Schrodinger(), lambda tt, t1, lap, phi: 1j * t1 + lap),
    ],
    ids=lambda e: getattr(e, "name", ""),
)
def test_potentials_solve_their_equation_to_fourth_order(equation, waves, n):
    """The residual of the differences of order 4 falls 16-fold when the step is halved, or faster."""
    s, t = torch.linspace(0.3, 1.0, 5, dtype=DOUBLE), 1.9
    one = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
    two = {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12}
    phi = lambda s, t: equation.green(s, t, n).potential

    def residual(h: float) -> float:
        t1 = sum(w * phi(s, t + j * h) for j, w in one.items()) / h
        tt = sum(w * phi(s, t + j * h) for j, w in two.items()) / h**2
        s1 = sum(w * phi(s + j * h, t) for j, w in one.items()) / h
        ss = sum(w * phi(s + j * h, t) for j, w in two.items()) / h**2
        return float(torch.as_tensor(waves(tt, t1, ss + (n - 1) / s * s1, phi(s, t))).abs().max())

    if equation.name == "ideal-wave" and n == 3:
        assert residual(0.1) == 0
        return
    coarse, fine = residual(0.1), residual(0.05)
    assert coarse / fine > 11  # and more where the next order vanishes as well
    density = {"poisson": -1, "yukawa": -1, "helmholtz": -1, "ideal-wave": 1}.get(equation.name)
    if density is not None:
        slope = sum(w * phi(s, t + j * 1e-2) for j, w in one.items()) / 1e-2
        torch.testing.assert_close(density * slope, equation.green(s, t, n).density, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_first_branch_of_third_order_obeys_its_row(n):
    """`p = phi_tt`, `p v = -grad(phi)`, no births: `phi^ = k^(-4/3) exp(-k^(2/3) t)`, differenced in `t` and `s`."""
    equation, s, t, h = pde.ThirdOrder(), torch.linspace(0.4, 3.0, 9, dtype=DOUBLE), 0.9, 1e-2
    two, one = {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12}, {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
    g = equation.green(s, t, n)
    if n > 1:
        phi = lambda s, t: equation.green(s, t, n).potential
        in_time = sum(w * phi(s, t + j * h) for j, w in two.items()) / h**2
        torch.testing.assert_close(in_time, g.density, rtol=1e-5, atol=0)
        slope = sum(w * phi(s + j * h, t) for j, w in one.items()) / h
        torch.testing.assert_close(-slope / g.density, g.velocity * s, rtol=1e-5, atol=0)
    assert not g.rate.any()


def transforms() -> list[tuple[PDE, Callable[[Any], Any], Callable[[Any], Any]]]:
    """Equations with the transforms of their density and of their flux's potential, in mpmath, at `t = 0.6`."""
    t, mp = mpmath.mpf("0.6"), mpmath
    screened = lambda k: mp.sqrt(k**2 + mp.mpf("1.69"))
    root = lambda k: mp.sqrt(mp.mpf("2.89") + mp.mpf("3.2") * k**2)
    mixed = lambda k: mp.exp(-t * (root(k) - mp.mpf("1.7")) / mp.mpf("1.6"))
    power = lambda p: (lambda k: mp.exp(-t * k**p), lambda k: k ** (p - 2) * mp.exp(-t * k**p))
    return [
        (pde.Poisson(), *power(1)),
        (pde.Yukawa(1.3), lambda k: mp.exp(-t * screened(k)), lambda k: mp.exp(-t * screened(k)) / screened(k)),
        (pde.Diffusion(), *power(2)),
        (pde.Mixed(0.8, 1.7), mixed, lambda k: 2 * mixed(k) / (root(k) + mp.mpf("1.7"))),
        (pde.Fractional(0.75), *power(mp.mpf("1.5"))),
        (pde.ThirdOrder(), *power(mp.mpf(2) / 3)),
        (pde.Biharmonic(), *power(4)),
    ]


@pytest.mark.parametrize("case", transforms(), ids=lambda case: case[0].name)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_densities_and_fluxes_are_inverse_transforms(case, n):
    """By mpmath along a ray of complex `k`, where Hankel's function falls: `p v = -grad(phi)` is `2 pi s phi_(n+2)`."""
    equation, density, potential = case
    s, turn, g = mpmath.mpf("1.3"), mpmath.expj(0.3), equation.green(at(1.3), 0.6, n)

    def inverted(transform: Callable[[Any], Any], n: int) -> float:
        order = mpmath.mpf(n) / 2 - 1
        part = lambda k: k ** (order + 1) * mpmath.hankel1(order, k * s) * transform(k) * turn
        integral = mpmath.quad(lambda y: part(y * turn), [0, 1, 10, 100])  # beyond, exp(-100 s sin 0.3) = 2e-17
        return float((2 * mpmath.pi) ** (-order - 1) * s ** (-order) * integral.real)

    p = inverted(density, n)
    assert only(g.density) == pytest.approx(p, rel=1e-8)
    assert only(g.velocity) == pytest.approx(2 * math.pi * inverted(potential, n + 2) / p, rel=1e-8)
    if n > 1:
        assert only(g.potential) == pytest.approx(inverted(potential, n), rel=1e-8)


def test_fractional_diffusion_contains_poisson_and_diffusion():
    s = at(0.0, 0.3, 2.0, 40.0)
    for n in (1, 2, 3, 6):
        for beta, other in ((0.5, pde.Poisson()), (1.0, pde.Diffusion())):
            found, known = pde.Fractional(beta).green(s, 0.7, n), other.green(s, 0.7, n)
            torch.testing.assert_close(found.density, known.density, rtol=1e-9, atol=1e-15)
            torch.testing.assert_close(found.velocity, known.velocity)


def test_integral_of_the_death_rate_along_a_ray():
    """`int K_nu / K_(nu+1) du` from 0 to 1.7: a single source's particles live so long under the Yukawa equation."""
    for n, known in ((2, 0.70674823), (3, 0.51909571), (6, 0.26884382)):
        rate = lambda u, n=n: -only(pde.Yukawa(1.0).green(at(0.0), u, n).rate)
        assert integrate.quad(rate, 0, 1.7)[0] == pytest.approx(known, abs=1e-8)


def test_bad_arguments_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"at time 0 a Green's function is the point source itself.*got t=0"):
        pde.Poisson().green(at(0.0), 0.0, 2)
    with pytest.raises(ValueError, match="distances must be >= 0"):
        pde.Poisson().green(at(-1.0), 1.0, 2)
    with pytest.raises(ValueError, match="dimension must be a whole number"):
        pde.Poisson().green(at(1.0), 1.0, 0)
    with pytest.raises(
        ValueError, match=r"mass=1e\+07.*at t=2e\+06.*keeps too few digits; take mass \* t up to 1e\+13"
    ):
        pde.Yukawa(1e7).green(at(1.0), 2e6, 2)
    with pytest.raises(ValueError, match="has no closed form and is computed in up to 6 dimensions"):
        pde.ThirdOrder().green(at(1.0), 1.0, 7)
    for kind, value in (
        (pde.Yukawa, -1.0),
        (pde.DissipativeWave, 0.0),
        (pde.Helmholtz, math.inf),
        (pde.Fractional, "x"),
    ):
        with pytest.raises(ValueError, match="must be a finite number above 0, got"):
            kind(value)
    with pytest.raises(ValueError, match="the poisson equation has no mass; it has no parameters"):
        pde.named("poisson", {"mass": 1.0})
    with pytest.raises(ValueError, match="unknown equation 'yukava'; did you mean 'yukawa'"):
        pde.named("yukava")
