"""The comparison follows the link."""

from __future__ import annotations

import pytest
import torch

from libs.core.errors import InvalidInput
from libs.models.registry import build_model
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.link import choose_comparison
from libs.secure_nn.plan import Plan

SLOW = {"rtt_s": 0.040, "bytes_per_s": 100e6 / 8}
LAN = [
    {"rtt_s": 0.0002, "bytes_per_s": 10e9 / 8},
    {"rtt_s": 0.0005, "bytes_per_s": 1e9 / 8},
]


@pytest.fixture(scope="module")
def resnet18() -> Plan:
    module = build_model("resnet18", channels=1, classes=2, size=224, seed=1).eval()
    bounds = calibrate(module, torch.rand(1, 1, 224, 224))
    return compile_module(module, input_shape=(1, 224, 224), bounds=bounds)


@pytest.mark.parametrize("link", LAN)
def test_a_fast_link_gets_the_narrow_comparison(resnet18: Plan, link: dict[str, float]) -> None:
    assert choose_comparison(resnet18, 1, **link) is Comparison.NARROW


def test_a_slow_link_gets_the_wide_comparison_and_saves_a_round_per_relu(resnet18: Plan) -> None:
    assert choose_comparison(resnet18, 1, **SLOW) is Comparison.WIDE
    assert resnet18.cost(1).rounds == 82
    assert resnet18.cost(1, comparison=Comparison.WIDE).rounds == 61


def test_a_client_that_waits_for_the_dealer_gets_the_narrow_comparison(resnet18: Plan) -> None:
    assert choose_comparison(resnet18, 1, **SLOW, offline_weight=1.0) is Comparison.NARROW


def test_a_large_batch_is_worth_fewer_bytes_rather_than_fewer_rounds(resnet18: Plan) -> None:
    assert choose_comparison(resnet18, 16, **SLOW) is Comparison.NARROW


@pytest.mark.parametrize("link", [{"rtt_s": -1.0, "bytes_per_s": 1.0}, {"rtt_s": 0.0, "bytes_per_s": 0.0}])
def test_an_impossible_link_is_refused(resnet18: Plan, link: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="bandwidth"):
        choose_comparison(resnet18, 1, **link)
