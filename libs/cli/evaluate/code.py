"""Which code made a result: part of every step's inputs, so that no row is older than what it shows."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch

_ROOT = Path(__file__).parents[3]
_HERE = "libs/cli/evaluate"
_TRAINING = (
    *("libs/core", "libs/data", "libs/dp", "libs/fl", "libs/models", "libs/mpc"),
    *(f"{_HERE}/{name}.py" for name in ("material", "training", "federated", "plans")),
)
_SERVICES = (
    *("libs/secure_nn", "libs/rpc", "libs/runtime", "libs/cli/client", "services"),
    *(f"{_HERE}/{name}.py" for name in ("cluster", "asking")),
)
_LOOKS_ON = frozenset({"auc_inference.py", "reliability.py", "resampling.py"})
"""Reads results and makes none."""


@functools.cache
def training_code() -> str:
    """Hash of torch's version and of all sources that training and its data go through."""
    return _digest(_TRAINING)


@functools.cache
def services_code() -> str:
    """The same with the services, and all that is between them and a client."""
    return _digest((*_TRAINING, *_SERVICES))


def _digest(places: Iterable[str]) -> str:
    digest = hashlib.sha256(torch.__version__.encode())
    for place in (_ROOT / name for name in places):
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            if path.name in _LOOKS_ON:
                continue
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
