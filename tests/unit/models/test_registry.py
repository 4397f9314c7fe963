"""Architectures by name."""

import pytest
import torch
from torch import fx, nn

from libs.core.errors import InvalidInput
from libs.models.registry import ARCHITECTURES, build_model

PRIVATE_LAYERS = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.Dropout,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Linear,
)
SIZES = {"small_cnn": 28, "small_cnn_private": 28, "medium_cnn": 64}
FUNCTIONS = {"flatten", "add", "cat", "relu", "dropout", "adaptive_avg_pool2d"}
HEAVY = pytest.mark.slow
"""Half a gigabyte of weights."""
NAMES = [pytest.param(name, marks=HEAVY) if name.startswith("vgg") else name for name in ARCHITECTURES]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_gives_one_row_of_logits_per_image(name: str) -> None:
    model = build_model(name, channels=1, classes=2, size=SIZES.get(name, 32), seed=0)
    assert model(torch.zeros(3, 1, SIZES.get(name, 32), SIZES.get(name, 32))).shape == (3, 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_size_and_three_channels_work_too(name: str) -> None:
    size = ARCHITECTURES[name].min_size
    model = build_model(name, channels=3, classes=4, size=size, seed=0).eval()
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 4)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = build_model(name, channels=1, classes=2, size=SIZES.get(name, 32), seed=seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_building_a_model_leaves_the_callers_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model("small_cnn", channels=1, classes=2, size=28, seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", NAMES)
def test_only_layers_that_run_under_shares_are_used(name: str) -> None:
    model = build_model(name, channels=1, classes=2, size=SIZES.get(name, 32), seed=0)
    for node in fx.symbolic_trace(model).graph.nodes:
        if node.op == "call_module":
            assert isinstance(model.get_submodule(node.target), PRIVATE_LAYERS), node.target
        elif node.op in {"call_function", "call_method"}:
            assert getattr(node.target, "__name__", node.target) in FUNCTIONS, node.target


@pytest.mark.parametrize("name", ["small_cnn", "small_cnn_private"])
def test_the_small_network_stays_small(name: str) -> None:
    """Encrypted latency is promised for about this many products and signs an image."""
    model = build_model(name, channels=1, classes=2, size=28, seed=0)
    products, signs = 0, 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal products, signs
        if isinstance(layer, nn.Conv2d):
            products += output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            products += layer.weight.numel()
        elif isinstance(layer, nn.ReLU):
            signs += output[0].numel()

    for layer in model.modules():
        layer.register_forward_hook(count)
    model.eval()(torch.zeros(1, 1, 28, 28))
    assert products < 4_000_000
    assert signs < 25_000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "alexnet"}, "There is no model 'alexnet'. Choose one of: small_cnn"),
        ({"name": "medium_cnn", "size": 16}, "at least 32"),
        ({"channels": 0}, "at least one channel"),
        ({"classes": 1}, "two classes"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        build_model(**({"name": "small_cnn", "channels": 1, "classes": 2, "size": 28, "seed": 0} | arguments))  # type: ignore[arg-type]
