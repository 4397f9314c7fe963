"""What the worker does with torch: one function per kind of request, listed in `JOBS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from libs.core.errors import FailedPrecondition
from libs.data.dataset import ImageSet
from libs.data.transforms import to_model_input
from libs.fl.calibration import calibration_images
from libs.fl.hospital_round import encode_contribution, train_round
from libs.fl.strategies.registry import strategy_of
from libs.fl.strategies.strategy import Opened
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import weigh_encoded
from libs.fl.vectorise import load_state_vector
from libs.fl.versions import Reader, first_module
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from services.hospital_node.worker.datasets import Datasets
from services.hospital_node.worker.frames import Frame
from services.hospital_node.worker.study_files import StudyFiles

Progress = Callable[[float], None]
Job = Callable[[Frame, Datasets, Progress], Frame]


def train(request: Frame, datasets: Datasets, progress: Progress) -> Frame:
    """[round(weight * update * 2^scale_bits) | metrics] in Z_2^32, the update as the plan's strategy says."""
    plan, imageset = _study(request, datasets)
    files, counted = StudyFiles(Path(request.fields["folder"])), request.fields["counted_round"]
    trained = train_round(
        plan,
        imageset,
        hospital=request.fields["hospital"],
        round_number=request.fields["round"],
        opened=_opened(plan, request),
        own=files.own(counted) if strategy_of(plan).keeps_state else None,
        on_progress=progress,
    )
    contribution = encode_contribution(plan, trained, weight=_weight(request))
    if trained.own is not None:
        files.keep_own(request.fields["round"], trained.own, counted_round=counted)
    return Frame("done", arrays={"contribution": contribution})


def read_version(request: Frame, _datasets: Datasets, _progress: Progress) -> Frame:
    """Go on from what the versions before this one mean, and keep what this one does."""
    plan = TrainingPlan.from_json(request.fields["training_plan"].encode())
    files, number = StudyFiles(Path(request.fields["folder"])), request.fields["number"]
    reader = Reader(plan, opened=files.opened() if number else None)
    files.keep_opened(reader.read(request.arrays["version"], round_number=number))
    return Frame("done")


def bound_values(request: Frame, datasets: Datasets, _progress: Progress) -> Frame:
    """A power-of-two bound per step, from images that the plan lets speak."""
    plan, imageset = _study(request, datasets)
    chosen = calibration_images(imageset, plan)
    module = _model(plan, request).eval()
    return Frame("done", fields={"bound_bits": dict(calibrate(module, to_model_input(chosen.images)))})


def release(request: Frame, _datasets: Datasets, _progress: Progress) -> Frame:
    """The weighted, encoded parameters of the plan that `bound_bits` compile to."""
    plan = TrainingPlan.from_json(request.fields["training_plan"].encode())
    module = _model(plan, request).eval()
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


JOBS: Mapping[str, Job] = MappingProxyType(
    {"read_version": read_version, "train": train, "calibrate": bound_values, "release": release}
)


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


def _opened(plan: TrainingPlan, request: Frame) -> Opened:
    """What the version that the request starts from means; after all before it if the strategy needs them."""
    number = request.fields["base_round"]
    if not strategy_of(plan).reads_all_versions:
        return Reader(plan).read(request.arrays["base"], round_number=number)
    opened = StudyFiles(Path(request.fields["folder"])).opened()
    if opened is None or opened.round != number:
        raise FailedPrecondition(
            "What this hospital kept of the study's versions was lost while it worked. It reads them again "
            "at the next order."
        )
    return opened


def _model(plan: TrainingPlan, request: Frame) -> nn.Module:
    module = first_module(plan)
    load_state_vector(module, _opened(plan, request).weights)
    return module


def _weight(request: Frame) -> Fraction:
    numerator, denominator = request.fields["weight"]
    return Fraction(numerator, denominator)
