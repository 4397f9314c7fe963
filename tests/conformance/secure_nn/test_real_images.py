"""Issue 3's promise of accuracy: a trained ResNet-18 on 100 real test radiographs, encrypted.

The largest difference of a logit is at most 0.02 times the largest logit, and no label changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from libs.data.dataset import load_train_and_test
from libs.data.transforms import to_model_input
from libs.models.registry import build_model
from libs.mpc.fixed_point import FixedPoint
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.roles import Roles
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.cleartext import run_plan_ring
from libs.secure_nn.client import reveal_output
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from tests.conformance.secure_nn.test_prediction import Federation

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "cxr"
DECLARED = 0.02
SIZE, EPOCHS, TESTED, BATCH = 64, 3, 100, 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not REAL.is_dir(), reason="the real radiographs are not on this machine"),
]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor, np.ndarray]:
    """A network after three epochs, images to calibrate on, test images and their labels."""
    train, test = load_train_and_test(REAL, size=SIZE)
    images, labels = to_model_input(train.images), torch.from_numpy(train.labels)
    module = build_model("resnet18", channels=1, classes=2, size=SIZE, seed=3).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(5)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images[rows]), labels[rows]).backward()
            optimizer.step()
    chosen = np.random.default_rng(6).permutation(len(test.labels))[:TESTED]
    return module.eval(), images[:256], to_model_input(test.images[chosen]), test.labels[chosen]


def test_a_trained_resnet18_keeps_every_label_and_two_percent_of_its_logits(
    trained: tuple[nn.Module, torch.Tensor, torch.Tensor, np.ndarray],
) -> None:
    module, seen, images, labels = trained
    plan = compile_module(module, input_shape=(1, SIZE, SIZE), bounds=calibrate(module, seen))
    assert plan.ring is Ring.RING_32
    parameters = encode_parameters(module, plan)
    with torch.no_grad():
        expected = module(images).numpy()
    assert (expected.argmax(1) == labels).mean() > 0.75  # it has learnt something
    largest = np.abs(expected).max()

    encoded = FixedPoint(plan.ring, plan.input_scale).encode(images.numpy())
    result = run_plan_ring(plan, parameters, encoded, rounding=np.random.default_rng(7))
    oracle = FixedPoint(plan.ring, plan.output_scale).decode(result)

    federation = Federation(plan, Roles.rotated(0), parameters)
    encrypted = np.concatenate(
        [_predicted(federation, f"batch {i}", batch) for i, batch in enumerate(images.split(BATCH))]
    )
    for name, logits in (("oracle", oracle), ("encrypted", encrypted)):
        error = np.abs(logits - expected).max()
        print(f"{name}: largest error {error:.5f}, largest logit {largest:.2f}")
        assert error <= DECLARED * largest
        assert (logits.argmax(1) == expected.argmax(1)).all()


def _predicted(federation: Federation, computation: str, images: torch.Tensor) -> np.ndarray:
    batch, roles = len(images), federation.roles
    materials, _ = federation.prepare(computation, batch)
    shares, _ = federation.evaluate(materials, federation.masked(materials, images.double().numpy()))
    return reveal_output(federation.plan, shares[roles.first], shares[roles.second], batch=batch)
