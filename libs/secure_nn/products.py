"""The ring product of a layer with weights, as the bilinear map of `masked/linear.py`."""

from __future__ import annotations

from functools import partial

from libs.core.errors import Bug
from libs.mpc.kernels import linear as kernels
from libs.mpc.kernels.byte_product import PreparedWeights
from libs.mpc.kernels.device import Device
from libs.mpc.kernels.shapes import ConvolutionShape
from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked.linear import Bilinear
from libs.secure_nn import steps as s


def product_of(step: s.WeightedStep, device: Device, prepared: PreparedWeights) -> Bilinear:
    """(x, w) -> x * w of this layer, without bias, computed on `device`; w is one of the model's arrays."""
    if isinstance(step, s.Conv2d):
        return _convolution(step, device, prepared)
    if isinstance(step, s.Linear):
        return partial(kernels.linear, device=device, prepared=prepared)
    raise Bug(f"No product is known for the step {step.kind}.")


def _convolution(step: s.Conv2d, device: Device, prepared: PreparedWeights) -> Bilinear:
    shape = ConvolutionShape(step.stride, step.padding, step.dilation, step.groups)

    def product(x: RingArray, w: RingArray) -> RingArray:
        if w.shape == (step.groups, 1, 1, 1) and step.stride == (1, 1):
            scaled: RingArray = x * w.reshape(-1, 1, 1)  # one factor a channel: a BatchNorm of its own
            return scaled
        return kernels.conv2d(x, w, shape, device=device, prepared=prepared)

    return product


def broadcast_bias(step: s.WeightedStep, bias: RingArray) -> RingArray:
    """A bias (O,) in the shape that adds to the layer's output."""
    return bias.reshape(-1, 1, 1) if isinstance(step, s.Conv2d) else bias
