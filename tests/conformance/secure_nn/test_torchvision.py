"""torchvision's classifiers, unchanged, in lockstep: equal to torch and to the oracle, at the declared cost.

Declared error: 2 % of the largest logit. The networks are untrained, so their logits hardly depend on the
image; `test_real_images.py` trains one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from libs.models.registry import build_model
from libs.models.torchvision_ops import classifier
from libs.mpc.fixed_point import FixedPoint
from libs.mpc.ring import Ring
from libs.secure_nn.cleartext import run_plan_ring
from libs.secure_nn.client import reveal_output
from tests.conformance.secure_nn.test_prediction import compiled, settled

DECLARED = 0.02
SLOW = pytest.mark.slow

pytestmark = pytest.mark.timeout(600)  # VGG holds ten gigabytes

CASES = [
    ("squeezenet1_1", 1, 32, None),
    ("squeezenet1_1", 3, 45, Ring.RING_64),
    ("mobilenet_v2", 1, 32, None),
    ("densenet121", 1, 32, None),
    pytest.param("mobilenet_v2", 3, 64, Ring.RING_64, marks=SLOW),
    pytest.param("densenet121", 3, 40, Ring.RING_64, marks=SLOW),
    pytest.param("densenet121", 3, 64, None, marks=SLOW),
    pytest.param("resnet18", 3, 50, Ring.RING_64, marks=SLOW),
    pytest.param("resnet34", 1, 64, None, marks=SLOW),
    pytest.param("resnet50", 3, 64, None, marks=SLOW),
    pytest.param("vgg11_bn", 1, 64, None, marks=SLOW),
    pytest.param("vgg16_bn", 3, 32, None, marks=SLOW),
]


@pytest.mark.parametrize(("name", "channels", "size", "ring"), CASES)
def test_an_encrypted_prediction_equals_torch_at_the_declared_cost(
    name: str, channels: int, size: int, ring: Ring | None
) -> None:
    # torchvision's own module where it takes the channels: nothing is changed to make it fit.
    torch.manual_seed(2)
    made = classifier(name, classes=2) if channels == 3 else None
    module = made or build_model(name, channels=channels, classes=2, size=size, seed=2)
    shape = (channels, size, size)
    federation, module = compiled(settled(module, shape), shape, ring)
    plan, roles = federation.plan, federation.roles
    assert plan.ring is (ring or Ring.RING_32)
    torch.manual_seed(3)
    images = torch.rand(1, *shape) * 2 - 1
    materials, offline = federation.prepare("c", 1)
    inputs = federation.masked(materials, images.double().numpy())
    shares, online = federation.evaluate(materials, inputs)
    logits = reveal_output(plan, shares[roles.first], shares[roles.second], batch=1)
    with torch.no_grad():
        expected = module(images).numpy()
    encoded = FixedPoint(plan.ring, plan.input_scale).encode(images.numpy())
    rounding = np.random.default_rng(4)
    oracle = FixedPoint(plan.ring, plan.output_scale).decode(
        run_plan_ring(plan, federation.parameters, encoded, rounding=rounding)
    )
    declared = DECLARED * np.abs(expected).max()
    assert np.abs(logits - expected).max() < declared
    assert np.abs(logits - oracle).max() < declared
    cost = plan.cost(1)
    first, second = roles.first, roles.second
    assert online.rounds == {first: cost.rounds, second: cost.rounds}
    assert online.bytes_sent(first, second) == cost.online_bytes_each_way
    assert online.bytes_sent(second, first) == cost.online_bytes_each_way
    assert offline.bytes_sent(roles.dealer, second) == cost.dealt_bytes
    assert offline.bytes_sent(roles.dealer, first) == 0
