"""What the compiler decides: rings, rounds, names, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from libs.core.errors import CallerError, InvalidInput
from libs.models.registry import build_model
from libs.mpc.ring import Ring
from libs.secure_nn.calibrate import calibrate, merge_bounds
from libs.secure_nn.compile import compile_module
from libs.secure_nn.cost import PlanCost
from libs.secure_nn.encode import encode_parameters
from libs.secure_nn.errors import RangeTooWide, UnsupportedModel
from libs.secure_nn.plan import Plan
from libs.secure_nn.trace import build_graph


def compiled(module: nn.Module, images: torch.Tensor, ring: Ring | None = None) -> Plan:
    channels, height, width = images.shape[1:]
    bounds = calibrate(module, images)
    return compile_module(module, input_shape=(channels, height, width), bounds=bounds, ring=ring)


def test_the_plan_depends_on_the_architecture_and_the_bounds_not_on_the_weights() -> None:
    trained = build_model("small_cnn", channels=1, classes=2, size=28, seed=1)
    untrained = build_model("small_cnn", channels=1, classes=2, size=28, seed=2)
    bounds = calibrate(trained, torch.rand(8, 1, 28, 28))
    plans = [compile_module(m, input_shape=(1, 28, 28), bounds=bounds) for m in (trained, untrained)]
    assert plans[0].to_json() == plans[1].to_json()


def test_compiling_leaves_the_module_as_it_was() -> None:
    module = build_model("small_cnn", channels=1, classes=2, size=28, seed=1).train()
    before = copy.deepcopy(module.state_dict())
    compiled(module, torch.rand(4, 1, 28, 28))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_resnet18_at_224_takes_at_most_85_rounds() -> None:
    module = build_model("resnet18", channels=1, classes=2, size=224, seed=1)
    names = build_graph(module, input_shape=(1, 64, 64)).bound_names
    plan = compile_module(module, input_shape=(1, 224, 224), bounds=dict.fromkeys(names, 3))
    assert plan.ring is Ring.RING_32
    assert plan.cost(1).rounds <= 85


def test_a_convolution_with_relu_takes_four_rounds_and_about_nine_bytes_a_value() -> None:
    module = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())])
    images = torch.randn(8, 8, 16, 16)
    shorter, longer = compiled(module[:4], images).cost(4), compiled(module, images).cost(4)
    assert longer.rounds - shorter.rounds == 4
    added = longer.online_bytes_each_way - shorter.online_bytes_each_way
    assert 8.8 < added / (4 * 8 * 16 * 16) < 9


def test_the_two_comparisons_of_relu6_share_their_rounds() -> None:
    def cost(activation: nn.Module, bound: int) -> PlanCost:
        module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), activation, nn.Conv2d(4, 4, 3))
        bounds = dict.fromkeys(build_graph(module, input_shape=(1, 16, 16)).bound_names, bound)
        return compile_module(module, input_shape=(1, 16, 16), bounds=bounds).cost(1)

    relu, relu6 = cost(nn.ReLU(), 3), cost(nn.ReLU6(), 3)
    assert relu6.rounds == relu.rounds
    assert relu6.online_bytes_each_way - relu.online_bytes_each_way == 7 * 4 * 16 * 16 / 8
    # Values that stay below 4 never reach the upper limit, and those below 1 neither of Hardtanh's.
    assert cost(nn.ReLU6(), 2) == cost(nn.ReLU(), 2)
    assert cost(nn.Hardtanh(), 0).rounds == relu.rounds - 2


def test_rectified_branches_that_are_joined_share_their_rounds() -> None:
    class Fire(nn.Module):
        def __init__(self, branches: int) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Conv2d(1, 2, 1) for _ in range(branches))
            self.end = nn.Conv2d(2 * branches, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.end(torch.cat([torch.relu(branch(x)) for branch in self.branches], 1))

    one, three = (compiled(Fire(count), torch.rand(4, 1, 8, 8)).cost(1) for count in (1, 3))
    assert one.rounds == three.rounds == 5


def test_what_several_concatenations_share_is_brought_down_and_opened_once() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 3, 1)
            self.norms = nn.ModuleList(nn.BatchNorm2d(7) for _ in range(3))
            self.end = nn.Conv2d(21, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            z = self.second(y)
            return self.end(torch.cat([torch.relu(norm(torch.cat([y, z], 1))) for norm in self.norms], 1))

    plan = compiled(Dense().eval(), torch.rand(4, 1, 8, 8))
    rescaled = [step for step in plan.steps if step.kind == "rescale"]
    assert [plan.values[step.output].shape for step in rescaled] == [(3, 8, 8)]
    assert plan.cost(1).rounds == 1 + 4 + 2 + 4  # the input, y, z twice, three norms and ReLUs together
    opened = sum(plan.values[step.output].shape[0] for step in plan.steps if step.kind == "open")
    assert opened == 4 + 4 + 3 + 3 + 21 + 21


def test_relu_moves_behind_max_pooling_and_costs_a_quarter_of_the_signs() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    plan = compiled(module, torch.rand(8, 1, 16, 16))
    relus = [step for step in plan.steps if step.kind == "relu"]
    assert [plan.values[step.output].shape for step in relus] == [(4, 8, 16), (4, 8, 8), (4, 8, 8)]
    assert plan.steps[-1].name == "_1"


def test_relu_stays_where_its_output_is_also_used_elsewhere() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.conv(x))
            return torch.cat([nn.functional.max_pool2d(y, 2), nn.functional.avg_pool2d(y, 2)], dim=1)

    plan = compiled(Both(), torch.rand(8, 1, 16, 16))
    first = next(step for step in plan.steps if step.kind == "relu")
    assert plan.values[first.output].shape == (4, 16, 16)


def test_batch_norm_leaves_no_step_behind_a_convolution() -> None:
    plan = compiled(
        nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)).eval(), torch.rand(4, 1, 8, 8)
    )
    assert [step.kind for step in plan.steps] == ["input", "conv2d"]
    assert [parameter.name for parameter in plan.parameters] == ["_0.weight", "_0.bias"]


def test_the_32_bit_ring_is_preferred_and_the_64_bit_one_taken_when_weights_would_vanish() -> None:
    module, images = nn.Conv2d(1, 2, 3), torch.rand(8, 1, 8, 8)
    assert compiled(module, images).ring is Ring.RING_32
    with torch.no_grad():
        module.bias.fill_(20_000.0)
    assert compiled(module, images).ring is Ring.RING_64
    with pytest.raises(RangeTooWide, match="weights would vanish"):
        compiled(module, images, ring=Ring.RING_32)


def test_very_wide_sums_go_to_the_64_bit_ring() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(600 * 600, 2))
    images = torch.rand(2, 1, 600, 600)
    assert compiled(module, images).ring is Ring.RING_64
    with pytest.raises(RangeTooWide, match="360000 products"):
        compiled(module, images, ring=Ring.RING_32)


@pytest.mark.parametrize("ring", list(Ring))
def test_a_dead_layer_compiles(ring: Ring) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU())
    with torch.no_grad():
        for parameter in module[2].parameters():
            parameter.zero_()
    assert compiled(module, torch.rand(2, 1, 8, 8), ring=ring).ring is ring


def test_a_layer_that_fits_no_ring_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    with torch.no_grad():
        module[1].bias.fill_(2.0**45)
    with pytest.raises(RangeTooWide, match="'_1'"):
        compiled(module, torch.rand(8, 1, 8, 8))


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)
        self.gate, self.end = nn.Sigmoid(), nn.Softmax(dim=1)
        self.mirror = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.mirror(nn.functional.gelu(self.norm(self.conv(x))))
        result: torch.Tensor = self.end((y * self.gate(y)).flatten(1))
        return result


def test_all_unsupported_layers_are_listed_at_once_with_the_way_round() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        build_graph(Unsupported(), input_shape=(1, 8, 8))
    problems = {problem.layer: problem for problem in caught.value.problems}
    assert set(problems) == {"norm", "gelu", "mirror", "gate", "mul", "end"}
    assert "BatchNorm2d" in problems["norm"].way_round
    assert "ReLU" in problems["gelu"].way_round
    assert "zeros" in problems["mirror"].way_round
    assert "receives the logits" in problems["end"].way_round
    assert "Inside use ReLU" in problems["gate"].way_round
    for layer in problems:
        assert f"- {layer}: " in str(caught.value)
    assert isinstance(caught.value, CallerError)


WAYS: dict[str, tuple[nn.Module, str]] = {
    "layer norm": (nn.LayerNorm(8), "BatchNorm2d"),
    "group norm": (nn.GroupNorm(1, 1), "BatchNorm2d"),
    "instance norm": (nn.InstanceNorm2d(1), "BatchNorm2d"),
    "silu": (nn.SiLU(), "ReLU6"),
    "gelu": (nn.GELU(), "ReLU6"),
    "hard swish": (nn.Hardswish(), "ReLU6"),
    "softmax": (nn.Softmax(1), "gates and attention"),
    "upsample": (nn.Upsample(scale_factor=2), "decoders"),
    "adaptive max pool": (nn.AdaptiveMaxPool2d(1), "AdaptiveAvgPool2d"),
    "anything else": (nn.Softshrink(), "add a file to libs/secure_nn/layers"),
}


@pytest.mark.parametrize("case", WAYS)
def test_what_has_no_secure_counterpart_says_what_to_use_instead(case: str) -> None:
    layer, way_round = WAYS[case]
    with pytest.raises(UnsupportedModel) as caught:
        build_graph(nn.Sequential(nn.Conv2d(1, 1, 1), layer), input_shape=(1, 8, 8))
    (problem,) = caught.value.problems
    assert problem.layer == "1"
    assert way_round in problem.way_round


class Function(nn.Module):
    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x):
        return self.function(self, x)


BATCHLESS = nn.BatchNorm2d(1, track_running_stats=False)
REFUSED = {
    "branches on the image": Function(lambda m, x: x if x.sum() > 0 else -x),
    "two results": Function(lambda m, x: (torch.relu(x), x)),
    "a free parameter": Function(lambda m, x: x + m.conv.weight, conv=nn.Conv2d(1, 1, 1)),
    "a constant added": Function(lambda m, x: x + 1),
    "broadcasting": Function(lambda m, x: x + x.mean((2, 3), keepdim=True)),
    "alpha": Function(lambda m, x: torch.add(x, x, alpha=2)),
    "mixing the batch": Function(lambda m, x: x.reshape(1, -1)),
    "joining the batch": Function(lambda m, x: torch.cat([x, x], 0)[:2]),
    "a mean over channels": Function(lambda m, x: x.mean(1)),
    "dropout that is always on": Function(lambda m, x: nn.functional.dropout(x, training=True)),
    "an overwritten skip": Function(
        lambda m, x: m.relu(y := m.conv(x)) + y, relu=nn.ReLU(True), conv=nn.Conv2d(1, 1, 3)
    ),
    "batch statistics": nn.Sequential(BATCHLESS),
    "linear on an image": nn.Sequential(nn.Linear(8, 2)),
    "an even kernel with same": nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")),
    "a padding beyond the kernel": nn.Sequential(nn.Conv2d(1, 1, 1, padding=1)),
    "pool indices": nn.Sequential(nn.MaxPool2d(2, return_indices=True)),
    "max pool ceil": nn.Sequential(nn.MaxPool2d(10, 12, 5, ceil_mode=True)),
    "avg pool ceil": nn.Sequential(nn.AvgPool2d(3, 2, ceil_mode=True)),
    "avg pool without border": nn.Sequential(nn.AvgPool2d(3, padding=1, count_include_pad=False)),
    "avg pool divisor": nn.Sequential(nn.AvgPool2d(2, divisor_override=3)),
    "too many adaptive windows": nn.Sequential(nn.AdaptiveAvgPool2d((1, 8193))),
    "a clamp between tensors": Function(lambda m, x: torch.clamp(x, x.relu(), x)),
    "a clamp of nothing": Function(lambda m, x: torch.clamp(x, 1.0, 1.0)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_compute_something_else_is_refused(case: str) -> None:
    with pytest.raises(UnsupportedModel):
        build_graph(REFUSED[case], input_shape=(1, 8, 8))


def test_an_image_of_another_shape_is_refused_in_words() -> None:
    module = build_model("small_cnn", channels=1, classes=2, size=28, seed=1)
    with pytest.raises(InvalidInput, match="images of shape"):
        build_graph(module, input_shape=(3, 28, 28))
    with pytest.raises(InvalidInput, match=r"\(channels, height, width\)"):
        build_graph(module, input_shape=(28, 28))  # type: ignore[arg-type]


def test_bounds_of_another_model_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    bounds = calibrate(module, torch.rand(4, 1, 8, 8))
    for wrong in ({**bounds, "more": 1}, {k: v for k, v in bounds.items() if k != "_1"}):
        with pytest.raises(InvalidInput, match="of another model"):
            compile_module(module, input_shape=(1, 8, 8), bounds=wrong)
    for value in (99, -99, True, 1.5):
        with pytest.raises(InvalidInput, match="whole number"):
            compile_module(module, input_shape=(1, 8, 8), bounds={**bounds, "_1": value})  # type: ignore[dict-item]


def test_bounds_cover_the_values_with_room_and_leave_only_powers_of_two() -> None:
    module = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    bounds = calibrate(module, torch.full((1, 1, 4, 4), 3.0))
    assert bounds == {"input_1": 3, "_0": 3, "_0.weight": 1}


def test_merging_takes_the_largest_bound_and_refuses_other_models() -> None:
    assert merge_bounds([{"a": 1, "b": 5}, {"a": 3, "b": -2}]) == {"a": 3, "b": 5}
    with pytest.raises(InvalidInput):
        merge_bounds([{"a": 1}, {"b": 1}])
    with pytest.raises(InvalidInput):
        merge_bounds([])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_and_weights_that_are_not_numbers_are_refused(value: float) -> None:
    module = nn.Conv2d(1, 2, 3)
    with pytest.raises(InvalidInput):
        calibrate(module, torch.full((1, 1, 8, 8), value))
    with torch.no_grad():
        module.weight.fill_(value)
    with pytest.raises(InvalidInput):
        calibrate(module, torch.zeros(1, 1, 8, 8))


def test_calibrating_on_nothing_is_refused() -> None:
    for images in (torch.zeros(0, 1, 8, 8), torch.zeros(8, 8)):
        with pytest.raises(InvalidInput, match="at least one image"):
            calibrate(nn.Conv2d(1, 2, 3), images)


def test_weights_of_another_architecture_or_range_are_not_encoded() -> None:
    module, images = nn.Conv2d(1, 2, 3), torch.rand(4, 1, 8, 8)
    plan = compiled(module, images)
    assert encode_parameters(module, plan).shape == (plan.parameter_length,)
    with pytest.raises(InvalidInput, match="another architecture"):
        encode_parameters(nn.Conv2d(1, 3, 3), plan)
    with torch.no_grad():
        module.weight.fill_(1e6)
    with pytest.raises(InvalidInput, match=r"'_0\.weight'"):
        encode_parameters(module, plan)


def test_a_residual_of_tiny_values_keeps_its_scale_within_the_ring() -> None:
    """Found by a property test: values far below 1 let the common scale of a sum grow past 2^30."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.conv = nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 3, padding=1)
            self.head = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.pool(x)
            return self.head(torch.flatten(x + self.conv(x), 1))

    torch.manual_seed(0)
    module, images = Residual().eval(), (torch.rand(8, 2, 12, 12) - 0.5) / 8
    plan = compile_module(module, input_shape=(2, 12, 12), bounds=calibrate(module, images))
    assert max(value.scale for value in plan.values) < 2**30
