"""`trefoil bench private-training`: what privacy costs a detector, and whether encryption changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption

if TYPE_CHECKING:
    from torch import nn

    from libs.data.imageset import ImageSet
    from libs.fl.training_plan import TrainingPlan

MODEL, SIZE = "small_cnn_private", 28


@dataclass(frozen=True)
class PrivateRun:
    """One private study on one division of the images. The last two compare encrypted with clear answers."""

    epsilon: float
    seed: int
    spent: float
    noise_multiplier: float
    auc: float
    accuracy: float
    cpu_s: float
    same_label: float
    largest_logit_difference: float


def private_training(
    data: Annotated[Path, typer.Argument(help="A folder or an .npz file.", exists=True)],
    epsilon: Annotated[list[float], typer.Option(help="For each image; repeat for more.")] = [1, 2, 4, 8],  # noqa: B006
    delta: Annotated[float, typer.Option(min=1e-12, max=0.01)] = 1e-4,
    hospitals: Annotated[int, typer.Option(min=2, max=100)] = 3,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Divisions and first weights to try.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Train privately over hospitals with equal shares of DATA, in one process, and test the result.

    The model is compiled as for its release, with bounds from made-up images, and asked about every test
    image once more in the integers that the parties compute with.
    """
    from libs.cli.bench.machine import describe_machine
    from libs.cli.output import print_json, print_table, remarks
    from libs.data.dataset import load_train_and_test

    train, test = load_train_and_test(data, size=SIZE)
    runs = []
    for target in epsilon:
        for seed in range(seeds):
            remarks().print(f"Training at epsilon {target:g}, seed {seed}", style="dim")
            runs.append(
                run_privately(train, test, epsilon=target, delta=delta, hospitals=hospitals, seed=seed)
            )
    if as_json:
        figures = [vars(run) for run in runs]
        print_json({"delta": delta, "hospitals": hospitals, "runs": figures, "machine": describe_machine()})
        return
    columns = [
        "epsilon",
        ">spent",
        ">noise",
        ">AUC",
        ">accuracy",
        ">same label",
        ">logits differ by",
        ">CPU s",
    ]
    rows = [_row([run for run in runs if run.epsilon == target]) for target in epsilon]
    title = f"{hospitals} hospitals, delta {delta:g}, {len(test)} test images, mean (least) of {seeds}"
    print_table(columns, rows, title=title, if_empty="")


def run_privately(
    train: ImageSet, test: ImageSet, *, epsilon: float, delta: float, hospitals: int, seed: int
) -> PrivateRun:
    """Divide, train, test in clear and as integers. Raises InvalidInput for a target beyond all noise."""
    import time

    from libs.data.partition import partition_patients
    from libs.fl.evaluation import evaluate, predict_logits, probabilities_of
    from libs.fl.presets import default_plan
    from libs.fl.privacy import noise_multiplier, planned_epsilon
    from libs.fl.privacy_parameters import PrivacyParameters
    from libs.fl.simulate import simulate

    begun = time.process_time()
    privacy = PrivacyParameters.checked({"target_epsilon": epsilon, "delta": delta})
    plan = default_plan(model=MODEL, image_size=SIZE, images=len(train), seed=seed, privacy=privacy)
    parts = partition_patients(train, hospitals=hospitals, seed=seed)
    module = simulate(plan, {f"hospital-{i}": part for i, part in enumerate(parts)}).module()
    logits = predict_logits(module, test.images).numpy()
    encrypted = _as_integers(module, train, test, plan)
    found = evaluate(probabilities_of(logits), test.labels, threshold=0.5)
    return PrivateRun(
        epsilon=epsilon,
        seed=seed,
        spent=max(planned_epsilon(plan, records=len(part)) for part in parts),
        noise_multiplier=max(noise_multiplier(plan, records=len(part)) for part in parts),
        auc=found.auc,
        accuracy=found.accuracy,
        cpu_s=time.process_time() - begun,
        same_label=float((encrypted.argmax(1) == logits.argmax(1)).mean()),
        largest_logit_difference=float(abs(encrypted - logits).max()),
    )


def _as_integers(module: nn.Module, train: ImageSet, test: ImageSet, plan: TrainingPlan) -> Any:
    """Logits (N, classes) of the test images by the compiled plan, rounded at random as under shares."""
    import numpy as np

    from libs.data.transforms import to_model_input
    from libs.fl.calibration import calibration_images
    from libs.mpc.fixed_point import FixedPoint
    from libs.secure_nn.calibrate import calibrate
    from libs.secure_nn.cleartext import run_plan_ring
    from libs.secure_nn.compile import compile_module
    from libs.secure_nn.encode import encode_parameters

    module.eval()
    bounds = calibrate(module, to_model_input(calibration_images(train, plan).images))
    shape = (plan.channels, plan.image_size, plan.image_size)
    compiled = compile_module(module, input_shape=shape, bounds=bounds)
    images = FixedPoint(ring=compiled.ring, scale=compiled.input_scale).encode(
        to_model_input(test.images).numpy()
    )
    answers = run_plan_ring(
        compiled, encode_parameters(module, compiled), images, rounding=np.random.default_rng(0)
    )
    return FixedPoint(ring=compiled.ring, scale=compiled.output_scale).decode(answers)


def _row(runs: Sequence[PrivateRun]) -> list[str]:
    aucs = [run.auc for run in runs]
    accuracies = [run.accuracy for run in runs]
    return [
        f"{runs[0].epsilon:g}",
        f"{max(run.spent for run in runs):.3f}",
        f"{runs[0].noise_multiplier:.2f}",
        f"{sum(aucs) / len(runs):.4f} ({min(aucs):.4f})",
        f"{sum(accuracies) / len(runs):.3f} ({min(accuracies):.3f})",
        f"{min(run.same_label for run in runs):.4f}",
        f"{max(run.largest_logit_difference for run in runs):.4f}",
        f"{sum(run.cpu_s for run in runs) / len(runs):.0f}",
    ]
