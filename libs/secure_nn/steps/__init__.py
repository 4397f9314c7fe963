"""The instructions of a plan. Frozen data with a shape rule and a price; executors live elsewhere."""

from __future__ import annotations

from libs.secure_nn.steps.base import Pair, Slice, Step
from libs.secure_nn.steps.interactive import Open, Relu, Rescale, ScalingStep
from libs.secure_nn.steps.linear import Conv2d, Input, Linear, WeightedStep
from libs.secure_nn.steps.local import (
    AdaptiveSumPool2d,
    Add,
    AddConstant,
    Concatenate,
    Flatten,
    Lift,
    Pad2d,
    Reshape,
    StridedSlice2d,
    Subtract,
    SumPool2d,
    ToShared,
)

STEP_KINDS: dict[str, type[Step]] = {
    step.kind: step
    for step in (
        Input,
        Conv2d,
        Linear,
        Open,
        Rescale,
        Relu,
        Add,
        AddConstant,
        Subtract,
        Flatten,
        Reshape,
        Concatenate,
        SumPool2d,
        AdaptiveSumPool2d,
        Pad2d,
        StridedSlice2d,
        Lift,
        ToShared,
    )
}
"""Every step a plan may hold, by its name in JSON."""

__all__ = [
    "STEP_KINDS",
    "AdaptiveSumPool2d",
    "Add",
    "AddConstant",
    "Concatenate",
    "Conv2d",
    "Flatten",
    "Input",
    "Lift",
    "Linear",
    "Open",
    "Pad2d",
    "Pair",
    "Relu",
    "Rescale",
    "Reshape",
    "ScalingStep",
    "Slice",
    "Step",
    "StridedSlice2d",
    "Subtract",
    "SumPool2d",
    "ToShared",
    "WeightedStep",
]
