from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.fl.vectorise import load_state_vector, parameter_count, state_vector


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def test_a_state_vector_brings_another_instance_to_the_same_state() -> None:
    first, second = net(0), net(1)
    first[1].running_mean += 2.0  # buffers travel too
    vector = state_vector(first)
    assert vector.dtype == np.float32
    assert vector.shape == (parameter_count(first),)
    load_state_vector(second, vector)
    x = torch.randn(4, 1, 4, 4)
    assert torch.equal(first.eval()(x), second.eval()(x))


def test_integer_buffers_stay_where_they_are() -> None:
    first, second = net(0), net(1)
    first[1].num_batches_tracked += 7
    load_state_vector(second, state_vector(first))
    assert int(second[1].num_batches_tracked) == 0


def test_the_layout_is_sorted_by_name_and_not_by_creation() -> None:
    module = nn.Module()
    module.register_parameter("b", nn.Parameter(torch.tensor([2.0])))
    module.register_parameter("a", nn.Parameter(torch.tensor([1.0])))
    assert state_vector(module).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("broken", ["short", "nan"])
def test_a_vector_that_cannot_be_this_models_changes_nothing(broken: str) -> None:
    module = net()
    before = state_vector(module)
    vector = before[:-1] if broken == "short" else np.where(np.arange(before.size) == 5, np.nan, before + 1)
    with pytest.raises(InvalidInput):
        load_state_vector(module, vector)
    assert np.array_equal(state_vector(module), before)


def test_the_vector_is_a_copy() -> None:
    module = net()
    vector = state_vector(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    assert not np.array_equal(vector, state_vector(module))
