"""How large the numbers in a model get, as powers of two: all that leaves a hospital about its images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.secure_nn.graph import Node
from libs.secure_nn.scales import MAX_BOUND, MIN_BOUND
from libs.secure_nn.trace import build_graph

SAFETY_FACTOR = 1.5
"""Room for images that calibration did not see. Rounding up to a power of two adds 1.4 on average."""
WEIGHT_MARGIN = 1.01
"""Weights and clamps are known exactly; this only keeps rounding from crossing a power of two."""
BATCH = 32


def calibrate(module: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """For every value, weight and bias of the compiled graph the smallest b with |value| * safety < 2^b.

    `images` (N, C, H, W), prepared as for training; a few hundred give stable bounds. Keys are the
    names that `compile_module` expects. Raises InvalidInput for no images, NaN or infinity, and
    what `build_graph` raises.
    """
    if images.ndim != 4 or not len(images):
        raise InvalidInput("Calibration needs at least one image, as an array (N, C, H, W).")
    channels, height, width = images.shape[1:]
    graph = build_graph(module, input_shape=(channels, height, width))
    largest: dict[str, float] = {}

    def note(node: Node, value: torch.Tensor) -> None:
        peak = float(value.abs().max())
        if not math.isfinite(peak):
            raise InvalidInput(
                f"Layer {node.name!r} gives NaN or infinity on the calibration images. "
                "Check the images and whether training diverged."
            )
        roomy = min(peak * SAFETY_FACTOR, node.operation.limit * WEIGHT_MARGIN)
        largest[node.name] = max(largest.get(node.name, 0.0), roomy)

    for start in range(0, len(images), BATCH):
        graph.run(images[start : start + BATCH].to(torch.float32), note)
    for node in graph.nodes:
        for role, tensor in node.operation.tensors().items():
            largest[node.parameter(role)] = float(tensor.abs().max()) * WEIGHT_MARGIN
    return {name: _exponent(peak) for name, peak in largest.items()}


def merge_bounds(bounds: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The largest of each bound over the hospitals. Raises InvalidInput if they name different values."""
    merged: dict[str, int] = {}
    for index, single in enumerate(bounds):
        if index and set(single) != set(merged):
            raise InvalidInput("The hospitals calibrated different models. Calibrate the same version again.")
        merged = {name: max(bound, merged.get(name, bound)) for name, bound in single.items()}
    if not merged:
        raise InvalidInput("There are no calibrations to merge. At least one hospital has to calibrate.")
    return merged


def _exponent(peak: float) -> int:
    """The smallest b with peak < 2^b, within limits."""
    if not peak < 2.0**MAX_BOUND:  # also refuses NaN
        raise InvalidInput(
            f"The model's values or weights exceed 2^{MAX_BOUND} or are not finite. "
            "Check whether training diverged."
        )
    return max(math.frexp(peak)[1], MIN_BOUND) if peak else MIN_BOUND
