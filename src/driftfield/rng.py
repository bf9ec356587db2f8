"""Randomness as an argument: the only file that draws.

An `Rng` is one generator, or one generator per row of the batch. With one per row, made by `rows(seed, ...)`, the
noise of row `i` depends on `(seed, i)` alone: the same sample comes out whatever the batch split or number of
processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Rng = torch.Generator | Sequence[torch.Generator]

_MASK = 0xFFFFFFFF


def _mix(x: int) -> int:
    """A bijection of 32-bit integers that scatters neighbours (two rounds of multiply and xor-shift)."""
    x &= _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _absorb(state: int, key: int, first: int) -> int:
    """The state after the pieces of 32 bits of `key`, from the piece `first` on."""
    for place in range(first, max(1, -(-key.bit_length() // 32))):
        state = _mix(state * 31 + (key >> 32 * place) + (2 * place + first) * 0x9E3779B9 + 0x85EBCA6B)
    return state


def seeded(seed: int, *keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on `seed` and `keys` alone.

    The CPU generator keeps only 32 bits of a seed, so a hash of many keys would collide after some 60,000 of them.
    The last key therefore enters by a bijection: its values below 2^32, the rest held fixed, give distinct streams.
    A larger key is absorbed in pieces of 32 bits, each with its place, so that it is not mistaken for several keys.
    Raises: ValueError for a negative seed or key.
    """
    if seed < 0 or any(k < 0 for k in keys):
        raise ValueError(f"seed and keys must be >= 0, got {(seed, *keys)}")
    *head, last = (seed, *keys)
    state = 0x9E3779B9
    for key in head:
        state = _absorb(state, key, 0)
    generator = torch.Generator(device)
    generator.manual_seed(_mix(last + _absorb(state, last, 1)) if head else last)
    return generator


