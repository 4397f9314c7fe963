"""What the hospitals reach without Trefoil: each alone, and with all images in one place.

Each baseline is its own process with one thread. On two cores two run at a time, the one with all images
first: it takes about as long as all the lonely ones together, so both cores are busy to the end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libs.cli.demo.material import Material
from libs.data.imageset import ImageSet, join
from libs.fl.baseline import train_without_sharing
from libs.fl.evaluation import predict_probabilities, threshold_from_metrics
from libs.fl.training_plan import TrainingPlan

CENTRALISED = "centralised"
_MOST_WORKERS = 4


@dataclass(frozen=True)
class Baseline:
    """Probabilities of the test images (N,) and the threshold chosen on its own validation images."""

    name: str
    probabilities: npt.NDArray[np.float64]
    threshold: float


@dataclass(frozen=True)
class _Job:
    name: str
    images: ImageSet
    test: npt.NDArray[np.uint8]
    plan: TrainingPlan


def train_baselines(
    material: Material, plan: TrainingPlan, *, on_done: Callable[[str], None]
) -> dict[str, Baseline]:
    """Baseline by hospital name, and by CENTRALISED. `on_done` hears each name."""
    jobs = [_Job(CENTRALISED, join(list(material.parts.values())), material.test.images, plan)]
    jobs += [_Job(name, part, material.test.images, plan) for name, part in material.parts.items()]
    workers = max(1, min(_MOST_WORKERS, os.cpu_count() or 1))
    finished = {}
    # Leaving the block ends the workers, whatever happened inside.
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_begin_worker) as pool:
        for baseline in pool.imap_unordered(_train, jobs):
            finished[baseline.name] = baseline
            on_done(baseline.name)
    return finished


def _begin_worker() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends the workers
    torch.set_num_threads(1)  # as in the hospitals, so that sums round alike


def _train(job: _Job) -> Baseline:
    result = train_without_sharing(job.images, job.plan, owner=job.name)
    return Baseline(
        name=job.name,
        probabilities=predict_probabilities(result.module, job.test),
        threshold=threshold_from_metrics(result.metrics) or 0.5,
    )
