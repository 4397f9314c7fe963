"""Every layer, in both rings: the compiled plan gives what torch gives, within the declared error.

Declared error: 2^-9 of the output's calibrated bound, for a handful of layers.
"""

from __future__ import annotations

import pkgutil

import pytest
import torch
from torch import nn
from torch.nn import functional

from libs.mpc.ring import Ring
from libs.secure_nn import layers
from tests.conformance.secure_nn.oracle import compared, settled


class Model(nn.Module):
    """Layers and a forward function in one place."""

    def __init__(self, forward, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def conv(inputs=2, outputs=4, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, **options)


def wide():
    """Outputs of several units, beyond the limits of the clamps behind it."""
    layer = conv()
    nn.init.normal_(layer.weight, std=1.0)
    return layer


class DenselyConnected(nn.Module):
    """Every layer reads all before it, through a normalisation that no convolution can take up."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(4 + 2 * i), nn.ReLU(), conv(4 + 2 * i, 2, padding=1, bias=False))
            for i in range(3)
        )
        self.end = nn.Sequential(nn.BatchNorm2d(10), conv(10, 3, 1, bias=False), nn.AvgPool2d(2))

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.end(torch.cat(features, 1))


CASES = {
    "conv": conv,
    "conv without bias": lambda: conv(bias=False),
    "conv stride": lambda: conv(stride=(2, 3)),
    "conv padding": lambda: conv(kernel=(5, 3), padding=(2, 1)),
    "conv same": lambda: conv(padding="same"),
    "conv valid": lambda: conv(padding="valid"),
    "conv dilation": lambda: conv(dilation=(2, 1), padding=(1, 2)),
    "conv groups": lambda: nn.Sequential(conv(), conv(4, 8, groups=4)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 11 * 13, 7)),
    "linear without bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 11 * 13, 7, bias=False)),
    "relu": lambda: nn.Sequential(conv(), nn.ReLU()),
    "relu in place": lambda: nn.Sequential(conv(), nn.ReLU(inplace=True), conv(4, 2)),
    "relu of the image": lambda: Model(lambda m, x: functional.relu(x)),
    "relu functions": lambda: Model(
        lambda m, x: torch.relu(m.b(functional.relu(m.a(x).relu()))), a=conv(), b=conv(4, 4)
    ),
    "relu6": lambda: nn.Sequential(wide(), nn.ReLU6(inplace=True), conv(4, 2)),
    "relu6 of small values": lambda: nn.Sequential(conv(), nn.ReLU6()),
    "relu6 on features": lambda: nn.Sequential(nn.Flatten(), nn.Linear(286, 7), nn.ReLU6(), nn.Linear(7, 3)),
    "relu6 in front of a pool": lambda: nn.Sequential(wide(), nn.ReLU6(), nn.MaxPool2d(2)),
    "relu6 of the image": lambda: Model(lambda m, x: functional.relu6(x)),
    "hard tanh": lambda: nn.Sequential(wide(), nn.Hardtanh(-0.5, 2.5), nn.Hardtanh()),
    "clamp functions": lambda: Model(
        lambda m, x: torch.clamp(m.b(m.a(x).clamp(-1, max=1)), min=-0.25), a=conv(), b=conv(4, 4)
    ),
    "clamp from above": lambda: Model(lambda m, x: m.a(x).clamp_max(0.125).clip(max=-0.5), a=wide()),
    "clamp that is reached everywhere": lambda: Model(
        lambda m, x: torch.cat([x.clamp(20.0, 21.0), x.clamp(-21.0, -20.5), x.clamp(-99, 99)], 1)
    ),
    "conv on conv": lambda: nn.Sequential(conv(), conv(4, 3)),
    "batch norm": lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()),
    "batch norm twice": lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(2), conv()),
    "batch norm on features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(2 * 11 * 13, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.BatchNorm1d(7)
    ),
    "max pool": lambda: nn.Sequential(conv(), nn.ReLU(), nn.MaxPool2d(2)),
    "max pool overlapping": lambda: nn.Sequential(conv(), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "max pool of negative values": lambda: nn.Sequential(conv(), nn.MaxPool2d(3, 2, 1)),
    "max pool of the image": lambda: nn.MaxPool2d((5, 1), stride=(1, 2)),
    "max pool dilation": lambda: nn.Sequential(conv(), nn.MaxPool2d((4, 2), stride=1, dilation=(2, 3))),
    "max pool function": lambda: Model(lambda m, x: functional.max_pool2d(x, 3, stride=2, padding=1).relu_()),
    "max pool ceil": lambda: nn.Sequential(conv(), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "max pool ceil and padding": lambda: nn.MaxPool2d((4, 3), (3, 4), (2, 1), ceil_mode=True),
    "avg pool": lambda: nn.Sequential(conv(), nn.ReLU(), nn.AvgPool2d(2), conv(4, 3)),
    "avg pool padding": lambda: nn.Sequential(conv(), nn.AvgPool2d(3, 2, padding=1)),
    "avg pool function": lambda: Model(lambda m, x: functional.avg_pool2d(m.a(x), (2, 3)), a=conv()),
    "global average": lambda: nn.Sequential(
        conv(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ),
    "adaptive with overlapping windows": lambda: nn.Sequential(conv(), nn.AdaptiveAvgPool2d((4, 5))),
    "adaptive enlarging": lambda: nn.Sequential(
        conv(), nn.ReLU(), nn.MaxPool2d(4), nn.AdaptiveAvgPool2d((7, 2)), nn.Flatten(), nn.Linear(56, 3)
    ),
    "adaptive without effect": lambda: nn.Sequential(conv(), nn.AdaptiveAvgPool2d((9, None))),
    "mean": lambda: Model(lambda m, x: m.a(x).mean((2, 3)), a=conv()),
    "mean keeping axes": lambda: Model(lambda m, x: torch.mean(m.a(x), [-1, -2], keepdim=True), a=conv()),
    "view": lambda: Model(lambda m, x: m.b(m.a(x).view(x.size(0), -1)), a=conv(), b=nn.Linear(396, 2)),
    "reshape": lambda: Model(lambda m, x: m.b(m.a(x).reshape(-1, 2, 18, 11)), a=conv(), b=conv()),
    "flatten and unflatten": lambda: Model(
        lambda m, x: functional.adaptive_avg_pool2d(m.a(x), 1).squeeze(3).squeeze(2), a=conv()
    ),
    "residual": lambda: Model(
        lambda m, x: torch.relu(m.b(y := torch.relu(m.a(x))) + y), a=conv(), b=conv(4, 4, padding=1)
    ),
    "residual of convolutions": lambda: Model(
        lambda m, x: torch.add(m.a(x), m.b(x)).relu(), a=conv(), b=conv()
    ),
    "residual by a pooled branch": lambda: Model(
        lambda m, x: m.b((y := m.a(x)) + functional.avg_pool2d(y, 3, 1, 1)), a=conv(), b=conv(4, 2)
    ),
    "sum of activations": lambda: Model(
        lambda m, x: m.c(m.a(x).relu() + m.b(x).relu()), a=conv(), b=conv(), c=conv(4, 2)
    ),
    "twice the same": lambda: Model(lambda m, x: (y := m.a(x)) + y, a=conv()),
    "difference": lambda: Model(lambda m, x: torch.relu(m.a(x) - m.b(x)), a=conv(), b=conv()),
    "concatenation": lambda: Model(
        lambda m, x: m.c(torch.cat([m.a(x).relu(), m.b(x)], dim=1)), a=conv(), b=conv(), c=conv(8, 2)
    ),
    "concatenation of features": lambda: Model(
        lambda m, x: torch.cat((m.a(x).flatten(1), x.flatten(1)), 1), a=conv()
    ),
    "concatenation of rectified branches": lambda: Model(
        lambda m, x: m.c(torch.cat([m.a(x).relu(), m.b(x).relu()], dim=1)), a=conv(), b=conv(), c=conv(8, 2)
    ),
    "concatenation of one": lambda: Model(lambda m, x: m.b(torch.cat([m.a(x)], 1)), a=conv(), b=conv(4, 2)),
    "densely connected": DenselyConnected,
    "one layer used twice": lambda: Model(lambda m, x: m.a(m.a(x).relu()), a=conv(2, 2)),
    "dropout": lambda: nn.Sequential(conv(), nn.Dropout(), nn.Identity(), nn.Dropout2d()),
    "dropout function": lambda: Model(lambda m, x: functional.dropout(m.a(x), training=m.training), a=conv()),
    "nothing at all": nn.Identity,
}


COVERED = {
    "adaptive_avg_pool",
    "add",
    "avg_pool",
    "batch_norm",
    "cat",
    "clamp",
    "conv2d",
    "dropout",
    "flatten",
    "linear",
    "max_pool",
    "relu",
}


@pytest.mark.parametrize("ring", [Ring.RING_32, Ring.RING_64], ids=lambda ring: ring.name)
@pytest.mark.parametrize("case", CASES)
def test_a_compiled_layer_gives_what_torch_gives(case: str, ring: Ring) -> None:
    torch.manual_seed(len(case))
    images = torch.randn(24, 2, 11, 13)
    module = settled(CASES[case](), images)
    comparison = compared(module, images, ring=ring)
    declared = 2.0 ** (comparison.plan.values[-1].bound - 9)
    assert comparison.float_error < 1e-5 * max(1.0, comparison.largest)
    assert comparison.ring_error < declared


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_cost_of_a_plan_is_the_sum_of_its_steps(case: str, batch: int) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 2, 11, 13)
    plan = compared(settled(CASES[case](), images, passes=2), images).plan
    cost = plan.cost(batch)
    kinds = [step.kind for step in plan.steps]
    assert cost.rounds == 1 + kinds.count("open") + 2 * kinds.count("relu")
    opened = sum(plan.values[step.output].elements for step in plan.steps if step.kind == "open")
    assert cost.online_bytes_each_way >= 32 + opened * batch * plan.ring.element_bytes


def test_every_layer_file_is_covered_by_a_case() -> None:
    files = {module.name for module in pkgutil.iter_modules(layers.__path__)}
    shared = {"image", "weighted", "narrow"}
    assert files - shared == COVERED, "a new layer needs a case above and its name in COVERED"
