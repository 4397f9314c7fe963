"""The steps that train in this program: a hospital alone, all data in one place, federated in one process.

They run on one thread each, as hospitals do, so that sums round alike and two steps share two cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from libs.cli.evaluate.federated import train_federated
from libs.cli.evaluate.material import Division, Material
from libs.cli.evaluate.store import Outcome
from libs.data.imageset import ImageSet
from libs.fl.baseline import train_without_sharing
from libs.fl.evaluation import predict_probabilities, threshold_from_metrics
from libs.fl.metrics import RoundMetrics
from libs.fl.privacy import planned_epsilon
from libs.fl.training_plan import TrainingPlan
from libs.fl.vectorise import state_vector
from libs.fl.versions import version_length

Progress = Callable[[float], None]


class Recipe(StrEnum):
    """How a model comes from images."""

    ONE_OWNER = "one owner"
    FEDERATED = "federated"


@dataclass(frozen=True)
class TrainingJob:
    """What a worker needs beside the material."""

    recipe: Recipe
    plan: TrainingPlan
    division: Division
    moved: bool = False
    """Whether images had to leave hospitals to get to this owner."""


def run_training(job: TrainingJob, material: Material, on_progress: Progress) -> Outcome:
    """Train, and answer all test images. Raises what training raises."""
    torch.set_num_threads(1)
    parts = {name: material.train.select(indices) for name, indices in job.division.items()}
    started, started_cpu = time.perf_counter(), time.process_time()
    train = _one_owner if job.recipe is Recipe.ONE_OWNER else _federated
    module, metrics, facts, arrays = train(job, parts, on_progress)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    threshold = threshold_from_metrics(metrics)
    return Outcome(
        facts={
            **facts,
            **threshold_facts(threshold),
            "seconds": round(seconds, 3),
            "cpu_s": round(cpu_s, 3),
            "rounds": job.plan.rounds,
            "model": job.plan.model,
            "images": {name: part.class_counts for name, part in parts.items()},
            "plan_hash": job.plan.hash,
        },
        arrays={"probabilities": predict_probabilities(module, material.test.images), **arrays},
    )


def threshold_facts(threshold: float | None) -> dict[str, Any]:
    """The threshold, and where it is from: validation images, or 0.5 where none may be told."""
    chosen = 0.5 if threshold is None else min(max(threshold, 0.01), 0.99)
    return {"threshold": chosen, "threshold_from": "fixed" if threshold is None else "validation images"}


def history_facts(metrics: Sequence[RoundMetrics]) -> list[dict[str, float | None]]:
    """Losses and validation AUC of every round."""
    return [
        {"train_loss": m.train_loss, "validation_loss": m.validation_loss, "validation_auc": m.auc}
        for m in metrics
    ]


# module, metrics of the last round, facts, arrays
_Trained = tuple[torch.nn.Module, RoundMetrics, dict[str, Any], dict[str, Any]]


def _one_owner(job: TrainingJob, parts: dict[str, ImageSet], on_progress: Progress) -> _Trained:
    ((owner, images),) = parts.items()
    trained = train_without_sharing(images, job.plan, owner=owner, on_progress=on_progress)
    facts = {"bytes": images.images.nbytes if job.moved else 0}
    return trained.module, trained.metrics, facts, {}


def _federated(job: TrainingJob, parts: dict[str, ImageSet], on_progress: Progress) -> _Trained:
    plan = job.plan
    trained = train_federated(parts, plan, on_progress=on_progress)
    rounds = len(trained.rounds)
    module = trained.module()
    facts: dict[str, Any] = {
        # What any federation sends: weights to each hospital and an update back, 4 bytes a number.
        "bytes": 2 * 4 * version_length(plan) * len(parts) * rounds,
        "by_round": history_facts(trained.metrics),
    }
    if plan.privacy is not None:
        spent = [planned_epsilon(plan, records=len(part)) for part in parts.values()]
        facts |= {"epsilon": max(spent), "delta": plan.privacy.delta, "privacy": _privacy_of(plan)}
    return module, trained.metrics[trained.final_round - 1], facts, {"weights": state_vector(module)}


def _privacy_of(plan: TrainingPlan) -> dict[str, Any]:
    """The plan's privacy parameters as JSON."""
    return {} if plan.privacy is None else plan.privacy.model_dump(mode="json")
