"""Training on partly known samples: the law of the masks, what the loss counts, and calibrated conditional draws."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor

from driftfield.data.table import Table
from driftfield.denoise.mixture import Mixture
from driftfield.denoise.preconditioned import Preconditioned
from driftfield.generation import generate
from driftfield.network.embed import Condition
from driftfield.network.mlp import MLP
from driftfield.network.unet import UNet
from driftfield.objective.base import Batch
from driftfield.objective.laws import Even, LogNormal
from driftfield.objective.matching import Matching
from driftfield.objective.reveal import Reveal
from driftfield.plain import Build
from driftfield.process.gaussian import EDM, VE
from driftfield.process.poisson import PFGMPP
from driftfield.recipe import Recipe, Training
from driftfield.rng import normal, seeded
from driftfield.train.loop import train

MEAN = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)
COV = torch.tensor([[1.0, 0.8, -0.3], [0.8, 1.2, 0.2], [-0.3, 0.2, 0.9]], dtype=torch.float64)
LAW = {"process": EDM(), "weight": Even()}


def conditional(known: list[int], values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(n, u)` and covariance of the other coordinates of N(MEAN, COV), given `values` `(n, k)`."""
    rest = [i for i in range(3) if i not in known]
    gain = COV[rest][:, known] @ torch.linalg.inv(COV[known][:, known])
    return MEAN[rest] + (values - MEAN[known]) @ gain.T, COV[rest][:, rest] - gain @ COV[known][:, rest]


def test_law_of_the_masks():
    """With `nothing` = 0.25 the share of rows with k of 3 variables known is 1/4, 3/8, 3/8, 0, each variable equally
    often; bounds are four standard errors of a share."""
    n = 20_000
    mask = Reveal(0.25, (1, 3, 2))(torch.zeros(n, 6), seeded(0))
    groups = mask[:, [0, 1, 4]]
    assert torch.equal(mask, groups.repeat_interleave(torch.tensor([1, 3, 2]), 1))
    count = groups.sum(1)
    for k, share in enumerate((0.25, 0.375, 0.375, 0)):
        assert abs((count == k).double().mean() - share) <= 4 * math.sqrt(share * (1 - share) / n)
    each = 0.375 / 3 + 0.375 * 2 / 3
    assert (groups.mean(0) - each).abs().max() < 4 * math.sqrt(each * (1 - each) / n)


@pytest.mark.parametrize("nothing", [0.0, 1.0])
def test_ends_of_the_share(nothing):
    mask = Reveal(nothing, (1, 1, 1))(torch.zeros(500, 3), seeded(0))
    assert ((mask.sum(1) == 0) == (nothing == 1)).all()
    assert (mask.sum(1) < 3).all()


def test_missing_values_are_never_known_and_one_variable_never_is():
    x = torch.zeros(500, 2)
    x[:, 0] = math.nan
    mask = Reveal(0.0, (1, 1))(x, seeded(0))
    assert (mask[:, 0] == -1).all()
    assert set(mask[:, 1].tolist()) == {0.0, 1.0}
    assert (Reveal(0.0, (2,))(torch.zeros(50, 2), seeded(0)) == 0).all()


def test_masks_take_the_shape_of_the_data():
    assert Reveal(0.5, (2, 4))(torch.zeros(5, 2, 3), seeded(0)).shape == (5, 2, 3)
    with pytest.raises(ValueError, match="widths sum to 3, but samples have 2"):
        Reveal(0.5, (1, 2))(torch.zeros(5, 2), seeded(0))
    with pytest.raises(ValueError, match="resolve the recipe"):
        Reveal()(torch.zeros(5, 2), seeded(0))
    with pytest.raises(ValueError, match=r"from 0 to 1; got 1\.5"):
        Reveal(1.5)


def test_the_loss_counts_what_is_neither_known_nor_missing():
    """A denoiser that says 0 leaves the mean square of the clean data over those entries: checked entry by entry."""
    x = normal(torch.empty(200, 4), seeded(1))
    x[::3, 2] = math.nan
    x[7] = math.nan
    seen = []

    def zero(state: Tensor, t: Tensor, cond: Condition) -> Tensor:
        seen.append((state, cond))
        return torch.zeros_like(state)

    objective = Matching(**LAW, reveal=Reveal(0.3, (1, 1, 2)))
    losses = objective({"denoiser": zero}, Batch(x), seeded(2))
    state, cond = seen[0]
    assert state.isfinite().all()
    assert torch.equal(cond.known, torch.where(cond.mask == 1, x, 0))
    assert ((cond.mask == -1) == x.isnan()).all()
    for row in range(200):
        wanted = x[row][cond.mask[row] == 0]
        assert losses[row].item() == pytest.approx(wanted.square().mean().item() if len(wanted) else 0.0, rel=1e-6)
    assert losses[7] == 0


