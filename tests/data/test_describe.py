"""What is said of a data set, against sets in which all of it is planted."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from driftfield.data import describe as module
from driftfield.data.describe import describe
from driftfield.data.digits import Digits
from driftfield.data.spacing import QUANTILES
from driftfield.data.stored import Stored, split, stored
from driftfield.data.table import Table
from driftfield.data.toys import EightGaussians


def test_digits():
    """scikit-learn's digits: 17 grey levels, three pixels that are never inked, ten nearly equal classes, no copies."""
    source = Digits().load()
    facts = describe(source)
    x, labels = source.train()
    assert (facts.kind, facts.shape, facts.dimension) == ("image", (1, 8, 8), 64)
    assert (facts.count, facts.seen, facts.held) == (1617, 1617, 180)
    assert (facts.low, facts.high, facts.step) == (-1, 1, 0.125)
    assert facts.mean == pytest.approx(float(x.double().mean()), abs=1e-12)
    assert facts.std == pytest.approx(float(x.double().std(correction=0)), rel=1e-9)
    assert facts.parts[0].std == pytest.approx(facts.std, rel=1e-9)
    assert facts.constant == int((x.flatten(1).amax(0) == x.flatten(1).amin(0)).sum()) == 3
    assert facts.balance == tuple(torch.bincount(labels, minlength=10).tolist())
    assert sum(facts.balance) == 1617
    assert facts.unlabelled == facts.copies == facts.leaked == 0
    assert facts == describe(source)
    page = str(facts)
    assert max(map(len, page.splitlines())) <= 120
    for said in ("1,617 to train on", "1x8x8", "steps of 0.125", "10: ", "participation ratio"):
        assert said in page


def test_planted_copies_and_leaks():
    """Item 0 of each split is planted among others: exactly as a copy in one place, slightly moved in another."""
    x = np.random.default_rng(0).normal(size=(600, 5))
    train, held = (part.numpy() for part in split(600))
    x[train[:7]] = x[train[0]]  # 6 copies
    x[held[:3]] = x[train[10]]  # 3 leaks
    x[held[3]] = x[train[11]] + 1e-6  # one nearly so
    facts = describe(stored(x))
    assert (facts.copies, facts.leaked) == (6, 3)
    assert facts.spacing.near == pytest.approx(7 / 540)
    assert facts.near_held == pytest.approx(4 / 60)
    assert facts.near_expected is not None
    assert facts.near_expected < 1e-3


