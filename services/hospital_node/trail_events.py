"""What the node itself enters into its audit trail: tasks, contributions, its link. Never an image.

What its staff does is entered where that is decided.
"""

from __future__ import annotations

from collections.abc import Mapping

from libs.core.errors import Unavailable
from libs.rpc.identity import COORDINATOR
from libs.runtime.audit.entry import Detail, Event, Outcome
from services.hospital_node.domain import Order, TaskEvent, TaskKey

SYSTEM = "system"


def task_started(order: Order) -> Event:
    """An order of the coordinator's that the owner's approval of this plan covers."""
    details = {"plan_hash": order.plan_hash, "base": order.base_model_id}
    return _task("task.started", order.key, details)


def task_moved(key: TaskKey, event: TaskEvent, *, upload_id: str, failure_code: str) -> Event:
    """A contribution is about to leave, or has left; a task is done, or failed."""
    match event:
        case TaskEvent.SEND:
            return _task("contribution.prepared", key, {"upload_id": upload_id})
        case TaskEvent.FINISH if upload_id:
            return _task("contribution.sent", key, {"upload_id": upload_id})
        case TaskEvent.FINISH:
            return _task("task.finished", key, {})
        case TaskEvent.REFUSE:
            return _task("contribution.refused", key, {"upload_id": upload_id}, Outcome.REFUSED)
        case _:
            return _task("task.failed", key, {"code": failure_code}, Outcome.FAILED)


def task_interrupted(key: TaskKey) -> Event:
    """The node was stopped in the middle of it."""
    return _task("task.failed", key, {"code": Unavailable.code}, Outcome.FAILED)


def link_changed(*, attached: bool) -> Event:
    """The stream to the coordinator began, or ended."""
    return Event("node.attached" if attached else "node.detached", SYSTEM, COORDINATOR.uri)


def membership_changed(*, joined: bool, actor: str, request_id: str) -> Event:
    """Staff decided that the hospital takes part in the federation, or does so no longer."""
    action = "federation.joined" if joined else "federation.left"
    return Event(action, actor, COORDINATOR.uri, request_id=request_id)


def _task(action: str, key: TaskKey, details: Mapping[str, Detail], outcome: Outcome = Outcome.DONE) -> Event:
    what = f"{key.kind.value} in round {key.round} of study {key.study_id}"
    return Event(action, SYSTEM, what, outcome, details={**details, "attempt": key.attempt})
