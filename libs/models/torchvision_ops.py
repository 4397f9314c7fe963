"""torchvision's Python code on a machine where its compiled operators cannot be loaded.

`import torchvision` describes shapes for two detection operators that its compiled part declares. Where
that part cannot be loaded (a CPU build of torch beside a torchvision built for CUDA), the import fails,
although no classifier needs either operator. Declaring the missing schemas, and nothing else, is enough:
calling one of them still fails, because it has no implementation.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_declared: list[torch.library.Library] = []
"""Keeps the declarations alive: torch withdraws them with their Library object."""


def declare_missing_ops() -> tuple[str, ...]:
    """Declare the operators that `import torchvision` needs and nobody has declared; gives their names.

    Must run before torchvision is imported. Does nothing where the compiled part loads, so it can never
    hide a real operator, and nothing the second time.
    """
    _load_compiled_part()
    missing = tuple(name for name in _SCHEMAS if not _exists(name))
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in missing:
            library.define(_SCHEMAS[name])  # type: ignore[no-untyped-call]
        _declared.append(library)
    return missing


def classifier(name: str, *, classes: int) -> nn.Module:
    """torchvision's architecture of that name for three channels, without pretrained weights."""
    declare_missing_ops()
    from torchvision.models import get_model  # noqa: PLC0415 - the operators must be declared first

    model: nn.Module = get_model(name, weights=None, num_classes=classes)
    return model


def with_channels(model: nn.Module, channels: int) -> nn.Module:
    """The model with its first convolution replaced by one that takes `channels` channels, freshly drawn."""
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    changed = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(changed.weight, mode="fan_out", nonlinearity="relu")
    if changed.bias is not None:
        nn.init.zeros_(changed.bias)
    owner, _, child = name.rpartition(".")
    setattr(model.get_submodule(owner), child, changed)
    return model


def _exists(name: str) -> bool:
    return hasattr(torch.ops.torchvision, name)


def _load_compiled_part() -> None:
    """Let the compiled operators declare themselves first, if they can."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    for folder in spec.submodule_search_locations:
        for file in sorted(Path(folder).glob("_C*.so")):
            try:
                torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
            except OSError:
                return  # exactly the case this module exists for