def rows(seed: int, start: int, stop: int, device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator for each of the rows `start, ..., stop - 1`: row `i` draws from `(seed, i)` alone."""
    return [seeded(seed, i, device=device) for i in range(start, stop)]


def device_of(rng: Rng) -> torch.device:
    """The device an `Rng` draws on."""
    return rng.device if isinstance(rng, torch.Generator) else rng[0].device


def _fill(out: Tensor, rng: Rng, draw: str, *limits: int) -> Tensor:
    if isinstance(rng, torch.Generator):
        getattr(out, draw)(*limits, generator=rng)
        return out
    if len(rng) != len(out):
        raise ValueError(f"{len(rng)} generators for a batch of {len(out)} rows; give one per row, or a single one")
    for row, generator in zip(out, rng, strict=True):
        getattr(row, draw)(*limits, generator=generator)
    return out


def _blank(like: Tensor) -> Tensor:
    return torch.empty_like(like, requires_grad=False, memory_format=torch.contiguous_format)


def normal(like: Tensor, rng: Rng) -> Tensor:
    """Standard normal draws with the shape, dtype and device of `like`. Its first axis is the rows."""
    return _fill(_blank(like), rng, "normal_")


def uniform(like: Tensor, rng: Rng) -> Tensor:
    """Uniform draws on [0, 1) with the shape, dtype and device of `like`. Its first axis is the rows."""
    return _fill(_blank(like), rng, "uniform_")


def integers(like: Tensor, high: int, rng: Rng) -> Tensor:
    """Integers from 0 to `high - 1`, int64, with the shape and device of `like`. Its first axis is the rows."""
    if high < 1:
        raise ValueError(f"integers below {high} do not exist; high must be at least 1")
    return _fill(torch.empty(like.shape, dtype=torch.int64, device=like.device), rng, "random_", high)


def gamma(shape: float | Tensor, like: Tensor, rng: Rng) -> Tensor:
    """Gamma(shape, 1) draws with the shape and device of `like`, always in float64; `shape` is one, or one for each.

    float64 because at a small `shape` a draw is like `u^(1/shape)`, below what float32 can hold.
    Raises: ValueError for a number `shape` that is not finite and > 0.
    Source: Marsaglia and Tsang 2000, as torch implements it.
    """
    if not isinstance(shape, Tensor):
        if not 0 < shape < float("inf"):
            raise ValueError(f"a gamma law needs a finite shape > 0, got {shape}")
        shape = torch.full(like.shape, shape, dtype=torch.float64, device=like.device)
    concentration = shape.to(torch.float64)
    if isinstance(rng, torch.Generator):
        return torch._standard_gamma(concentration, generator=rng)
    if len(rng) != len(like):
        raise ValueError(f"{len(rng)} generators for a batch of {len(like)} rows; give one per row, or a single one")
    draws = [torch._standard_gamma(c, generator=g) for c, g in zip(concentration, rng, strict=True)]
    return torch.stack(draws) if draws else concentration


def chi_square(freedom: float, like: Tensor, rng: Rng) -> Tensor:
    """Chi-square draws with `freedom` > 0 degrees, any real number, in float64: twice a Gamma(freedom / 2, 1)."""
    return 2 * gamma(freedom / 2, like, rng)


def open_uniform(like: Tensor, rng: Rng) -> Tensor:
    """Uniform draws strictly between 0 and 1, in float64: the middles of the `2^53` cells of `uniform`."""
    return uniform(like.double(), rng) + 2.0**-54


def inverse_gaussian(distance: Tensor, drift: Tensor | float, rng: Rng) -> Tensor:
    """The time at which a Brownian motion with this `drift` >= 0 first reaches `distance` >= 0, in float64.

    Its mean is `distance / drift` and its shape parameter `distance^2`; without drift it is the law of Levy.
    Shapes: the result is like `distance`, whose first axis is the rows; `drift` broadcasts to it.
    Source: Michael, Schucany and Haas 1976, with the smaller root free of cancellation. [michael1976generating]
    """
    d = distance.double()
    square, u = normal(d, rng).square(), uniform(d, rng)
    half = square / (2 * d)
    slow = drift + half + (half * (half + 2 * drift)).sqrt()
    small, ratio = d / slow, drift / slow  # the smaller root, and it over the mean
    return torch.where(u * (1 + ratio) <= 1, small, small / ratio.square())


def positive_stable(beta: float, like: Tensor, rng: Rng) -> Tensor:
    """Positive stable draws `S` of index 0 < beta < 1, `E exp(-lam S) = exp(-lam^beta)`, like `like`, in float64.

    Raises: ValueError for another index. Source: Kanter 1975, Cor. 4.1. [kanter1975stable]
    """
    if not 0 < beta < 1:
        raise ValueError(f"a positive stable law has an index between 0 and 1, got {beta}")
    u, waiting = math.pi * open_uniform(like, rng), -open_uniform(like, rng).log()
    log = (beta * u).sin().log() - u.sin().log() / beta
    return (log + (1 - beta) / beta * (((1 - beta) * u).sin() / waiting).log()).exp()


def poisson(mean: Tensor, rng: Rng) -> Tensor:
    """Poisson draws with these means, `>= 0`, shaped like `mean`, in float64. Its first axis is the rows."""
    mean = mean.double()
    if isinstance(rng, torch.Generator):
        return torch.poisson(mean, generator=rng)
    if len(rng) != len(mean):
        raise ValueError(f"{len(rng)} generators for a batch of {len(mean)} rows; give one per row, or a single one")
    draws = [torch.poisson(m, generator=g) for m, g in zip(mean, rng, strict=True)]
    return torch.stack(draws) if draws else mean


def permutation(n: int, rng: torch.Generator) -> Tensor:
    """The numbers 0 to `n - 1` in random order, int64 `(n,)`, on the generator's device."""
    return torch.randperm(n, generator=rng, device=rng.device)


@contextmanager
def ambient(seed: int, *keys: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within it, draws that take no generator (dropout layers) depend on `seed` and `keys` alone.

    The default generators are restored afterwards, so the rest of the program sees no difference.
    """
    generators = [torch.default_generator]
    if torch.device(device).type == "cuda":
        generators.append(torch.cuda.default_generators[torch.device(device).index or 0])
    kept = [g.get_state() for g in generators]
    try:
        for g in generators:
            g.manual_seed(seeded(seed, *keys).initial_seed())
        yield
    finally:
        for g, state in zip(generators, kept, strict=True):
            g.set_state(state)
