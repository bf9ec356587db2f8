"""Scores: each is its own function on the same features, and the record is whole."""

import json

import pytest
import torch

from driftfield.metric.copying import copying
from driftfield.metric.evaluate import evaluate
from driftfield.metric.features import Features, features
from driftfield.metric.frechet import Moments, frechet
from driftfield.metric.kid import kid, kid_by_blocks
from driftfield.metric.manifold import fidelity, recall
from driftfield.metric.measures import METRICS
from driftfield.metric.mmd import median_distance, mmd
from driftfield.metric.nearest import nearest_ratio
from driftfield.metric.reference import Reference
from driftfield.metric.sides import Side
from driftfield.metric.wasserstein import sliced_wasserstein, wasserstein
from driftfield.rng import normal, seeded

FEW = Features("few", lambda x: x.flatten(1)[:, :3])  # fewer features than rows, so that nothing is warned of


def draw(n, seed, shape=(1, 8, 8)):
    return 0.5 * normal(torch.empty(n, *shape), seeded(19, seed))


@pytest.mark.parametrize("which", ["digits", FEW])
def test_scores_are_those_of_their_functions(which):
    pytest.importorskip("ot")
    x, y, z = draw(70, 1), draw(80, 2), draw(90, 3)
    scores = evaluate(
        x, y, metrics="all", features=which, train=z, seed=5, projections=32, neighbours=4, subsets=0
    ).values
    a, b, c = (features(which)(part) for part in (x, y, z))
    assert list(scores) == [*METRICS, "copying_p"]
    assert scores["frechet"] == frechet(a, b)
    assert scores["kid"] == kid(a, b)[0]
    assert scores["mmd"] == mmd(a, b, (median_distance(b, seeded(0)),))[0]
    assert (scores["precision"], scores["density"], scores["coverage"]) == fidelity(a, b, 4)
    assert scores["recall"] == recall(a, b, 4)
    assert scores["sliced"] == sliced_wasserstein(a, b, seeded(5), 32)[0]
    assert scores["wasserstein"] == wasserstein(a, b)
    assert scores["nearest"] == nearest_ratio(a, c, b)
    assert (scores["copying"], scores["copying_p"]) == copying(a, c, b)


def test_errors_are_analytic_or_by_halves():
    x, y = draw(40, 1), draw(50, 2)
    scores = evaluate(x, y, metrics="frechet,kid,coverage,sliced", features=FEW, subsets=8)
    assert set(scores.errors) == {"frechet", "kid", "coverage", "sliced"}
    assert scores.errors["kid"] == kid(FEW(x), FEW(y))[1]
    assert min(scores.errors.values()) > 0
    assert set(evaluate(x, y, metrics="frechet,kid", features=FEW, subsets=0).errors) == {"kid"}
    assert "copying_p" not in evaluate(x, y, metrics="copying", features=FEW, train=draw(9, 3)).errors


def test_neighbours_of_few_rows_have_values_without_an_error():
    """Halves of 15 rows are enough for 5 neighbours, those of 14 are not; the values need 6 rows whatever the error."""
    names = "precision,recall,density,coverage"
    for a, b, has in ((6, 60, False), (10, 10, False), (29, 60, False), (60, 29, False), (30, 30, True)):
        x, y = draw(a, 1), draw(b, 2)
        scores = evaluate(x, y, metrics=f"{names},sliced", features=FEW)
        assert scores.values["precision"] == fidelity(FEW(x), FEW(y)).precision
        assert scores.values["recall"] == recall(FEW(x), FEW(y))
        assert set(scores.errors) == {"sliced"} | (set(names.split(",")) if has else set())
    assert set(evaluate(x, y, metrics="recall", features=FEW, neighbours=6).errors) == set()
    with pytest.raises(ValueError, match=r"more than 5 rows.*got 5 rows: give more, or choose fewer"):
        evaluate(draw(10, 1), draw(5, 2), metrics=names, features=FEW)
    left, right = torch.arange(80) // 40, torch.arange(52) // 40  # 40 and 40; 40 and 12
    scores = evaluate(draw(80, 1), draw(52, 2), metrics="coverage", features=FEW, labels=(left, right))
    assert set(scores.errors) == {"coverage", "coverage[0]"}
    assert "coverage[classes]" in scores.values
    with pytest.raises(ValueError, match=r"class b: 5 neighbours need more than 5 rows.*got 5 rows"):
        evaluate(draw(80, 1), draw(45, 2), metrics="coverage", features=FEW, labels=(left, right[:45]), classes="ab")


