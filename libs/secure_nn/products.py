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
        shape = ConvolutionShape(step.stride, step.padding, step.dilation, step.groups)
        return lambda x, w: kernels.conv2d(x, w, shape, device=device, prepared=prepared)
    if isinstance(step, s.Linear):
        return partial(kernels.linear, device=device, prepared=prepared)
    raise Bug(f"No product is known for the step {step.kind}.")


def broadcast_bias(step: s.WeightedStep, bias: RingArray) -> RingArray:
    """A bias (O,) in the shape that adds to the layer's output."""
    return bias.reshape(-1, 1, 1) if isinstance(step, s.Conv2d) else bias
