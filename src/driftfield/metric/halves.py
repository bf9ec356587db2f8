"""Standard errors of anything, by repeated random halves of the samples."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..rng import permutation, seeded

Values = dict[str, float]


def halves_error(value: Callable[[torch.Generator], Values], count: int, seed: int) -> Values:
    """The standard errors of some values: the standard deviations over `count` random halves of the samples.

    `value` is given a generator, takes a half of every sample with it, and measures. A half leaves out as many rows as
    it keeps, and then the delete-d jackknife's factor, kept over left out, is 1: the spread over halves estimates that
    over fresh samples of the full size. The error estimated has itself a relative error of about `(2 count)^(-1/2)`.

    Bias:   none for a mean of rows, small for what is smooth in the data or a quantile. A distance at equal laws, where
            its slope vanishes, falls as `1/n` and so spreads about twice as much over halves: the error is then too
            large by up to 2. Where the value depends on the size (Frechet, transport, neighbours) only its spread is
            taken from halves, never its level.
    Raises: ValueError for fewer than 2 halves.
    Source: Shao and Wu 1989. [shao1989jackknife]
    """
    if count < 2:
        raise ValueError(f"a spread needs at least 2 subsets, got {count}; 0 leaves standard errors out")
    found = [value(seeded(seed, _KEY, i)) for i in range(count)]
    return {name: float(torch.tensor([one[name] for one in found], dtype=torch.float64).std()) for name in found[0]}


def half(n: int, rng: torch.Generator) -> torch.Tensor:
    """The indices of a random half of `n` rows, `(n // 2,)`, int64."""
    return permutation(n, rng)[: n // 2]


_KEY = 0x48414C46  # of the streams that choose halves
