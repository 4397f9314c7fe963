"""A model's weights as one flat vector: the only form in which they are shared, added and moved."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.fl.strategies.strategy import Layout, Slot


def parameter_count(module: nn.Module) -> int:
    """Elements of the module's state vector: trainable parameters and float buffers together."""
    return sum(tensor.numel() for _, tensor in _float_state(module))


def state_vector(module: nn.Module) -> npt.NDArray[np.float32]:
    """Every float parameter and float buffer, sorted by name, each in C order. Shape (parameter_count,).

    BatchNorm's running statistics belong to it (they are averaged like weights); its integer
    batch counter does not, because a mean of counters means nothing. Sorting by name makes the
    layout a property of the architecture and not of the order in which layers were created.
    """
    parts = [
        tensor.detach().to("cpu", torch.float32).reshape(-1).numpy() for _, tensor in _float_state(module)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def load_state_vector(module: nn.Module, vector: npt.NDArray[np.floating]) -> None:
    """Overwrite the module's float state with `vector`, laid out as in `state_vector`.

    Raises InvalidInput, before anything is written, when length or values cannot be this model's.
    """
    expected = parameter_count(module)
    if vector.shape != (expected,):
        raise InvalidInput(
            f"The weights have shape {vector.shape}, but this model needs ({expected},). "
            "Check that the study's training plan names the model the weights were made for."
        )
    if not np.isfinite(vector).all():
        raise InvalidInput(
            "The weights hold values that are not finite numbers. Start again from a sound version."
        )
    start = 0
    with torch.no_grad():
        for _, tensor in _float_state(module):
            piece = np.ascontiguousarray(vector[start : start + tensor.numel()], dtype=np.float32)
            tensor.copy_(torch.from_numpy(piece.copy()).reshape(tensor.shape))
            start += tensor.numel()


def layout_of(module: nn.Module) -> Layout:
    """Which coordinates of the module's state vector are trained, and which are BatchNorm's."""
    trained = {name for name, _ in module.named_parameters()}
    normalising = {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
        for name in part.state_dict()
    }
    named = [(name, tensor.numel()) for name, tensor in _float_state(module)]
    sizes = [size for _, size in named]
    return Layout(
        trained=np.repeat([name in trained for name, _ in named], sizes),
        batch_norm=np.repeat([name in normalising for name, _ in named], sizes),
    )


def slots_of(module: nn.Module) -> tuple[Slot, ...]:
    """The module's trainable parameters, and where each lies in its state vector."""
    parameters = dict(module.named_parameters())
    found, start = [], 0
    for name, tensor in _float_state(module):
        if name in parameters:
            found.append(Slot(parameters[name], start))
        start += tensor.numel()
    return tuple(found)


def _float_state(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Name and tensor (sharing memory with the module) of all float state, sorted by name."""
    state = module.state_dict()
    return [(name, state[name]) for name in sorted(state) if state[name].is_floating_point()]
