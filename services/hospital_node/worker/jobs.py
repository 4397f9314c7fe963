"""What the worker does with torch: one function per kind of request, listed in `JOBS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from libs.core.errors import FailedPrecondition
from libs.data.dataset import ImageSet
from libs.data.transforms import to_model_input
from libs.fl.calibration import calibration_images
from libs.fl.local_training import train_locally, training_seed
from libs.fl.metrics import encode_metrics
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import decode_vector, encode_update, weigh_encoded
from libs.fl.vectorise import load_state_vector
from libs.models.registry import build_model
from libs.mpc.ring import RingArray
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from services.hospital_node.worker.datasets import Datasets
from services.hospital_node.worker.frames import Frame

Progress = Callable[[float], None]
Job = Callable[[Frame, Datasets, Progress], Frame]


def train(request: Frame, datasets: Datasets, progress: Progress) -> Frame:
    """[round(weight * (new weights - base) * 2^scale_bits) | metrics] in Z_2^32."""
    plan, imageset = _study(request, datasets)
    module = _model(plan, request.arrays["base"])
    result = train_locally(
        module,
        imageset,
        plan,
        round_number=request.fields["round"],
        seed=training_seed(
            plan.seed, hospital=request.fields["hospital"], round_number=request.fields["round"]
        ),
        on_progress=progress,
    )
    update = encode_update(
        result.update, weight=_weight(request), scale_bits=plan.scale_bits, bound=plan.update_bound
    )
    return Frame("done", arrays={"contribution": np.concatenate([update, encode_metrics(result.metrics)])})


def bound_values(request: Frame, datasets: Datasets, _progress: Progress) -> Frame:
    """A power-of-two bound per step, from images that the plan lets speak."""
    plan, imageset = _study(request, datasets)
    chosen = calibration_images(imageset, plan)
    module = _model(plan, request.arrays["base"]).eval()
    return Frame("done", fields={"bound_bits": dict(calibrate(module, to_model_input(chosen.images)))})


def release(request: Frame, _datasets: Datasets, _progress: Progress) -> Frame:
    """The weighted, encoded parameters of the plan that `bound_bits` compile to."""
    plan = TrainingPlan.from_json(request.fields["training_plan"].encode())
    module = _model(plan, request.arrays["base"]).eval()
    compiled = compile_module(
        module,
        input_shape=(plan.channels, plan.image_size, plan.image_size),
        bounds=request.fields["bound_bits"],
    )
    if compiled.hash != request.fields["compiled_plan_hash"]:
        raise FailedPrecondition(
            "This hospital compiled another plan than the coordinator. Bring both to the same version of "
            "Trefoil, then release again."
        )
    encoded = weigh_encoded(encode_parameters(module, compiled), weight=_weight(request))
    return Frame("done", fields={"ring_bits": compiled.ring.bits}, arrays={"contribution": encoded})


JOBS: Mapping[str, Job] = MappingProxyType({"train": train, "calibrate": bound_values, "release": release})


def _study(request: Frame, datasets: Datasets) -> tuple[TrainingPlan, ImageSet]:
    fields: Mapping[str, Any] = request.fields
    plan = TrainingPlan.from_json(fields["training_plan"].encode())
    imageset = datasets.load(
        Path(fields["dataset_path"]),
        data_roots=[Path(root) for root in fields["data_roots"]],
        size=plan.image_size,
        content_hash=fields["content_hash"],
    )
    return plan, imageset


def _model(plan: TrainingPlan, base: RingArray) -> nn.Module:
    module = build_model(
        plan.model, channels=plan.channels, classes=plan.classes, size=plan.image_size, seed=plan.seed
    )
    load_state_vector(module, decode_vector(base, scale_bits=plan.scale_bits))
    return module


def _weight(request: Frame) -> Fraction:
    numerator, denominator = request.fields["weight"]
    return Fraction(numerator, denominator)
