"""Architectures and plans, by torch in a thread.

torch is imported on first use: it costs seconds and memory that a coordinator without studies never needs,
and the import belongs into the thread, away from the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from libs.fl.training_plan import TrainingPlan
from services.coordinator.domain import CompiledPlan
from services.coordinator.ports import ModelShape

if TYPE_CHECKING:
    from torch import nn


class TorchCompiler:
    """The Compiler port. The modules it builds hold freshly drawn weights, never trained ones."""

    async def count_parameters(self, plan: TrainingPlan) -> int:
        """Elements of a version of the plan's model. InvalidInput for an unknown model or size."""
        return await asyncio.to_thread(_count_parameters, plan)

    async def compile(self, plan: TrainingPlan, bounds: Sequence[Mapping[str, int]]) -> CompiledPlan:
        """The plan for the largest of the bounds. UnsupportedModel or InvalidInput names what is wrong."""
        return await asyncio.to_thread(_compile, plan, bounds)

    async def describe(self, plan_json: bytes) -> ModelShape:
        """Check a plan that somebody else compiled. InvalidInput if it is none."""
        return await asyncio.to_thread(_describe, plan_json)


def _build(plan: TrainingPlan) -> nn.Module:
    from libs.models.registry import build_model  # noqa: PLC0415 - see the module's docstring

    return build_model(
        plan.model, channels=plan.channels, classes=plan.classes, size=plan.image_size, seed=plan.seed
    )


def _count_parameters(plan: TrainingPlan) -> int:
    from libs.fl.versions import version_length  # noqa: PLC0415

    return version_length(plan)


def _compile(plan: TrainingPlan, bounds: Sequence[Mapping[str, int]]) -> CompiledPlan:
    from libs.secure_nn.calibrate import merge_bounds  # noqa: PLC0415
    from libs.secure_nn.compile import compile_module  # noqa: PLC0415

    merged = merge_bounds([dict(reported) for reported in bounds])
    shape = (plan.channels, plan.image_size, plan.image_size)
    compiled = compile_module(_build(plan), input_shape=shape, bounds=merged)
    return CompiledPlan(
        json=compiled.to_json(),
        hash=compiled.hash,
        ring=compiled.ring,
        parameter_length=compiled.parameter_length,
        bounds=merged,
    )


def _describe(plan_json: bytes) -> ModelShape:
    from libs.secure_nn.plan import Plan  # noqa: PLC0415

    plan = Plan.from_json(plan_json)
    return ModelShape(
        hash=plan.hash, json=plan.to_json(), ring=plan.ring, parameter_length=plan.parameter_length
    )
