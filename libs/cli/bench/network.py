"""A network of the registry as something to be measured."""

from __future__ import annotations

import torch
from torch import nn

from libs.cli.bench.workload import Workload
from libs.data.phantom import make_phantoms
from libs.data.transforms import to_model_input
from libs.models.registry import ARCHITECTURES, build_model
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters

CALIBRATION_IMAGES = 16
_SMALL, _LARGE = 28, 64


def usual_size(model: str) -> int:
    """Pixels a side when nobody says: as in the demo, if the network takes so few."""
    architecture = ARCHITECTURES.get(model)
    return _SMALL if architecture is None or architecture.min_size <= _SMALL else _LARGE


def network_workload(model: str, *, size: int, channels: int, batch: int) -> Workload:
    """Freshly drawn weights, BatchNorm settled on made-up radiographs, so that layers have the ranges that
    they have in a trained network. Raises InvalidInput as `build_model` does.
    """
    module = build_model(model, channels=channels, classes=2, size=size, seed=0)
    radiographs = to_model_input(make_phantoms(max(CALIBRATION_IMAGES, batch), size=size, seed=0).images)
    images = radiographs.repeat(1, channels, 1, 1)
    settle(module, images[:CALIBRATION_IMAGES])
    plan = compile_module(module, input_shape=(channels, size, size), bounds=calibrate(module, images))
    inputs = images[:batch]

    @torch.inference_mode()
    def plaintext() -> torch.Tensor:
        logits: torch.Tensor = module(inputs)
        return logits

    return Workload(
        name=model,
        plan=plan,
        parameters=encode_parameters(module, plan),
        inputs=inputs.numpy(),
        expected=plaintext().double().numpy(),
        plaintext=plaintext,
    )


@torch.no_grad()
def settle(module: nn.Module, images: torch.Tensor) -> None:
    """BatchNorm statistics of these images, instead of none; the module in evaluation mode afterwards."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over what it is shown
    module.train()
    module(images)
    module.eval()
