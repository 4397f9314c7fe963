"""A trained module's weights in the plan's layout: folded, scaled, one flat vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.mpc.fixed_point import FixedPoint
from libs.mpc.ring import RingArray
from libs.secure_nn.plan import Plan
from libs.secure_nn.trace import build_graph

FloatArray = npt.NDArray[Any]


def encode_parameters(module: nn.Module, plan: Plan) -> RingArray:
    """All weights and biases as ring elements, each at its scale. Shape (plan.parameter_length,).

    Raises InvalidInput when the module is not of the plan's architecture, or holds values that the
    calibrated bounds did not promise.
    """
    tensors = _tensors(module, plan)
    encoded = plan.ring.zeros((plan.parameter_length,))
    for parameter in plan.parameters:
        # One at a time: the largest networks have a gigabyte of them.
        values = tensors.pop(parameter.name).numpy().reshape(-1)
        place = slice(parameter.offset, parameter.offset + parameter.elements)
        try:
            encoded[place] = FixedPoint(ring=plan.ring, scale=parameter.scale).encode(values)
        except InvalidInput as error:
            raise InvalidInput(
                f"Parameter {parameter.name!r} does not fit its encoding. Calibrate the trained model again."
            ) from error
    return encoded


def float_parameters(module: nn.Module, plan: Plan) -> FloatArray:
    """The same vector in real numbers (float64), BatchNorm folded. Shape (plan.parameter_length,)."""
    tensors = _tensors(module, plan)
    parts = [tensors[parameter.name].numpy().reshape(-1) for parameter in plan.parameters]
    return np.concatenate(parts) if parts else np.zeros(0, np.float64)


def _tensors(module: nn.Module, plan: Plan) -> dict[str, torch.Tensor]:
    """Folded weights and biases by name, float64."""
    graph = build_graph(module, input_shape=plan.input_shape)
    tensors = {
        node.parameter(role): tensor
        for node in graph.nodes
        for role, tensor in node.operation.tensors().items()
    }
    expected = {parameter.name: parameter.shape for parameter in plan.parameters}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise InvalidInput("The plan is of another architecture than this model. Compile this model again.")
    return tensors