def test_without_a_mask_all_but_the_missing_is_to_be_found():
    """How held-out data are judged."""
    x = torch.tensor([[1.0, math.nan], [2.0, 3.0]])
    objective = Matching(**LAW, reveal=Reveal(0.3, (1, 1)))
    losses = objective.at(lambda state, t, cond: torch.zeros_like(state), Batch(x), torch.ones(2), seeded(0))
    assert losses.tolist() == [1.0, 6.5]


def test_a_network_sees_only_what_it_may():
    """Not the noisy state where a value is known or missing, and not the value where it is not known."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP((4,), width=32, depth=1, known=True, waves=1)
        torch.nn.init.normal_(network.out.weight)
    x, known = normal(torch.empty(2, 3, 4), seeded(0))
    mask = torch.tensor([1.0, 0.0, -1.0, 0.0]).expand(3, 4)
    noise = torch.zeros(3)
    out = network(x, noise, Condition(known=known, mask=mask))
    other = network(torch.where(mask == 0, x, 9), noise, Condition(known=torch.where(mask == 1, known, 9), mask=mask))
    assert torch.equal(out, other)
    assert not torch.allclose(out, network(x, noise, Condition(known=known + 1, mask=mask)))
    nothing = Condition(known=torch.zeros(3, 4), mask=torch.zeros(3, 4))
    assert torch.equal(network(x, noise, nothing), network(x, noise))
    y = Preconditioned(network, EDM())(x, torch.ones(()), Condition(known=known, mask=mask))
    assert torch.equal(y[:, 0], known[:, 0])


def test_networks_that_take_no_known_values_say_so():
    told = Condition(known=torch.zeros(2, 4), mask=torch.zeros(2, 4))
    with pytest.raises(ValueError, match="built without known"):
        MLP((4,), width=8)(torch.zeros(2, 4), torch.zeros(2), told)
    image = Condition(known=torch.zeros(2, 1, 8, 8), mask=torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="built without known"):
        UNet((1, 8, 8), width=8)(torch.zeros(2, 1, 8, 8), torch.zeros(2), image)


@pytest.mark.parametrize(
    ("process", "n", "nfe"),
    [(EDM(), 4000, 399), (VE(), 4000, 399), (PFGMPP(D=3.0), 800, 127)],
    ids=["EDM", "VE", "PFGMPP"],
)
def test_exact_conditional_draws(process, n, nfe):
    """With the exact denoiser of the conditional law the draws have its mean and covariance, at every D.

    Bounds are four standard errors of n draws and the bias of the path, below 1 % of the deviation at 64 steps."""
    known, values = [1], torch.tensor([[0.9]], dtype=torch.float64)
    mean, covariance = conditional(known, values)
    exact = Mixture(process, torch.ones(1, dtype=torch.float64), mean, covariance[None])

    def denoiser(x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        y = cond.known.clone()
        y[:, [0, 2]] = exact(x[:, [0, 2]], t)
        return y

    mask = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(n, 3)
    x = generate(
        process, denoiser, (n, 3), cond=Condition(known=0.9 * mask, mask=mask), nfe=nfe, batch=1500, dtype=torch.float64
    )
    if process.level(torch.zeros((), dtype=torch.float64)) == 0:
        assert (x[:, 1] - 0.9).abs().max() < 1e-12  # a combination of estimates that all say so
    else:  # the path ends above 0, with that much noise left
        assert (x[:, 1] - 0.9).abs().max() < 6 * process.level(torch.tensor(process.span[0])).item()
    drawn = x[:, [0, 2]]
    std = covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - mean[0]).abs() < (4 / math.sqrt(n) + 0.01) * std).all()
    error = (torch.outer(std, std).square() + covariance.square()).sqrt() / math.sqrt(n)
    assert ((torch.cov(drawn.T) - covariance).abs() < 4 * error + 0.02 * torch.outer(std, std)).all()


def test_rows_with_patterns_of_their_own_are_calibrated_in_batches():
    """Each row its own mask and values: the coordinate 0 of each at its exact conditional quantile is uniform.

    The Kolmogorov-Smirnov distance of n uniform draws exceeds 1.95 / sqrt(n) once in a thousand times; 0.005 more is
    for the bias of the path."""
    n = 1500
    clean = MEAN + normal(torch.empty(n, 3, dtype=torch.float64), seeded(3)) @ torch.linalg.cholesky(COV).T
    patterns = [[], [1], [2], [1, 2]]
    masks = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]], dtype=torch.float64)
    which = torch.arange(n) % 4
    mask = masks[which]
    process = EDM()

    def denoiser(x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        y = cond.known.clone()
        for k, known in enumerate(patterns):
            rest = [i for i in range(3) if i not in known]
            rows = (cond.mask == masks[k]).all(1)
            mean, covariance = conditional(known, cond.known[rows][:, known])
            gain = covariance @ torch.linalg.inv(covariance + t**2 * torch.eye(len(rest), dtype=torch.float64))
            y[rows.nonzero(), torch.tensor(rest)] = mean + (x[rows][:, rest] - mean) @ gain.T
        return y

    told = Condition(known=torch.where(mask > 0, clean, 0), mask=mask)
    x = generate(process, denoiser, (n, 3), cond=told, nfe=255, batch=128, dtype=torch.float64)
    assert torch.allclose(x[mask > 0], clean[mask > 0], rtol=0, atol=1e-12)
    for k, known in enumerate(patterns):
        rows = which == k
        mean, covariance = conditional(known, clean[rows][:, known])
        place = norm.cdf(((x[rows, 0] - mean[:, 0]) / covariance[0, 0].sqrt()).numpy())
        assert kstest(place, "uniform").statistic < 1.95 / math.sqrt(int(rows.sum())) + 0.005


@pytest.mark.slow
def test_a_trained_network_is_calibrated(tmp_path):
    """Trained on a table of correlated Gaussian columns with a tenth of the cells missing, for a minute at most.

    Given the second column, and given nothing, the third lies at its exact conditional quantile: mean within four
    standard errors of 1/2 and the central 80 % within four of 0.8, and the training tolerance of 0.03 for each."""
    n = 4000
    clean = MEAN + normal(torch.empty(n, 3, dtype=torch.float64), seeded(4)) @ torch.linalg.cholesky(COV).T
    frame = pd.DataFrame(clean.numpy(), columns=list("abc"))
    frame = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.1)
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = Table(str(tmp_path / "t.csv"))
    source = data.load()
    recipe = Recipe(
        data,
        Build("driftfield.network.mlp:MLP", {"width": 64, "depth": 2}),
        Matching(PFGMPP(D=128.0), LogNormal(-0.5, 1.2), reveal=Reveal()),
        training=Training(steps=1500, batch=256, warmup=50),
    ).resolved(source.info)
    for now in train(recipe, source, device="cpu"):  # noqa: B007
        pass
    m = 3000
    b = (MEAN[1] + COV[1, 1].sqrt() * normal(torch.empty(m, dtype=torch.float64), seeded(5))).clamp(-3, 3)
    for given in ({}, {"b": b.numpy()}):
        x = recipe.sample(now.average, m, nfe=63, cond=source.info.known(given, m) if given else None)
        rows = source.info.filled(x, given)
        if given:
            assert (rows["b"] == given["b"]).all()
            mean, covariance = conditional([1], b[:, None])
            mean, std = mean[:, 1].numpy(), covariance[1, 1].sqrt().item()
        else:
            mean, std = MEAN[2].item(), COV[2, 2].sqrt().item()
        place = norm.cdf((rows["c"].to_numpy() - mean) / std)
        assert abs(place.mean() - 0.5) < 4 / math.sqrt(12 * m) + 0.03
        assert abs((np.abs(place - 0.5) < 0.4).mean() - 0.8) < 4 * math.sqrt(0.16 / m) + 0.03


def test_a_recipe_fills_in_the_columns_and_needs_a_fitting_network(tmp_path):
    frame = pd.DataFrame({"a": [1.5, 2.5, None, 4.25] * 5, "b": ["x", "y", "z", "x"] * 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = Table(str(tmp_path / "t.csv"))
    info = data.load().info
    recipe = Recipe(data, Build("driftfield.network.mlp:MLP", {"width": 8}), Matching(EDM(), reveal=Reveal()))
    assert recipe.resolved(info).objective.reveal == Reveal(0.5, (1, 3))
    assert recipe.resolved(info).denoiser().network.known
    with pytest.raises(ValueError, match="missing values"):
        Recipe(data, recipe.network, Matching(EDM())).resolved(info)
    other = Recipe(data, Build("driftfield.network.unet:UNet"), Matching(EDM(), reveal=Reveal())).resolved(info)
    with pytest.raises(ValueError, match="takes no known values"):
        other.denoiser()
