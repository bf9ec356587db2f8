"""What is proposed for data, and that a run keeps to it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import driftfield as df
from driftfield.data.base import Info
from driftfield.data.describe import Facts, describe
from driftfield.data.digits import Digits
from driftfield.data.memory import InMemory
from driftfield.data.spacing import Spacing
from driftfield.data.toys import EightGaussians
from driftfield.plain import from_plain, to_plain
from driftfield.train import size as module
from driftfield.train.propose import FILE, Proposal, kept, propose, proposed
from driftfield.train.size import cost_of, network_for


def plain_facts(shape=(3, 32, 32), **other) -> Facts:
    """8-bit images of deviation 0.5 that are as far from each other as Gaussian ones: EDM's own ground."""
    gaps = Spacing(1000, 10_000, (7.0,) * 7, (40.0,) * 7, 75.0, 20.0, 0.0, 1.0)
    given = {"kind": "image", "shape": shape, "count": 50_000, "seen": 50_000, "held": 0, "low": -1.0, "high": 1.0}
    given |= {"mean": 0.0, "std": 0.5, "shift": 127.5, "scale": 127.5, "parts": (), "missing": 0.0, "step": 2 / 255}
    given |= {"constant": 0, "effective": 10.0, "widest": 6.0, "spacing": gaps, "copies": 0, "leaked": 0}
    given |= {"near_expected": 0.0, "near_held": 0.0, "classes": (), "balance": (), "unlabelled": 0}
    return Facts(**{**given, **other})


def image(shape=(3, 32, 32)) -> Info:
    return Info("image", shape, (), 127.5, 127.5, 50_000, 0.5)


def test_edm_is_what_is_proposed_for_its_images():
    """sigma_data 0.5, least noise 0.002, ln level ~ N(-1.2, 1.2^2), to within the 1 % that ln 0.5 - 0.5 is off -1.2."""
    found = propose(plain_facts(), image())
    assert found.sigma_data == 0.5
    assert found.span == (pytest.approx(0.002, rel=0.025), 75.0)
    assert (found.times.mean, found.times.std) == (pytest.approx(-1.2, rel=0.01), 1.2)
    assert found.D == 2048


def test_everything_scales_with_the_data():
    """Data c times as large get c times the noise, the same widths in the logarithm, and the same network."""
    c = 37.0
    one = propose(describe(EightGaussians().load()), EightGaussians().load().info)
    toy = EightGaussians(radius=1.4 * c, spread=0.1 * c)
    other = propose(describe(toy.load()), toy.load().info)
    assert other.sigma_data == pytest.approx(c * one.sigma_data)
    assert other.span == pytest.approx([c * level for level in one.span], rel=0.01)  # three digits are kept
    assert other.times.mean - one.times.mean == pytest.approx(math.log(c), abs=0.002)
    assert (other.times.std, other.D, other.network, other.batch) == (
        pytest.approx(one.times.std, abs=0.002),
        one.D,
        one.network,
        one.batch,
    )


def test_each_part_of_the_span():
    facts, info = plain_facts(), image()
    coarse = propose(replace(facts, step=0.4), info)
    assert coarse.span[0] == pytest.approx(0.1)
    assert "rounded" in coarse.reasons["span"]
    smooth = propose(replace(facts, step=0.0), info)
    assert smooth.span[0] == pytest.approx(0.002)
    crowded = propose(replace(facts, step=0.0, spacing=replace(facts.spacing, crowding=1e-4)), info)
    assert crowded.span[0] == pytest.approx(2e-7)
    assert crowded.times.mean - crowded.times.std == pytest.approx(
        math.log(0.5) - 0.5 - 1.2 + math.log(1e-4) / 2, abs=2e-3
    )
    assert crowded.times.mean + crowded.times.std == pytest.approx(math.log(0.5) - 0.5 + 1.2, abs=2e-3)
    far = propose(replace(facts, widest=20.0), info)
    assert far.span[1] == 200.0
    assert "ten times" in far.reasons["span"]


def test_the_promise_of_the_most_noise():
    """One Gaussian N(m, v) under the exact flow from N(0, s^2), s = 10 sqrt(m^2 + v): what the docstring says of it."""
    m, v = 3.0, 0.5
    s = 10 * math.hypot(m, math.sqrt(v))
    shrink = math.sqrt(v / (v + s * s))  # dx/dt = t (x - m) / (v + t^2), so x_0 - m = shrink (x_s - m)
    assert abs((m - shrink * m) - m) <= 0.1 * math.sqrt(v)
    assert 1 - shrink * s / math.sqrt(v) <= 0.005


@pytest.mark.parametrize(("shape", "D"), [((2,), 128), ((64,), 128), ((1, 28, 28), 1024), ((3, 64, 64), 2048)])
def test_dimension(shape, D):
    facts = plain_facts(shape, kind="array")
    assert propose(facts, Info("array", shape)).D == D