def test_a_choice_of_metrics():
    x, y = draw(40, 1), draw(50, 2)
    one = evaluate(x, y, metrics=["coverage"], features=FEW, subsets=0)
    assert list(one.values) == ["coverage"]  # not density and precision, though they come with it
    assert list(evaluate(x, y, metrics="density, frechet", features=FEW, subsets=0).values) == ["frechet", "density"]
    assert list(evaluate(x, y, features=FEW, subsets=0).values) == ["frechet", "kid", "sliced"]
    with_train = evaluate(x, y, features=FEW, subsets=0, train=draw(9, 3))
    assert list(with_train.values) == ["frechet", "kid", "sliced", "nearest"]


def test_the_record_is_complete_and_survives_json():
    scores = evaluate(draw(8, 1), draw(9, 2), metrics="kid,sliced", split="test", seed=3, projections=16, sample_seed=7)
    plain = json.loads(json.dumps(scores.as_dict()))
    assert set(plain) == {"kid", "kid_error", "sliced", "sliced_error", *scores.record}
    assert {key: plain[key] for key in plain if key != "version"} == {
        **{key: plain[key] for key in ("kid", "kid_error", "sliced", "sliced_error")},
        "metrics": "kid,sliced",
        "features": "raw",
        "resize": "none",
        "n": 8,
        "n_reference": 9,
        "n_train": None,
        "split": "test",
        "seed": 3,
        "sample_seed": 7,
        "subsets": 10,
        "projections": 16,
        "kid_block": None,
    }


def test_arrays_and_tensors_score_alike():
    x, y = draw(8, 1, (3,)), draw(9, 2, (3,))
    assert evaluate(x.numpy(), y) == evaluate(x, y.numpy()) == evaluate(x, y)


def batches(x, *sizes):
    return iter(x.split(list(sizes)))


def test_a_stream_scores_as_the_whole_does():
    """Frechet and KID without holding anything; other metrics hold the features, and are the same to the bit."""
    x, y = draw(103, 1), draw(60, 2)
    cut = (40, 1, 30, 32)
    streamed = evaluate(batches(x, *cut), y, metrics="frechet,kid", features=FEW, block=20)
    assert streamed.values["frechet"] == pytest.approx(frechet(FEW(x), FEW(y)), rel=1e-12)
    assert streamed.record["n"] == 103
    assert streamed.record["kid_block"] == 20
    assert streamed.errors["frechet"] > 0
    again = evaluate(batches(x, *reversed(cut)), y, metrics="frechet,kid", features=FEW, block=20)
    assert again.values == pytest.approx(streamed.values, rel=1e-12)
    held = evaluate(batches(x, *cut), y, metrics="coverage,sliced", features=FEW)
    assert held.values == evaluate(x, y, metrics="coverage,sliced", features=FEW).values
    assert held.errors == evaluate(x, y, metrics="coverage,sliced", features=FEW).errors


def test_a_stream_is_read_once_and_not_held():
    alive = []

    def made():
        for i in range(50):
            x = draw(20, i)
            alive.append(x.untyped_storage())
            yield x
            del x

    import sys

    evaluate(made(), draw(60, 99), metrics="frechet,kid", features=FEW, block=20, subsets=0)
    assert max(sys.getrefcount(s) for s in alive) <= sys.getrefcount(alive[-1])  # `alive` itself, and nobody else


