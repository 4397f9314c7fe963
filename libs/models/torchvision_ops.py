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
