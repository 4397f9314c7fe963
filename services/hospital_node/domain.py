"""Data sets, orders and tasks, and the state machine of tasks as a table. Consent is in `access/domain.py`.

A transition that is not in a table cannot happen: `next_state` raises, and the database adapter
moves states through it only.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from types import MappingProxyType

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.data.disclosure import CountDisclosure, DisclosedCounts, disclose

MAX_DIGITS = 6
"""Of a round's number."""


@dataclass(frozen=True)
class Dataset:
    """A version of a data set. `messages.dataset_event` is all of it that leaves the hospital.

    `schema` and `mock_recipe` are canonical JSON of `libs.data.schema` and `libs.data.mock`, empty where the
    first release published it. Published until `withdrawn_at`; of a name's versions, one at most is.
    """

    name: str
    description: str
    tags: tuple[str, ...]
    path: str
    images: int
    patients: int
    images_per_class: Mapping[str, int]
    content_hash: str
    published_at: datetime
    version: int = 1
    licence: str = ""
    disclosure: CountDisclosure = CountDisclosure.ROUNDED
    schema: bytes = b""
    mock_recipe: bytes = b""
    mock_hash: str = ""
    withdrawn_at: datetime | None = None

    @property
    def disclosed(self) -> DisclosedCounts:
        """What its owner lets others know of its numbers."""
        return disclose(self.images_per_class, patients=self.patients, policy=self.disclosure)


# ---------------------------------------------------------------- tasks


class TaskKind(enum.Enum):
    """What the coordinator can ask a hospital to do."""

    TRAIN = "train"
    CALIBRATE = "calibrate"
    RELEASE = "release"


class TaskState(enum.Enum):
    """How far a task came. What it left behind at the parties depends on nothing else."""

    RUNNING = "running"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    REFUSED = "refused"


class TaskEvent(enum.Enum):
    """What can happen to a task."""

    START = "start"
    SEND = "send"
    FINISH = "finish"
    FAIL = "fail"
    REFUSE = "refuse"
    RESTART_NODE = "restart_node"


TASK_TRANSITIONS: Mapping[tuple[TaskState, TaskEvent], TaskState] = MappingProxyType(
    {
        (TaskState.RUNNING, TaskEvent.SEND): TaskState.SENDING,
        # A calibration sends no shares.
        (TaskState.RUNNING, TaskEvent.FINISH): TaskState.DONE,
        (TaskState.RUNNING, TaskEvent.FAIL): TaskState.FAILED,
        (TaskState.RUNNING, TaskEvent.RESTART_NODE): TaskState.FAILED,
        # Nothing left the node before it failed: another attempt repeats nothing.
        (TaskState.FAILED, TaskEvent.START): TaskState.RUNNING,
        (TaskState.SENDING, TaskEvent.FINISH): TaskState.DONE,
        # Some party may hold a share; this attempt is over for this hospital (DECISIONS.md, upload ids).
        (TaskState.SENDING, TaskEvent.FAIL): TaskState.LOST,
        (TaskState.SENDING, TaskEvent.RESTART_NODE): TaskState.LOST,
        # The parties' check left it out. They had all of it, whatever this node knows of that.
        (TaskState.SENDING, TaskEvent.REFUSE): TaskState.REFUSED,
        (TaskState.DONE, TaskEvent.REFUSE): TaskState.REFUSED,
        (TaskState.LOST, TaskEvent.REFUSE): TaskState.REFUSED,
    }
)


@dataclass(frozen=True)
class TaskKey:
    """What makes a task the same task.

    A round that the parties voided for lack of hospitals is held again as its next attempt. A calibration
    belongs to no round and has round 0 and attempt 0.
    """

    study_id: str
    kind: TaskKind
    round: int
    attempt: int = 0


@dataclass(frozen=True)
class Task:
    """One order and what became of it. `upload_id` is stored before the first share leaves."""

    key: TaskKey
    state: TaskState
    base_model_id: str
    upload_id: str = ""
    bound_bits: Mapping[str, int] = field(default_factory=dict)
    failure_code: str = ""
    failure: str = ""

    def next_state(self, event: TaskEvent) -> TaskState:
        """The state after `event`. Raises FailedPrecondition when the table has no such transition."""
        try:
            return TASK_TRANSITIONS[self.state, event]
        except KeyError:
            raise FailedPrecondition(
                f"The {self.key.kind.value} task of round {self.key.round} of study {self.key.study_id} is "
                f"{self.state.value} at this hospital and cannot {event.value.replace('_', ' ')}."
            ) from None