def test_large_sets_take_blocks_of_themselves(monkeypatch):
    from driftfield.metric import kid as module

    monkeypatch.setattr(module, "_ALL_PAIRS", 1000)
    x, y = draw(40, 1), draw(50, 2)
    scores = evaluate(x, y, metrics="kid", features=FEW, seed=4)
    assert scores.record["kid_block"] == 20
    small = evaluate(x[:20], y[:50], metrics="kid", features=FEW)
    assert small.record["kid_block"] is None
    by_hand = kid_by_blocks(FEW(x), FEW(y), 8, seeded(4))
    found = evaluate(x, y, metrics="kid", features=FEW, seed=4, block=8)
    assert (found.values["kid"], found.errors["kid"]) == by_hand


def test_a_reference_measured_before():
    x, y = draw(40, 1), draw(50, 2)
    known = Reference.of(y, FEW, "test")
    fresh, again = (evaluate(x, r, features=FEW, split="test") for r in (y, known))
    assert fresh == again
    a, moments = FEW(x).double(), Moments.of(FEW(y))
    alone = Reference(Side(None, [Moments.given(moments.mean, moments.covariance)]), {"split": "file.npz"})
    found = evaluate(x, alone, features=FEW)
    assert list(found.values) == ["frechet"]
    assert found.values["frechet"] == pytest.approx(frechet(a, moments), rel=1e-10)
    assert found.record["n_reference"] is None
    with pytest.raises(ValueError, match="kid needs the samples of the reference"):
        evaluate(x, alone, features=FEW, metrics="kid")
    with pytest.raises(ValueError, match="measured with features 'few', the samples with 'raw'"):
        evaluate(x, known)
    with pytest.raises(ValueError, match="64 features and the reference 3"):
        evaluate(x, alone)


def test_each_class_is_scored_as_if_alone():
    x, y, z = draw(60, 1), draw(66, 2), draw(50, 3)
    left, right = torch.arange(60) % 3, torch.arange(66) % 3
    right[:6] = -1  # without a label: in the whole, in no class
    scores = evaluate(
        x, y, metrics="frechet,kid,nearest", features=FEW, train=z, labels=(left, right), classes=("a", "b"), subsets=4
    )
    for c, name in enumerate(("a", "b", "2")):
        own = evaluate(x[left == c], y[right == c], metrics="frechet,kid,nearest", features=FEW, train=z, subsets=4)
        for metric in ("frechet", "kid", "nearest"):
            assert scores.values[f"{metric}[{name}]"] == own.values[metric]
            assert scores.errors[f"{metric}[{name}]"] == own.errors[metric]
    mean = sum(scores.values[f"frechet[{n}]"] for n in "ab2") / 3
    error = sum(scores.errors[f"frechet[{n}]"] ** 2 for n in "ab2") ** 0.5 / 3
    assert scores.values["frechet[classes]"] == pytest.approx(mean, rel=1e-14)
    assert scores.errors["frechet[classes]"] == pytest.approx(error, rel=1e-14)
    assert scores.values["frechet"] == frechet(FEW(x), FEW(y))
    with pytest.raises(ValueError, match="class 2 has 20 samples and 2 reference points"):
        evaluate(x, y[:8], features=FEW, metrics="kid", labels=(left, torch.tensor([0, 0, 0, 0, 0, 0, 2, 2])))
    with pytest.raises(ValueError, match=r"labels of the samples should be one for each of 60, got \(59,\)"):
        evaluate(x, y, features=FEW, labels=(left[:59], right))


