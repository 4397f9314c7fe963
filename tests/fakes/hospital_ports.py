"""The hospital node's outside, in memory: remembering announcer, adding parties, scripted worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np

from libs.data.dataset import SourceKind
from libs.data.imageset import CLASS_NAMES
from libs.data.schema import MODALITY, DatasetSchema, Sides
from libs.fl.metrics import RoundMetrics
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import Ring, RingArray
from services.hospital_node.datasets import withdraw
from services.hospital_node.domain import (
    Dataset,
    Phase,
    Task,
    TaskKey,
    TaskKind,
    Terms,
    TrainOrder,
)
from services.hospital_node.ports import Datasets, Inspection, OnProgress, ReleaseJob, StudyJob, TrainJob

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
STUDY = "study-1"
HOSPITALS = ("spiffe://trefoil.local/hospital/alpha", "spiffe://trefoil.local/hospital/beta")
SCIENTIST = "spiffe://trefoil.local/client/dana"
PLAN = TrainingPlan(model="small_cnn", image_size=28, rounds=3, learning_rate=0.05, batch_size=8)
SCHEMA = DatasetSchema(
    source=SourceKind.FOLDER,
    height=Sides(low=28, high=28),
    width=Sides(low=28, high=28),
    channels=1,
    bits=8,
    classes=CLASS_NAMES,
    modality=MODALITY,
)


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic_s(self) -> float:
        return 0.0


@dataclass
class RememberingAnnouncer:
    said: list[tuple[object, ...]] = field(default_factory=list)

    def dataset_published(self, dataset: Dataset) -> None:
        self.said.append(("published", dataset.name))

    def dataset_withdrawn(self, name: str) -> None:
        self.said.append(("withdrawn", name))

    def progressed(self, key: TaskKey, phase: Phase, fraction: float) -> None:
        self.said.append(("progress", phase, fraction))

    def task_done(self, task: Task) -> None:
        self.said.append(("done", task))

    def task_failed(self, key: TaskKey, *, code: str, message: str) -> None:
        self.said.append(("failed", key, code, message))

    def stop_proposed(self, key: TaskKey, *, best_round: int) -> None:
        self.said.append(("stop", key, best_round))

    def of(self, kind: str) -> list[tuple[object, ...]]:
        return [entry for entry in self.said if entry[0] == kind]


@dataclass
class AddingParties:
    """Gives zeros as every model and keeps what is dealt."""

    dealt: list[tuple[TaskKey, RingArray, Ring, str]] = field(default_factory=list)
    terms: list[Terms] = field(default_factory=list)
    before_dealing: Callable[[], None] = lambda: None
    fetched: list[str] = field(default_factory=list)
    measured: dict[int, RoundMetrics] = field(default_factory=dict)

    async def fetch(self, model_id: str) -> RingArray:
        self.fetched.append(model_id)
        return np.zeros(4, np.uint32)

    async def metrics(self, study_id: str, *, round_number: int) -> RoundMetrics:
        return self.measured[round_number]

    async def deal(
        self, key: TaskKey, vector: RingArray, *, ring: Ring, upload_id: str, terms: Terms
    ) -> None:
        self.before_dealing()
        self.terms.append(terms)
        self.dealt.append((key, vector, ring, upload_id))


@dataclass
class ScriptedWorker:
    """Answers at once, raises what it is told to, or takes until it is cancelled."""

    error: Exception | None = None
    hangs: bool = False
    before_answering: Callable[[], Awaitable[None]] | None = None
    jobs: list[str] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    inspection: Inspection = field(
        default_factory=lambda: Inspection(
            images=10,
            patients=7,
            images_per_class={"NORMAL": 4, "PNEUMONIA": 6},
            content_hash="c" * 64,
            schema=SCHEMA.canonical_json().decode(),
        )
    )

    async def _work(self, kind: str) -> None:
        self.jobs.append(kind)
        self.begun.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.before_answering is not None:
            await self.before_answering()
        if self.error is not None:
            raise self.error

    async def inspect(self, *, path: Path, data_roots: Sequence[Path]) -> Inspection:
        await self._work("inspect")
        return self.inspection

    async def read_version(self, job: StudyJob, version: RingArray, *, number: int) -> None:
        await self._work(f"read {number}")

    async def train(self, job: TrainJob, base: RingArray, on_progress: OnProgress) -> RingArray:
        await self._work("train")
        on_progress(0.5)
        return np.arange(4, dtype=np.uint32)

    async def calibrate(self, job: StudyJob, base: RingArray, on_progress: OnProgress) -> dict[str, int]:
        await self._work("calibrate")
        return {"conv1": 3}

    async def release(self, job: ReleaseJob, base: RingArray) -> tuple[RingArray, Ring]:
        await self._work("release")
        return np.arange(4, dtype=np.uint64), Ring.RING_64

    async def stop(self) -> None:
        self.jobs.append("stop")


def dataset(name: str = "chest") -> Dataset:
    return Dataset(
        name=name,
        description="Children's radiographs",
        tags=("chest", "pneumonia"),
        path="/data/chest",
        images=10,
        patients=7,
        images_per_class={"NORMAL": 4, "PNEUMONIA": 6},
        content_hash="c" * 64,
        published_at=NOW,
    )


async def shelve(datasets: Datasets, dataset: Dataset) -> None:
    """As if it had been published."""
    await datasets.run(lambda shelf: shelf.add(dataset))


async def unshelve(datasets: Datasets, name: str) -> None:
    """As if it had been withdrawn."""
    await datasets.run(lambda shelf: withdraw(shelf, name, actor="owner", request_id="", at=NOW))


def train_order(
    number: int = 1,
    *,
    attempt: int = 0,
    plan_hash: str = PLAN.hash,
    base: str = "",
    deadline: datetime = NOW + timedelta(minutes=5),
) -> TrainOrder:
    return TrainOrder(
        key=TaskKey(study_id=STUDY, kind=TaskKind.TRAIN, round=number, attempt=attempt),
        plan_hash=plan_hash,
        base_model_id=base or f"{STUDY}/round-{number - 1}",
        weight=Fraction(1, 3),
        deadline=deadline,
    )
