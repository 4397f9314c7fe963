"""The compiler knows shapes without ever having seen a trained weight."""

from __future__ import annotations

import pytest
import torch

from libs.core.errors import InvalidInput
from libs.fl.vectorise import parameter_count
from libs.models.registry import build_model
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from services.coordinator.adapters.compiler import TorchCompiler
from tests.fakes.federation import training_plan


def hospitals_model(seed: int) -> torch.nn.Module:
    return build_model("small_cnn", channels=1, classes=2, size=28, seed=seed).eval()


async def test_the_coordinator_counts_the_parameters_that_the_scientist_deals() -> None:
    assert await TorchCompiler().count_parameters(training_plan()) == parameter_count(hospitals_model(0))


async def test_an_unknown_architecture_is_refused_at_creation() -> None:
    with pytest.raises(InvalidInput, match="no model 'gpt'"):
        await TorchCompiler().count_parameters(training_plan(model="gpt"))


async def test_the_coordinator_compiles_what_hospitals_compile_from_other_weights() -> None:
    """The seed gives the coordinator's module untrained weights; only bounds and shapes may matter."""
    trained = hospitals_model(seed=5)
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    reports = [calibrate(trained, images), calibrate(trained, images / 2)]
    compiled = await TorchCompiler().compile(training_plan(seed=7), reports)
    theirs = compile_module(trained, input_shape=(1, 28, 28), bounds=dict(compiled.bounds))
    assert (theirs.hash, theirs.to_json()) == (compiled.hash, compiled.json)
    assert encode_parameters(trained, theirs).shape == (compiled.parameter_length,)
    shape = await TorchCompiler().describe(compiled.json)
    assert (shape.hash, shape.ring, shape.parameter_length) == (
        compiled.hash,
        compiled.ring,
        compiled.parameter_length,
    )


async def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(InvalidInput):
        await TorchCompiler().describe(b'{"steps": []}')