@pytest.mark.parametrize("name", ["raw", "digits"])
def test_digits_are_nearer_to_digits_than_noise_is(name):
    """Half of the digits against the other half; against noise with their mean and spread in each pixel; and copies."""
    sklearn = pytest.importorskip("sklearn.datasets")
    x = torch.as_tensor(sklearn.load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    train, held, new = x[0::3], x[1::3], x[2::3]
    noise = x.mean(0) + x.std(0) * normal(torch.empty(599, 1, 8, 8), seeded(1))
    wanted = "frechet,kid,mmd,precision,density,coverage,sliced,nearest,copying"
    real, fake, copy = (
        evaluate(s, held, metrics=wanted, features=name, train=train, subsets=0) for s in (new, noise, train)
    )
    a, b = real.values, fake.values
    assert a["frechet"] < b["frechet"] / 3
    assert a["sliced"] < b["sliced"] / 1.2
    for kernel in ("kid", "mmd"):
        assert abs(a[kernel]) < 4 * real.errors[kernel] < b[kernel] - 4 * fake.errors[kernel]
    assert 0.9 < a["nearest"] < 1.1 < b["nearest"]
    assert a["precision"] > b["precision"] + 0.2
    assert a["coverage"] > 0.9 > b["coverage"] + 0.2
    assert a["copying_p"] > 1e-3
    assert copy.values["nearest"] == 0
    assert copy.values["copying"] == 1
    assert copy.values["copying_p"] < 1e-100


def test_too_few_rows_for_the_features_are_warned_of():
    with pytest.warns(UserWarning, match="the reference has 50 rows for 64 features.*use kid, or fewer features"):
        evaluate(draw(70, 1), draw(50, 2), metrics="frechet", subsets=0)
    with pytest.warns(UserWarning, match="the sample has 40 rows for 64"):
        evaluate(draw(40, 1), draw(50, 2), metrics="frechet", subsets=0)
    five = Features("five", lambda x: x.flatten(1)[:, :5])
    label = torch.arange(20) % 5
    with pytest.warns(UserWarning, match="the smallest class has 4 rows for 5 features"):
        evaluate(draw(20, 1), draw(20, 2), metrics="frechet", features=five, subsets=0, labels=(label, label))


def test_bad_input_is_named():
    x, y = draw(8, 1), draw(9, 2)
    bad = x.clone()
    bad[2, 0, 0, :2] = torch.nan
    bad[5, 0, 3, 3] = torch.inf
    with pytest.raises(ValueError, match="samples should be finite, but 3 values in 2 of 8 rows"):
        evaluate(bad, y)
    with pytest.raises(ValueError, match=r"samples are of shape \(1, 8, 8\) but the reference set of \(64,\)"):
        evaluate(x, y.flatten(1))
    with pytest.raises(ValueError, match=r"samples are of shape \(1, 8, 8\) but the reference set of \(64,\)"):
        evaluate([x], y.flatten(1))
    with pytest.raises(ValueError, match="but the train set of"):
        evaluate(x, y, train=draw(5, 3, (1, 4, 4)))
    with pytest.raises(ValueError, match=r"reference should have shape \(n, \*shape\) with n at least 4"):
        evaluate(x, y[:3])
    with pytest.raises(ValueError, match="held-out points are training points"):
        evaluate(x, y, metrics="nearest", train=y)
    with pytest.raises(ValueError, match="unknown features 'incept'"):
        evaluate(x, y, features="incept")
    with pytest.raises(ValueError, match="unknown metric 'fid'"):
        evaluate(x, y, metrics="kid,fid")
    with pytest.raises(ValueError, match="'frechett'; did you mean 'frechet'"):
        evaluate(x, y, metrics="frechett")
    with pytest.raises(ValueError, match="copying compares samples with the training set"):
        evaluate(x, y, metrics="copying")
    with pytest.raises(ValueError, match="no metric was asked for"):
        evaluate(x, y, metrics=[])
    with pytest.raises(ValueError, match="at least 2 subsets, got 1"):
        evaluate(x, y, metrics="sliced", subsets=1)
    with pytest.raises(ValueError, match="at least 16 of them, got 9"):
        evaluate([x, x[:1]], y, metrics="frechet", features=FEW)
    with pytest.raises(ValueError, match="at least 4, but the batches held 3"):
        evaluate([x[:3]], y, metrics="kid")
    with pytest.raises(TypeError, match=r"floats in the model's units, got torch\.uint8"):
        evaluate(x.to(torch.uint8), y)
    with pytest.raises(TypeError, match="a tensor or an array, got float"):
        evaluate([1.0], y)
    with pytest.raises(TypeError, match="batches of them, got int"):
        evaluate(3, y)