def test_copies_and_leaks_in_tables_with_ties(tmp_path):
    """Every row of 300 written twice: of pairs, so many have both in the training split and so many one in each."""
    rng = np.random.default_rng(4)
    whole = [f"{i % 7},{rng.integers(0, 5)},{'' if i % 3 else 'x'},{i / 10}" for i in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d", *whole, *whole]) + "\n")
    with pytest.warns(UserWarning, match="constant columns"):
        facts = describe(Table(str(tmp_path / "t.csv")).load())
    train, held = (part.numpy() % 300 for part in split(600))
    assert facts.copies == len(train) - len(set(train)) > 200
    assert facts.leaked == sum(row in set(train) for row in held) > 20


def test_zero_is_zero_of_either_sign(tmp_path):
    """In an array and in a table."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    train, held = (part.numpy() for part in split(60))
    x[:, 1] += 0.5  # no mean of 0, which would be subtracted
    x[train[0]], x[train[1]], x[held[0]] = (0.0, 1.0), (-0.0, 1.0), (-0.0, 1.0)
    pd.DataFrame(x, columns=["a", "b"]).to_csv(tmp_path / "t.csv", index=False)
    for facts in (
        describe(Stored(torch.from_numpy(x).float(), kind="points")),
        describe(Table(str(tmp_path / "t.csv")).load()),
    ):
        assert (facts.copies, facts.leaked) == (1, 1)


def test_how_near_chance_brings_items():
    """Uniform in the plane, a share 1 - 2^(-1/100) = 0.69 % of nearest distances is below a tenth of their median.

    Counted on 1,000 items: 4 binomial deviations, sqrt(0.0069 / 1000), and what the edges of the square change.
    """
    x = np.random.default_rng(1).uniform(size=(20_000, 2))
    facts = describe(stored(x))
    assert facts.near_expected == pytest.approx(1 - 2 ** -(10**-2), rel=0.2)
    assert abs(facts.spacing.near - facts.near_expected) < 4 * math.sqrt(0.0069 / 1000)


def test_units_and_channels():
    x = np.random.default_rng(2).normal(size=(300, 2, 6))
    x[:, 1] *= 10
    x[:, 0, 3] = 2.0
    facts = describe(stored(1000 + 50 * x))
    assert [p.name for p in facts.parts] == ["channel 0", "channel 1"]
    assert facts.parts[1].std / facts.parts[0].std > 8
    assert facts.constant == 1
    assert facts.std == pytest.approx(1)
    assert facts.shift + facts.scale * facts.mean == pytest.approx(1000, rel=0.05)
    assert facts.step == 0
    json.dumps(facts.as_dict(), allow_nan=False)


def test_copies_are_near_though_the_median_is_a_copy_too():
    """Every row three times: where the median is 0, items at 0 are still within a tenth of it.

    Known but for the choice of 1,000 of 1,080 items: 4 binomial deviations of the share of those without a copy.
    """
    x = np.random.default_rng(4).normal(size=(400, 3))
    facts = describe(stored(np.repeat(x, 3, 0)))
    train, held = (np.bincount(part.numpy() // 3, minlength=400) for part in split(1200))
    assert facts.spacing.nearest[QUANTILES.index(0.5)] == 0
    alone = (train == 1).sum() / train.sum()
    assert facts.spacing.near == pytest.approx(1 - alone, abs=4 * math.sqrt(alone / 1000))
    assert facts.near_held == pytest.approx(held[train > 0].sum() / held.sum())
    assert facts.near_expected is not None
    assert facts.near_expected < 0.01  # what chance makes of it, copies apart


def test_rounded_values_are_found_in_every_column(monkeypatch):
    """A column of levels among real ones is not a rounded set, however many rows there are; four such columns are.

    Of 4,400 numbers 1,024 are looked at: every fourth alone would be those of one column.
    """
    monkeypatch.setattr(module, "_VALUES", 1024)
    rng = np.random.default_rng(5)
    levels, real = rng.integers(0, 5, size=(1100, 4)).astype(float), rng.normal(size=(1100, 4))
    mixed = np.concatenate((levels[:, :1], real[:, 1:]), 1)
    assert module._step(torch.from_numpy(mixed)) == 0
    assert module._step(torch.from_numpy(levels)) == 1
    assert describe(stored(np.concatenate((mixed, mixed)))).step == 0


def test_a_law_has_no_count():
    facts = describe(EightGaussians().load())
    assert (facts.count, facts.seen) == (0, 5000)
    assert "drawn afresh" in str(facts)
    assert facts.effective == pytest.approx(2, abs=0.05)
    assert len(facts.balance) == 8


def test_tables_by_column(tmp_path):
    rng = np.random.default_rng(3)
    lines = ["size,kind,same"]
    for i in range(400):
        size = "" if i % 10 == 0 else f"{rng.lognormal():.6f}"
        lines.append(f"{size},{'abc'[min(2, rng.geometric(0.6) - 1)]},7")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="same"):
        source = Table(str(tmp_path / "t.csv")).load()
    facts = describe(source)
    parts = {p.name: p for p in facts.parts}
    assert set(parts) == {"size", "kind", "same"}
    assert parts["size"].missing == pytest.approx(0.1, abs=0.03)
    assert parts["kind"].what.startswith("3 values: a ")
    assert parts["same"].what == "constant"
    assert facts.missing > 0
    assert facts.spacing.reach < math.inf
    assert "missing" in str(facts)
    json.dumps(facts.as_dict(), allow_nan=False)


def test_two_items_are_enough():
    facts = describe(stored(np.array([[0.0, 1.0], [2.0, 5.0], [1.0, 1.0]])))
    assert facts.effective is None
    assert facts.spacing.intrinsic is None
    assert "too few items to say" in str(facts)


def test_one_item_to_train_on_is_too_few_and_the_data_are_named():
    source = stored(np.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"two\.npy has 1 item to train on, too few to take scales from"):
        describe(source, name="two.npy")
