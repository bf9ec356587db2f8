"""The conditioning vector."""

from __future__ import annotations

import pytest
import torch

from driftfield.network.embed import Condition, Conditioning, check_sizes, condition, divisor, zeroed


def test_a_plain_tensor_is_labels():
    label = torch.arange(3)
    assert condition(None) == Condition()
    assert condition(label).label is label
    assert condition(Condition(label)).label is label


def test_the_vector_is_a_sum():
    """Noise, label and augmentation add: the parts that were left out are zero vectors, exactly."""
    both = Conditioning(16, classes=3, augments=2).double()
    noise, label = torch.randn(3, dtype=torch.float64), torch.tensor([2, -1, 0])
    augment = torch.randn(3, 2, dtype=torch.float64)
    plain = both(noise)
    with_label, with_augment = both(noise, label) - plain, both(noise, Condition(augment=augment)) - plain
    assert torch.allclose(both(noise, Condition(label, augment)), plain + with_label + with_augment, rtol=0, atol=1e-12)
    assert with_label[1].count_nonzero() == 0
    assert torch.allclose(with_label[0], both.label.weight[2], rtol=0, atol=1e-12)
    assert torch.allclose(
        both(noise, torch.tensor([2])) - plain, both.label.weight[2].expand(3, -1), rtol=0, atol=1e-12
    )


def test_noise_labels_of_any_width_are_read_at_full_precision():
    """At a noise label of 999 a float32 angle is off by 6e-5 * 2 pi; a float64 label must not be rounded to float32."""
    network = Conditioning(16).double()
    noise = torch.tensor([999.0, 999.0 + 1e-6], dtype=torch.float64)
    first, second = network(noise)
    assert 0 < (first - second).abs().max() < 1e-3


def test_what_was_not_built_is_refused():
    network, noise = Conditioning(16), torch.zeros(2)
    with pytest.raises(ValueError, match="built without classes"):
        network(noise, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="built without augments"):
        network(noise, Condition(augment=torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="noise labels have shape"):
        network(torch.zeros(()))
    with pytest.raises(ValueError, match="must be even, got 7"):
        Conditioning(16, features=7)
    with pytest.raises(ValueError, match="depth must be a whole number of at least 1, got 0"):
        check_sizes({"width": 3, "depth": 0})


def test_divisor_and_zeroed():
    assert [divisor(96, 32), divisor(10, 4), divisor(7, 3), divisor(8, 0), divisor(6, 100)] == [32, 2, 1, 1, 6]
    assert all(p.count_nonzero() == 0 for p in zeroed(torch.nn.Linear(3, 2)).parameters())