# ---------------------------------------------------------------- orders


@dataclass(frozen=True)
class TrainOrder:
    """Train one round from a version of the model. `weight` is this hospital's part of all samples."""

    key: TaskKey
    plan_hash: str
    base_model_id: str
    weight: Fraction
    deadline: datetime
    counted_round: int = 0
    """The last round in which this hospital's contribution was added; 0 for none."""


@dataclass(frozen=True)
class CalibrateOrder:
    """Say how large each step's values get on this hospital's images, as powers of two."""

    key: TaskKey
    plan_hash: str
    base_model_id: str
    deadline: datetime


@dataclass(frozen=True)
class ReleaseOrder:
    """Contribute the trained model, encoded as the plan compiled from `bound_bits` says."""

    key: TaskKey
    plan_hash: str
    base_model_id: str
    bound_bits: Mapping[str, int]
    compiled_plan_hash: str
    weight: Fraction
    deadline: datetime


Order = TrainOrder | CalibrateOrder | ReleaseOrder


@dataclass(frozen=True)
class ModelUse:
    """Who may ask a released model: everybody, or those named; and how many predictions, 0 for any number."""

    anyone: bool = False
    askers: tuple[str, ...] = ()
    max_predictions: int = 0


@dataclass(frozen=True)
class Terms:
    """What a contribution requires of its round, by what the owner approved. The parties hold it to that.

    `metrics_length` elements at its end are metrics. `compiled_plan_hash` and `result_model_id` are of the
    released model, and empty for a version on the way, which nobody can ask.
    """

    quorum: int
    hospitals: tuple[str, ...]
    readers: tuple[str, ...]
    metrics_readers: tuple[str, ...]
    use: ModelUse
    weight: Fraction
    metrics_length: int
    compiled_plan_hash: str = ""
    result_model_id: str = ""
    max_norm: int = 0
    noise_std: int = 0
    same: bool = False


def version_number(model_id: str, *, study_id: str) -> int:
    """Which version of a study's model is meant. Raises InvalidInput when it is none of that study's."""
    before, _, number = model_id.rpartition("/round-")
    if before != study_id or not number.isdecimal() or len(number) > MAX_DIGITS:
        raise InvalidInput("The order names a model that does not belong to its study.")
    return int(number)


def admit(order: Order, before: Iterable[Task]) -> None:
    """Raises FailedPrecondition unless `order` goes forward from the study's contributions so far.

    No attempt is made after a newer one or a newer round, and none after shares of the same attempt may have
    left. All attempts at a round start from one model version, so a repeated round tells nothing new: local
    training is deterministic, and the update is the very same function value.
    """
    place = f"round {order.key.round} of study {order.key.study_id}"
    for task in before:
        if order.key.kind is TaskKind.CALIBRATE or task.key.kind is TaskKind.CALIBRATE:
            continue
        if (task.key.round, task.key.attempt) > (order.key.round, order.key.attempt):
            raise FailedPrecondition(
                f"This hospital has gone beyond {place}. It goes on with newer orders only."
            )
        if task.key == order.key and task.state is TaskState.LOST:
            raise FailedPrecondition(
                f"Some shares for {place} may have left this hospital when it was interrupted, so this "
                "attempt cannot be repeated. The hospital takes part again in the next one."
            )
        same_round = task.key.round == order.key.round and task.state is not TaskState.FAILED
        if same_round and (task.base_model_id, task.key.kind) != (order.base_model_id, order.key.kind):
            raise FailedPrecondition(f"This hospital has done {place} from another version of the model.")


class Phase(enum.Enum):
    """What a task is doing, as the scientist's progress bars show it."""

    FETCHING = "fetching"
    TRAINING = "training"
    SENDING = "sending"
    CALIBRATING = "calibrating"
