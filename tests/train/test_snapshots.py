"""Snapshots of a real training: what they hold, and averages rebuilt from them against those tracked directly."""

from __future__ import annotations

import re
import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

import driftfield as df
from driftfield.train.checkpoint import read, save, unpack
from driftfield.train.ema import Profile, gamma_of, norm
from driftfield.train.load import store
from driftfield.train.loop import train
from driftfield.train.snapshots import due, forget, keep, planned, rebuild, snapshots

from .common import tiny

STEPS, COUNT = 96, 16
DIRECT = (0.1, 0.05, 0.04, 0.07, 0.15)  # the first two are kept


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training that tracks five widths and keeps two: its folder, all averages, and the path of the weights."""
    run = tmp_path_factory.mktemp("trained")
    recipe = tiny(steps=STEPS, ema=DIRECT, snapshots=COUNT, accumulate=1)
    source = recipe.data.load()
    recipe = recipe.resolved(source.info)
    stored = replace(recipe, training=replace(recipe.training, ema=DIRECT[:2]))
    direct, path = {}, []
    for now in train(recipe, source, None, "cpu"):
        path.append(flat(now.model.state_dict()))
        if due(now.step, STEPS, COUNT):
            keep(run, now.step, {w: now.averages[w] for w in DIRECT[:2]}, stored)
            direct[now.step] = {w: {k: v.clone() for k, v in a.state_dict().items()} for w, a in now.averages.items()}
    store(run / "last.safetensors", now.average, stored)
    return run, direct, torch.stack(path)


def flat(tensors):
    return torch.cat([v.detach().double().flatten() for v in tensors.values()])


def test_snapshots_are_evenly_spaced_and_end_with_the_run():
    for steps, count in ((900, 16), (24, 16), (7, 16), (1000, 1), (3, 3)):
        found = [k for k in range(1, steps + 1) if due(k, steps, count)]
        assert len(found) == min(steps, count)
        assert found[-1] == steps
        assert max(b - a for a, b in zip([0, *found], found, strict=False)) <= -(-steps // count)
    assert not any(due(k, 9, 0) for k in range(1, 10))


def test_a_snapshot_holds_both_averages_to_a_2048th_of_the_largest_entry(trained):
    run, direct, _ = trained
    assert list(snapshots(run)) == list(direct)
    for step, path in snapshots(run).items():
        tensors, notes = read(path)
        assert notes["step"] == step
        for i, width in enumerate(DIRECT[:2]):
            there = unpack(tensors, f"average{i}") | unpack(tensors, "buffer")
            assert there.keys() == direct[step][width].keys()
            for name, exact in direct[step][width].items():
                assert (there[name].float() - exact).abs().max() <= exact.abs().max() / 2048


def test_buffers_and_tensors_beyond_float16_are_kept_exactly(tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.large = torch.nn.Parameter(torch.tensor([1e5, 1.0]))
            self.small = torch.nn.Parameter(torch.tensor([1e-7, 1.2345e-9]))
            self.zero = torch.nn.Parameter(torch.zeros(3))
            self.none = torch.nn.Parameter(torch.zeros(0))
            self.register_buffer("frequencies", torch.tensor([1.0000001, 3.3333333]))
            self.register_buffer("count", torch.tensor(2**40))

    odd = Odd()
    keep(tmp_path, 3, {0.1: odd}, tiny())
    tensors, _ = read(snapshots(tmp_path)[3])
    there = unpack(tensors, "average0") | unpack(tensors, "buffer")
    for name, exact in odd.state_dict().items():
        assert torch.equal(there[name].to(exact.dtype), exact)
    assert there["count"].dtype == torch.int64


@pytest.mark.parametrize("wanted", [0.04, 0.07, 0.15])
@pytest.mark.parametrize("at", [STEPS, STEPS // 2])
def test_a_rebuilt_average_is_the_one_tracked_directly(trained, wanted, at):
    """Within the bound of Cauchy and Schwarz (see test_ema) and the rounding of the snapshots; in all, to 0.1 % and to
    what is said of it."""
    run, direct, path = trained
    made = rebuild(run, wanted, at)
    assert made.step == at
    exact, found = flat(direct[at][wanted]), flat({k: made.tensors[k] for k in direct[at][wanted]})
    stored = [Profile(w, s) for s in snapshots(run) if s <= at for w in DIRECT[:2]]
    plan = planned(run, wanted, at)
    weights = torch.tensor(list(plan.weights.values()))
    assert (made.profile_error, made.weights_error) == (plan.profile_error, plan.weights_error)
    motion = plan.profile_error * norm(Profile(wanted, at)) * (path[:at] - exact).square().sum(0).sqrt()
    entries = {k: [direct[p.step][p.sigma_rel][k].abs().max() for p in stored] for k in made.tensors}
    largest = flat({k: torch.full_like(v, max(entries[k]).item()) for k, v in direct[at][wanted].items()})
    rounding = weights.abs().sum() * largest / 2048
    assert ((found - exact).abs() <= motion + rounding).all()
    assert (found - exact).norm() < min(1e-3, made.weights_error) * exact.norm()


PLACES = 1024  # independent weights, so that a root mean square over them is known to 1 / sqrt(2 x 1024) = 2.2 %


def moving(kind, steps, rng):
    """The weights of a 32x32 layer after every step: drifting slowly, wandering, or scattered about a constant."""
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    base, t = draw(PLACES), torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    if kind == "drift":
        return base + 0.1 * (t * draw(PLACES) + t.square() * draw(PLACES) + (4 * t).sin() * draw(PLACES))
    if kind == "walk":
        return base + 0.3 * draw(steps, PLACES).cumsum(0) / steps**0.5
    return base + 0.3 * draw(steps, PLACES)


def average_at(path, p):
    """The average of a profile, which `follow` makes step by step (see test_ema)."""
    edges = torch.linspace(0, 1, p.step + 1, dtype=torch.float64) ** (gamma_of(p.sigma_rel) + 1)
    return edges.diff() @ path[: p.step]


@pytest.mark.parametrize("kind", ["drift", "walk", "scatter"])
@pytest.mark.parametrize(
    ("widths", "count"), [((0.1, 0.05), 16), ((0.1, 0.05), 64), ((0.05, 0.1, 0.15, 0.2), 32), ((0.1,), 32)]
)
def test_what_is_said_of_the_weights_is_found(tmp_path, kind, widths, count):
    """Real snapshots of a layer against its averages: what is rebuilt is as near as it is said to be, to 10 % (at 0.28,
    where a fifth of the profile is missed near the start, to twice that), and much nearer than the nearest stored one.
    Where weights scatter independently, what is said is right to a factor of 2: rounding is half of its bound or more.
    When least squares did not count rounding, 0.01 from four widths was off by 18 times the weights."""
    steps, rng = 512, torch.Generator().manual_seed(0)
    path = moving(kind, steps, rng)
    recipe, layer = tiny(steps=steps, ema=widths, snapshots=count), torch.nn.Linear(32, 32, bias=False)
    for step in (s for s in range(1, steps + 1) if due(s, steps, count)):
        averages = {w: deepcopy(layer) for w in widths}
        for w, average in averages.items():
            average.weight.data = average_at(path, Profile(w, step)).view(32, 32).float()
        keep(tmp_path, step, averages, recipe)
    reached = []
    for wanted in (0.005, 0.01, 0.02, 0.04, 0.07, 0.2, 0.28):
        exact = average_at(path, Profile(wanted, steps))
        off = lambda x, exact=exact: float((x - exact).norm() / exact.norm())
        try:
            made = rebuild(tmp_path, wanted)
        except ValueError:
            continue
        reached.append(wanted)
        found = off(made.tensors["weight"].double().flatten())
        stored = min(off(average_at(path, Profile(w, steps)).half().double()) for w in widths)
        assert found < (2 if wanted == 0.28 else 1.1) * made.weights_error
        assert wanted in widths or found < 0.7 * stored
        if kind == "scatter":
            assert found > 0.5 * made.weights_error
    assert set(reached) >= {0.04, 0.07, 0.2, 0.28}
    assert 0.005 not in reached


def test_weights_that_stand_still_are_given_back(tmp_path):
    """Nothing moves, so every average is the same one, to its rounding."""
    layer = torch.nn.Linear(8, 8)
    for step in (48, 96):
        keep(tmp_path, step, {0.1: layer, 0.05: layer}, tiny(steps=96, ema=(0.1, 0.05), snapshots=2))
    for wanted in (0.001, 0.05, 0.07, 0.28):
        made = rebuild(tmp_path, wanted)
        assert made.weights_error <= 2**-11 / 3**0.5 * (1 + 1e-12)
        for name, exact in layer.state_dict().items():
            assert (made.tensors[name] - exact).abs().max() <= exact.abs().max() / 2048


def test_a_stored_average_comes_back_to_the_rounding_of_the_snapshot(trained):
    run, direct, _ = trained
    for width in DIRECT[:2]:
        made = rebuild(run, width)
        assert made.profile_error == 0
        assert made.weights_error == pytest.approx(2**-11 / 3**0.5)
        for name, exact in direct[STEPS][width].items():
            assert (made.tensors[name] - exact).abs().max() <= exact.abs().max() / 2048 * 1.001


def test_the_weights_file_and_load_agree(trained, tmp_path):
    run, direct, _ = trained
    made = rebuild(run, 0.07)
    made.save(tmp_path / "ema.safetensors")
    _, denoiser, recipe = df.load(tmp_path / "ema.safetensors")
    _, same, _ = df.load(run, sigma_rel=0.07)
    assert recipe.training.ema == DIRECT[:2]
    for (name, a), b in zip(denoiser.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == direct[STEPS][0.07][name].dtype
    assert read(tmp_path / "ema.safetensors")[1]["sigma_rel"] == 0.07


def test_only_the_past_is_used(trained, tmp_path):
    run, _, _ = trained
    shutil.copytree(run, tmp_path / "run")
    before = rebuild(tmp_path / "run", 0.07, 48)
    forget(tmp_path / "run", 48)
    assert max(snapshots(tmp_path / "run")) == 48
    again = rebuild(tmp_path / "run", 0.07)
    assert all(torch.equal(before.tensors[k], again.tensors[k]) for k in before.tensors)


def test_what_cannot_be_rebuilt_is_one_sentence(trained, tmp_path):
    run, _, _ = trained
    reach = (
        r"do not reach sigma_rel=0\.001: the closest misses its profile by \d+%, which is about \d\.\d+% of the "
        r"weights, and rounding of the snapshots adds \d\.\d+%; they reach from (0\.0\d+) to 0\.2"
    )
    with pytest.raises(ValueError, match=reach) as said:
        rebuild(run, 0.001)
    low = float(re.search(reach, str(said.value))[1])
    assert planned(run, 1.01 * low).reaches  # what is named is what is possible
    with pytest.raises(ValueError, match="do not reach"):
        planned(run, 0.99 * low)
    with pytest.raises(ValueError, match=r"at most 0\.2887"):
        rebuild(run, 0.3)
    with pytest.raises(ValueError, match=r"no snapshot at step 50; the nearest are at 48 and 54"):
        rebuild(run, 0.07, 50)
    with pytest.raises(ValueError, match=r"has one snapshot up to step 6, .* \(0\.05 and 0\.1\) and no other"):
        rebuild(run, 0.07, 6)
    assert rebuild(run, 0.1, 6).step == 6
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        rebuild(tmp_path / "none", 0.1)
    with pytest.raises(ValueError, match=r"holds no snapshots .* training\.snapshots above 0"):
        rebuild(tmp_path, 0.1)
    shutil.copytree(run / "ema", tmp_path / "ema")
    (tmp_path / "ema" / f"{48:08d}.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"00000048\.safetensors is damaged"):
        rebuild(tmp_path, 0.07)
    save(tmp_path / "ema" / f"{STEPS:08d}.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no recipe"):
        rebuild(tmp_path, 0.07)
