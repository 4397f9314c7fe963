"""Compiles the kernels when a service starts, so that no request waits for a compiler."""

from __future__ import annotations

from libs.mpc.kernels import fused, scaling, wide


def warm_up() -> None:
    """Every kernel for every type it meets. Seconds the first time, milliseconds from numba's cache."""
    for module in (fused, scaling, wide):
        module.warm_up()
