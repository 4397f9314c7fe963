"""Compiles the kernels when a service starts, so that no request waits for a compiler."""

from __future__ import annotations

from libs.mpc.kernels import byte_product, columns, fused, scaling, sketch, wide


def warm_up() -> None:
    """Every kernel for every type it meets. Seconds the first time, milliseconds from numba's cache."""
    for module in (columns, fused, scaling, sketch, wide):
        module.warm_up()
    byte_product.is_exact()
