"""The project's own architectures: logits within 0.005 of the float model, on unseen images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from libs.models.registry import build_model
from libs.mpc.fixed_point import FixedPoint
from libs.mpc.ring import Ring
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.cleartext import run_plan_ring
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from tests.conformance.secure_nn.oracle import settled

DECLARED = 0.005


def _task(count: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a bright square in the upper or the lower half."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, size, size, generator=generator) * 0.5
    labels = torch.randint(0, 2, (count,), generator=generator)
    for image, label in zip(images, labels, strict=True):
        top = int(label) * size // 2 + size // 8
        image[0, top : top + size // 4, size // 3 : 2 * size // 3] += 0.4
    return images, labels


def _trained(name: str, size: int, steps: int) -> nn.Module:
    module = build_model(name, channels=1, classes=2, size=size, seed=3).train()
    images, labels = _task(steps * 16, size, seed=1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    for batch, wanted in zip(images.split(16), labels.split(16), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(batch), wanted).backward()
        optimizer.step()
    return settled(module, images[:64])


@pytest.mark.parametrize(
    ("name", "size", "steps", "rings"),
    [
        ("small_cnn", 28, 60, list(Ring)),
        ("small_cnn_private", 28, 60, list(Ring)),
        ("medium_cnn", 64, 20, [Ring.RING_32]),
        pytest.param("resnet18", 64, 8, [Ring.RING_32], marks=pytest.mark.slow),
    ],
)
def test_logits_of_a_trained_model_are_within_the_declared_error(
    name: str, size: int, steps: int, rings: list[Ring]
) -> None:
    module = _trained(name, size, steps)
    seen, unseen = _task(64, size, seed=2)[0], _task(12, size, seed=4)[0]
    with torch.no_grad():
        expected = module(unseen).numpy()
    assert np.abs(expected).max() > 0.5  # it has learnt something
    for ring in rings:
        plan = compile_module(module, input_shape=(1, size, size), bounds=calibrate(module, seen), ring=ring)
        encoded = FixedPoint(ring=ring, scale=plan.input_scale).encode(unseen.numpy())
        rounding = np.random.default_rng(5)
        result = run_plan_ring(plan, encode_parameters(module, plan), encoded, rounding=rounding)
        logits = FixedPoint(ring=ring, scale=plan.output_scale).decode(result)
        assert np.abs(logits - expected).max() <= DECLARED
        assert (logits.argmax(1) == expected.argmax(1)).all()
