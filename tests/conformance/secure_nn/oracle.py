"""Compile a module and run it in the ring, for tests of the compiler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from libs.mpc.fixed_point import FixedPoint
from libs.mpc.ring import Ring
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.cleartext import run_plan_float, run_plan_ring
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters, float_parameters
from libs.secure_nn.plan import Plan


@dataclass(frozen=True)
class Comparison:
    """A plan and its largest absolute errors against the float module."""

    plan: Plan
    float_error: float
    ring_error: float
    largest: float


def settled(module: nn.Module, images: torch.Tensor, *, passes: int = 12) -> nn.Module:
    """The module in evaluation mode with BatchNorm statistics that fit the images."""
    module.train()
    with torch.no_grad():
        for _ in range(passes):
            module(images)
    return module.eval()


def compared(module: nn.Module, images: torch.Tensor, *, ring: Ring | None = None) -> Comparison:
    """Calibrate and compare on the same images, so that no bound is exceeded."""
    channels, height, width = images.shape[1:]
    plan = compile_module(
        module, input_shape=(channels, height, width), bounds=calibrate(module, images), ring=ring
    )
    with torch.no_grad():
        expected = module.eval()(images).numpy()
    in_reals = run_plan_float(plan, float_parameters(module, plan), images.numpy())
    encoded = FixedPoint(ring=plan.ring, scale=plan.input_scale).encode(images.numpy())
    shares = run_plan_ring(plan, encode_parameters(module, plan), encoded)
    in_ring = FixedPoint(ring=plan.ring, scale=plan.output_scale).decode(shares)
    assert in_ring.shape == expected.shape
    return Comparison(
        plan=plan,
        float_error=float(np.abs(in_reals - expected).max()),
        ring_error=float(np.abs(in_ring - expected).max()),
        largest=float(np.abs(expected).max()),
    )
