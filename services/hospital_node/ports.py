"""What the node's own logic needs from the outside, so that each side is replaced in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from libs.fl.metrics import RoundMetrics
from libs.mpc.ring import Ring, RingArray
from libs.runtime.audit.entry import Event
from services.hospital_node.domain import (
    Dataset,
    Order,
    Phase,
    Task,
    TaskKey,
    Terms,
)

OnProgress = Callable[[float], None]
"""Called with the finished fraction of a job, 0 to 1."""

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Message)


class Shelf(Protocol):
    """The data sets, within one transaction."""

    def newest(self, name: str) -> Dataset | None:
        """The latest version of that name, published or withdrawn."""
        ...

    def add(self, dataset: Dataset) -> None:
        """A new version, published."""
        ...

    def take_down(self, dataset: Dataset, *, at: datetime) -> None:
        """This version is withdrawn. It stays as history."""
        ...

    def record(self, event: Event) -> None:
        """Enter this into the audit trail when the transaction commits."""
        ...


class Datasets(Protocol):
    """The node's data sets with all their versions. Every method is one transaction."""

    async def dataset(self, name: str) -> Dataset:
        """The published version. Raises NotFound."""
        ...

    async def datasets(self, *, after: str = "", limit: int | None = None) -> list[Dataset]:
        """What is published, by name, those beyond `after`."""
        ...

    async def versions(self, name: str) -> list[Dataset]:
        """All of that name, the newest first. Raises NotFound."""
        ...

    async def withdrawn_names(self) -> list[str]:
        """Names that were published once and are no longer."""
        ...

    async def run(self, work: Callable[[Shelf], T]) -> T:
        """The result of `work`, committed; nothing of it is kept when it raises."""
        ...

    async def answer(
        self, *, actor: str, message: Any, answer_type: type[Answer], work: Callable[[Shelf], Answer]
    ) -> Answer:
        """The same, at most once for this actor and the message's `request_id` (`adapters/answers.py`)."""
        ...

    async def answered(self, *, actor: str, message: Any, answer_type: type[Answer]) -> Answer | None:
        """What `answer` gave to this very message before. Raises as it does."""
        ...


class Store(Protocol):
    """What the node remembers of tasks. Every method is one transaction."""

    async def done_before(self, order: Order) -> Task | None:
        """The order's task if it is done already; None if it may begin now, but for what it costs.

        Raises FailedPrecondition when `domain.admit` does.
        """
        ...

    async def start_task(self, order: Order) -> Task:
        """The order's task, now running; or, unchanged, the one that is done already.

        Raises FailedPrecondition when `domain.admit` does.
        """
        ...

    async def mark_sending(self, key: TaskKey, *, upload_id: str) -> Task:
        """Before the first share leaves."""
        ...

    async def finish_task(self, key: TaskKey, *, bound_bits: Mapping[str, int] | None = None) -> Task:
        """Done: never again."""
        ...

    async def fail_task(self, key: TaskKey, *, code: str, message: str) -> Task:
        """Failed before sending, or lost after it had begun."""
        ...

    async def refuse_task(self, key: TaskKey) -> bool:
        """The parties left the contribution out of the round. False when that is known already."""
        ...

    async def fail_interrupted_tasks(self) -> int:
        """What ran when the node was stopped did not survive it. How many tasks that were."""
        ...


class Announcer(Protocol):
    """Tells the coordinator, if the link is up.

    What is said while it is down need not be kept: when it is back, data sets and decisions are said again,
    and the coordinator repeats every order that it has no answer to.
    """

    def dataset_published(self, dataset: Dataset) -> None: ...

    def dataset_withdrawn(self, name: str) -> None: ...

    def progressed(self, key: TaskKey, phase: Phase, fraction: float) -> None: ...

    def task_done(self, task: Task) -> None: ...

    def task_failed(self, key: TaskKey, *, code: str, message: str) -> None: ...

    def stop_proposed(self, key: TaskKey, *, best_round: int) -> None: ...


class Parties(Protocol):
    """The three compute parties, for whole vectors."""

    async def fetch(self, model_id: str) -> RingArray:
        """A model version, joined from its three shares. Raises Unavailable, NotFound, PermissionDenied."""
        ...

    async def metrics(self, study_id: str, *, round_number: int) -> RoundMetrics:
        """A round's metrics, summed over its hospitals. Raises as `fetch` does."""
        ...

    async def deal(
        self, key: TaskKey, vector: RingArray, *, ring: Ring, upload_id: str, terms: Terms
    ) -> None:
        """Split a contribution and send one share to each party; all three have theirs afterwards.

        Raises FailedPrecondition when the parties' round is weaker than `terms`.
        """
        ...


@dataclass(frozen=True)
class Inspection:
    """What the owner learns about files before they become a data set."""

    images: int
    patients: int
    images_per_class: Mapping[str, int]
    content_hash: str
    schema: str
    """Canonical JSON of `libs.data.schema.DatasetSchema`."""
    identification: str = ""
    """Canonical JSON of `libs.data.identification.IdentificationReport`; empty without DICOM files."""


@dataclass(frozen=True)
class StudyJob:
    """What every job on a study's model needs: the approved plan, and the data as it was published.

    `folder` holds what this hospital keeps of the study (`worker/study_files.py`); the job starts from the
    version `base_round`.
    """

    training_plan: bytes
    dataset_path: Path
    data_roots: Sequence[Path]
    content_hash: str
    folder: Path
    base_round: int


@dataclass(frozen=True)
class TrainJob:
    """One round of local training. The seed follows from plan, hospital and round."""

    study: StudyJob
    hospital: str
    round: int
    weight: Fraction
    counted_round: int = 0


@dataclass(frozen=True)
class ReleaseJob:
    """Fold and encode the trained model."""

    study: StudyJob
    bound_bits: Mapping[str, int]
    compiled_plan_hash: str
    weight: Fraction


class Worker(Protocol):
    """The process that reads images and runs torch, one job at a time.

    Cancelling a call kills the process; the next call starts a new one. A process that dies raises
    Unavailable.
    """

    async def inspect(self, *, path: Path, data_roots: Sequence[Path]) -> Inspection:
        """Read and check files as a data set. Raises InvalidInput in words for their owner."""
        ...

    async def read_version(self, job: StudyJob, version: RingArray, *, number: int) -> None:
        """Keep what this version means, where that follows from all versions in turn."""
        ...

    async def train(self, job: TrainJob, base: RingArray, on_progress: OnProgress) -> RingArray:
        """The contribution [encoded weighted update | metrics]. uint32, (version + METRICS_LENGTH,).

        What the hospital keeps of this round is on disk by then.
        """
        ...

    async def calibrate(self, job: StudyJob, base: RingArray, on_progress: OnProgress) -> dict[str, int]:
        """Step name -> b, with every value seen there below 2^b."""
        ...

    async def release(self, job: ReleaseJob, base: RingArray) -> tuple[RingArray, Ring]:
        """The weighted, encoded parameters of the compiled plan, and the plan's ring."""
        ...

    async def stop(self) -> None:
        """End the process."""
        ...