@pytest.mark.parametrize(
    "shape", [(1,), (2,), (70,), (1, 8, 8), (3, 5, 7), (2, 100), (1, 3, 3), (1, 2, 9), (1, 4, 4, 6)]
)
def test_a_network_for_every_shape(shape):
    """It runs, and costs what it is said to: the operations are those of the network that is built."""
    info = Info("array", shape)
    build = network_for(info, 16, 0.1)
    operations, parameters = cost_of(build, info)
    network = build(shape=shape, classes=0)
    x = torch.zeros(2, *shape)
    assert network(x, torch.zeros(2)).shape == x.shape
    assert parameters == sum(p.numel() for p in network.parameters())
    assert operations > 2 * min(parameters, 1000)


@pytest.mark.parametrize(("n", "least"), [(2, 64), (32, 64), (33, 128), (300, 1024), (3000, 1024)])
def test_a_vector_passes_through_whole(n, least):
    facts = plain_facts((n,), kind="array", count=10)
    assert propose(facts, Info("array", (n,)), 0.01, "cpu").network.options["width"] == least


def test_a_shape_that_has_no_network():
    with pytest.raises(ValueError, match="more than 3 grid axes"):
        network_for(Info("array", (1, 2, 2, 2, 2)), 16)


def test_more_time_is_a_larger_network(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    sizes = [propose(plain_facts(), image(), minutes, "cpu").parameters for minutes in (1, 15, 60, 2000)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4
    found = propose(plain_facts(), image(), 60, "cpu")
    cost = cost_of(found.network, image())[0]
    assert found.steps * (0.01 + 3 * cost * found.batch / module._CPU) == pytest.approx(3600, rel=0.01)
    assert found.steps >= 1000
    assert found.batch * found.steps >= 50_000
    few = propose(plain_facts(count=10), image(), 2000, "cpu")
    assert few.parameters < sizes[-1]  # 30 for each of 10 x 3072 numbers


def test_every_value_has_its_reason():
    found = propose(describe(Digits().load()), Digits().load().info)
    assert found.values().keys() == found.reasons.keys()
    assert all(reason.endswith(".") and len(reason) > 20 for reason in found.reasons.values())
    assert all(reason in " ".join(str(found).split()) for reason in found.reasons.values())
    assert from_plain(json.loads(json.dumps(to_plain(found)))) == found
    recipe = found.recipe(Digits(), Digits().load().info)
    assert recipe.objective.process == df.PFGMPP(D=found.D, span=found.span)
    assert (recipe.objective.times, recipe.sigma_data) == (found.times, found.sigma_data)
    assert (recipe.network, recipe.training.batch) == (found.network, found.batch)


def test_another_process_runs_over_the_proposed_levels():
    """Unless its span was chosen, or its times are not levels."""
    found = propose(describe(Digits().load()), Digits().load().info)
    for process, expected in (
        (df.EDM(), df.EDM(span=found.span)),
        (df.PFGMPP(D=4.0), df.PFGMPP(D=4.0, span=found.span)),
        (df.EDM(span=(0.01, 5.0)), df.EDM(span=(0.01, 5.0))),
        (df.VP(), df.VP()),
        (df.Yukawa(2.0), df.Yukawa(2.0, levels=found.span)),
        (df.Fractional(0.7, levels=(0.01, 5.0)), df.Fractional(0.7, levels=(0.01, 5.0))),
        (df.VE(), df.VE()),
        (df.Rectified(), df.Rectified()),
    ):
        objective = df.Matching(process, times=found.times)
        assert found.spanned(objective) == df.Matching(expected, times=found.times)


@pytest.mark.parametrize("minutes", [0, -1, math.inf, math.nan])
def test_a_budget_is_positive(minutes):
    with pytest.raises(ValueError, match="number of minutes above 0"):
        propose(plain_facts(), image(), minutes)


def test_a_run_keeps_to_its_proposal(tmp_path, monkeypatch):
    """Recorded at the first step; found again after the machine has changed, so that the run goes on."""
    x = np.random.default_rng(0).normal(size=(3000, 20))
    source = InMemory.of(x).load()
    monkeypatch.setattr(module, "_CPU", 1e7)  # a slow machine
    fit = lambda: df.fit(x, steps=4, folder=tmp_path / "run", device="cpu", progress=False)
    run = fit()
    begun = kept(tmp_path / "run")
    assert isinstance(begun, Proposal)
    assert begun.facts.count == 2700
    assert run.recipe.network == begun.network
    before = (tmp_path / "run" / FILE).read_bytes()
    monkeypatch.setattr(module, "_CPU", 1e12)
    assert proposed(source, None, device="cpu").network != begun.network
    assert proposed(source, tmp_path / "run", device="cpu") == begun
    assert fit().recipe == run.recipe
    assert (tmp_path / "run" / FILE).read_bytes() == before
    (tmp_path / "run" / FILE).write_text("{}")
    with pytest.raises(ValueError, match="not a proposal; choose another folder"):
        fit()
    (tmp_path / "run" / FILE).write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        fit()


def test_a_folder_without_a_run_has_no_proposal(tmp_path):
    assert kept(tmp_path) is None
    (tmp_path / FILE).write_text("left by hand")
    assert kept(tmp_path) is None
