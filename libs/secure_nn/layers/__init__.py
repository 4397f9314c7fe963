"""One file per layer: how torch's module is read, what it computes, which steps it becomes.

A new file with a `@reads` decorator is enough; `load_all` finds it.
"""

from __future__ import annotations

import importlib
import pkgutil


def load_all() -> None:
    """Import every layer, so that its reader is registered. Cheap after the first time."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
