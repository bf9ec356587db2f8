"""Equations of one's own: what is understood, how it is judged, and the process that follows."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import sympy
import torch

from driftfield import pde
from driftfield.pde.dispersion import forgets, parsed, symbols
from driftfield.pde.formula import Formula
from driftfield.plain import from_plain, to_plain
from driftfield.process.bernstein import check_bernstein
from driftfield.process.subordinated import Subordinated
from driftfield.process.symbols import Log, Power
from driftfield.rng import seeded

DOUBLE = torch.float64


@pytest.mark.parametrize(
    ("given", "verdict", "reason"),
    [
        ({"symbol": "log(1 + k**2)"}, "yes", "passes"),
        ({"symbol": "k^2 + 3*k"}, "yes", "passes"),
        ({"symbol": "sqrt(k**2 + 100) - 10"}, "yes", "passes"),  # a difference that nearly cancels
        ({"symbol": "sqrt(k**2 + 3)"}, "yes", "passes"),  # the same, less a value that is no decimal
        ({"symbol": "log(1 + k**2 / 100)"}, "yes", "passes"),
        ({"symbol": "sqrt(k**2 + 4)"}, "yes", "passes"),
        ({"symbol": sympy.Symbol("k") ** sympy.Rational(1, 2)}, "yes", "passes"),
        ({"symbol": lambda k: k**2 + k}, "yes", "passes"),
        ({"symbol": lambda k: k**4}, "no", "derivative 2"),
        ({"symbol": "k**4"}, "no", "derivative 2"),
        ({"symbol": "k**2 * (1 + k**2)"}, "no", "wrong sign"),
        ({"dispersion": "-I*k**2"}, "yes", "passes"),
        ({"dispersion": "w**2 + k**2"}, "yes", "passes"),
        ({"dispersion": "w**2 + I*w - k**2"}, "no", "derivative|not real"),
        ({"dispersion": ["k", "-I*k"]}, "yes", "passes"),
        ({"dispersion": "k - I*k**2"}, "no", "not real"),
        ({"dispersion": "k"}, "no", "no branch of its dispersion relation fades"),
        ({"dispersion": ["k", "-k"]}, "no", "no branch"),
        ({"dispersion": "I*k**2"}, "no", "no branch"),
        ({"dispersion": lambda k: -1j * np.sqrt(k)}, "yes", "passes"),
    ],
    ids=lambda value: re.sub(" at 0x\\w+", "", str(value)),  # alike in every process
)
def test_verdicts(given, verdict, reason):
    equation = pde.Custom(**given)
    assert equation.verdict == verdict
    assert re.search(reason, equation.reason)
    if verdict == "no":
        with pytest.raises(ValueError, match="cannot be trained"):
            equation.process()


def test_branches_agree_with_algebra():
    """Of `w^2 + k^2 = 0` one branch fades and is put first."""
    branches = pde.Custom(dispersion="w**2 + k**2").branches
    assert [forgets(b) for b in branches] == [True, False]
    assert branches[0] == -sympy.I * symbols()["k"]
    with pytest.raises(ValueError, match="has no formula"):
        _ = pde.Custom(symbol=lambda k: k).branches


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_custom_equation_is_the_one_it_spells(n):
    s = torch.tensor([0.3, 1.1, 4.0], dtype=DOUBLE)
    for text, known in (
        ("k", pde.Poisson()),
        ("k**2", pde.Diffusion()),
        ("(sqrt(1 + 8*k**2) - 1)/4", pde.Mixed(2.0, 1.0)),
    ):
        found, expected = pde.Custom(symbol=text).green(s, 0.8, n), known.green(s, 0.8, n)
        torch.testing.assert_close(found.density, expected.density, rtol=1e-8, atol=1e-13)
        torch.testing.assert_close(found.velocity, expected.velocity, rtol=1e-7, atol=1e-10)


def test_the_process_of_a_formula():
    """That of the same symbol in `process.symbols`; it goes through a file as text."""
    process = pde.Custom(symbol="log(1 + k**2)").process()
    assert isinstance(process, Subordinated)
    assert from_plain(to_plain(process), ()) == process
    known, t = Subordinated(Log(1.0)), torch.tensor(1.7, dtype=DOUBLE)
    x = torch.linspace(0.1, 6, 9, dtype=DOUBLE)[:, None] * torch.tensor([0.6, 0.8], dtype=DOUBLE)
    zero = torch.zeros(1, 2, dtype=DOUBLE)
    torch.testing.assert_close(process.log_kernel(x, t, zero), known.log_kernel(x, t, zero), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(process.level(t), known.level(t))
    drawn = process.perturb(torch.zeros(500, 1, dtype=DOUBLE), t, seeded(3))
    # A = Gamma(t), so the variance is 2 t and the kurtosis 3 (1 + 1 / t): of 500, five deviations of the estimate are
    # 5 sqrt((kurtosis - 1) / 500) = 0.43 of it
    assert float(drawn.square().mean()) == pytest.approx(2 * 1.7, rel=0.43)


def test_a_formula_keeps_its_digits():
    lam = torch.logspace(-250, 12, 131, dtype=DOUBLE)
    torch.testing.assert_close(Formula("log(1 + k**2)")(lam), lam.log1p(), rtol=1e-11, atol=0)
    root = lam / ((1 + lam).sqrt() + 1)
    torch.testing.assert_close(Formula("sqrt(k**2 + 1)")(lam), root, rtol=1e-11, atol=0)
    torch.testing.assert_close(Formula("k**2 + log(1 + k)")(lam), lam + lam.sqrt().log1p(), rtol=1e-11, atol=0)
    assert Formula("sqrt(k**2 + 1)").edge == pytest.approx(1, abs=1e-12)
    assert Formula("3*k").index == 0.5
    assert Formula("2*k**2 + k").drift == 2
    for text in ("log(1 + k**2)", "k**2 + log(1 + k)", "k**(2/3)"):
        check_bernstein(Formula(text))
    z = torch.tensor([0.3 + 2j, 1e-9 + 1e-9j], dtype=torch.complex128)
    torch.testing.assert_close(Formula("k")(z), Power(0.5)(z))


@pytest.mark.parametrize(
    ("text", "edge"),
    [("sqrt(k**2 + 2)", 2), ("(k**2 + pi)**0.5", math.pi), ("log(3 + k**2)", 3), ("sqrt(2)*k", 0), ("log(2)*k**2", 0)],
)
def test_a_formula_may_have_any_constants(text, edge):
    process = pde.Custom(symbol=text).process()
    assert process.symbol.edge == pytest.approx(edge, rel=1e-12)
    k = torch.tensor([0.3, 1.0, 7.0], dtype=DOUBLE)
    torch.testing.assert_close(process.symbol(k.square()), pde.Custom(symbol=text).fade(k), rtol=1e-10, atol=0)
    drawn = process.perturb(torch.zeros(500, 8, dtype=DOUBLE), torch.tensor(0.7, dtype=DOUBLE), seeded(3))
    wave = drawn.cos().mean(1)
    known = math.exp(-0.7 * float(process.symbol(torch.ones((), dtype=DOUBLE))))
    assert abs(float(wave.mean()) - known) < 5 * float(wave.std()) / 500**0.5


def test_a_formula_ends_at_its_pole():
    assert Formula("k**2/(4 + k**2) + k**2").edge == pytest.approx(4, rel=1e-6)
    assert Formula("k**2/(2 + k**2) + k**2").edge == pytest.approx(2, rel=1e-6)


def test_what_divides_by_0_at_60_digits_may_not_at_more():
    assert pde.Custom(symbol="k**2/log(1 + k**2)").verdict == "yes"
    with pytest.raises(ValueError, match="divides by 0 at k = "):
        pde.Custom(symbol="k + 1/(k - 1)**2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of the two"),
        ({"symbol": "k", "dispersion": "k"}, "one of the two"),
        ({"symbol": "k +"}, "is not a formula"),
        ({"symbol": "__import__('os').getcwd()"}, "means nothing here"),
        ({"symbol": "q**2"}, "'q' in 'q\\*\\*2' means nothing here"),
        ({"symbol": "k*w"}, "a formula in k alone"),
        ({"symbol": "1/0"}, "not a finite formula"),
        ({"symbol": 3}, "got int"),
        ({"symbol": sympy.Symbol("q")}, "has the symbols q"),
        ({"dispersion": []}, "at least one branch"),
        ({"dispersion": "sin(w) - k"}, "cannot be solved for w"),
    ],
)
def test_what_is_not_understood_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        pde.Custom(**given)


def test_formulas_are_read_and_never_run():
    k = symbols()["k"]
    assert parsed("0.5*k^2 + sqrt(k)") == k**2 / 2 + sympy.sqrt(k)
    assert parsed("-abs(k)") == -k
    for text in ("k.real", "lambda: 1", "[k]", "k if k else 1", "exec('1')", "True", "'k'", "k(1)"):
        with pytest.raises(ValueError, match="formula"):
            parsed(text)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"symbol": "1-exp(-k)"}, "bounded"),
        ({"symbol": "k + 1e-30*k**4"}, "outgrows k^2"),
        ({"symbol": "1 - 1/(1 + log(1 + k**2))"}, "bounded"),  # as slowly as one over a logarithm
        ({"dispersion": "-I*k**2/(1+k**2)"}, "bounded"),
        ({"dispersion": "-I*(1-exp(-k**2))"}, "bounded"),
        ({"symbol": lambda k: 1 - np.exp(-k)}, "bounded"),
        ({"dispersion": "-I*log(k)"}, "no finite limit as k goes to 0"),
        ({"symbol": lambda k: np.log(k)}, "no finite limit as k goes to 0"),
    ],
    ids=lambda value: re.sub(" at 0x\\w+", "", str(value)),
)
def test_what_is_no_density_is_refused(given, reason):
    """A bounded exponent leaves an atom of weight `exp(-t sup Omega)` at the datum; an infinite `omega(0)` no mass."""
    equation = pde.Custom(**given)
    assert equation.verdict == "no"
    assert reason in equation.reason
    with pytest.raises(ValueError, match="cannot be trained"):
        equation.process()


def test_slow_growth_is_still_growth():
    for text in ("log(1 + k)", "log(1 + log(1 + k))", "k**(1/100)"):
        assert pde.Custom(symbol=text).verdict == "yes"


def test_an_equation_without_mass_is_not_computed():
    with pytest.raises(ValueError, match=r"no density to compute: Omega.* no finite limit"):
        pde.Custom(dispersion="-I*log(k)").spectrum(torch.zeros((), dtype=DOUBLE), 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10**10**10", "1e\\+10 parts"),
        ("10**10**8*k", "1e\\+08 parts"),
        ("((k + 1)**100)**100", "30101 parts"),
        ("10**exp(500)", "parts"),
        ("+".join(["k"] * 400), "nests up to 50 levels"),
        ("+".join(["k"] * 5000), "up to 1000 characters, got 9999"),
        ("-" * 900 + "k", "nests up to 50 levels"),
        ("exp(exp(k))", "exponential inside"),
        ("k**(k**k)", "exponential inside"),
        ("1e300*1e300*k", "beyond 1e300"),
    ],
    ids=lambda value: value[:24],
)
def test_formulas_that_would_never_end_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parsed(text)


def test_relations_of_high_degree_are_refused():
    with pytest.raises(ValueError, match="of degree 90 in w, and is solved up to 12"):
        pde.Custom(dispersion="(w + k)**90 - 1")
    assert len(pde.Custom(dispersion="w**6 - k**6").branches) == 6


def test_the_number_e_goes_through_a_file():
    process = pde.Custom(symbol="exp(1)*k").process()
    torch.testing.assert_close(process.symbol(torch.tensor(4.0, dtype=DOUBLE)).item(), 2 * np.e)
