"""A study from the scientist's side: created, started, watched, and read once it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from libs.cli.client.catalogue import describe_federation
from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.core.errors import FailedPrecondition, InvalidInput
from libs.core.ids import new_id
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics, decode_metrics
from libs.fl.strategies.registry import strategy_of
from libs.fl.versions import Reader, first_module, first_version
from libs.mpc.ring import Ring
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.share_client import deal_vector, fetch_vector
from libs.rpc.statements import sign_statement

if TYPE_CHECKING:
    from torch import nn

    from libs.cli.client.session import Session
    from libs.fl.training_plan import TrainingPlan

STATE_NAMES = {
    coordinator_pb2.STUDY_STATE_CREATED: "created",
    coordinator_pb2.STUDY_STATE_AWAITING_APPROVAL: "awaiting approval",
    coordinator_pb2.STUDY_STATE_TRAINING: "training",
    coordinator_pb2.STUDY_STATE_CALIBRATING: "calibrating",
    coordinator_pb2.STUDY_STATE_RELEASING: "releasing",
    coordinator_pb2.STUDY_STATE_READY: "ready",
    coordinator_pb2.STUDY_STATE_FAILED: "failed",
    coordinator_pb2.STUDY_STATE_CANCELLED: "cancelled",
}
DECISION_NAMES = {
    coordinator_pb2.DECISION_PENDING: "pending",
    coordinator_pb2.DECISION_APPROVED: "approved",
    coordinator_pb2.DECISION_DENIED: "denied",
}
PHASE_NAMES = {
    coordinator_pb2.PHASE_FETCHING: "fetching the model",
    coordinator_pb2.PHASE_TRAINING: "training",
    coordinator_pb2.PHASE_SENDING: "sending shares",
    coordinator_pb2.PHASE_CALIBRATING: "calibrating",
}
ENDED = (
    coordinator_pb2.STUDY_STATE_READY,
    coordinator_pb2.STUDY_STATE_FAILED,
    coordinator_pb2.STUDY_STATE_CANCELLED,
)


def model_of(plan: TrainingPlan) -> nn.Module:
    """The architecture with the first version's weights: the plan and its seed decide them."""
    return first_module(plan)


@plain_errors
async def create_and_start(
    session: Session, *, plan: TrainingPlan, title: str, dataset_ids: Sequence[str]
) -> coordinator_pb2.Study:
    """Create the study, deal its first weights to the parties, and say so.

    Rounds begin when the owners approve.
    """
    version = first_version(plan)
    created = await session.coordinator.CreateStudy(
        _signed_request(
            session, plan=plan, title=title.strip(), dataset_ids=dataset_ids, parameters=len(version)
        ),
        timeout=CALL_TIMEOUT_S,
    )
    await deal_vector(
        version,
        ring=Ring.RING_32,
        ref=types_pb2.VectorRef(model_id=created.initial_model_id),
        channels=session.party_channels(created.parties),
    )
    started = await session.coordinator.StartStudy(
        coordinator_pb2.StartStudyRequest(study_id=created.study.study_id), timeout=CALL_TIMEOUT_S
    )
    return started.study


def _signed_request(
    session: Session, *, plan: TrainingPlan, title: str, dataset_ids: Sequence[str], parameters: int
) -> coordinator_pb2.CreateStudyRequest:
    """The request with its own words signed by the profile's key: hospitals believe those, and nobody who
    passes them on.
    """
    request_id, ids = new_id("request"), list(dataset_ids)
    words = {"request_id": request_id, "title": title, "plan_hash": plan.hash, "dataset_ids": ids}
    return coordinator_pb2.CreateStudyRequest(
        request_id=request_id,
        title=title,
        training_plan=plan.canonical_json(),
        dataset_ids=ids,
        parameters=parameters,
        statement=sign_statement("study", words, tls=session.profile.tls.files),
    )


@plain_errors
async def get_study(session: Session, study_id: str) -> coordinator_pb2.Study:
    """The study as it is now."""
    request = coordinator_pb2.GetStudyRequest(study_id=study_id)
    return (await session.coordinator.GetStudy(request, timeout=CALL_TIMEOUT_S)).study


async def watch(session: Session, study_id: str) -> AsyncIterator[coordinator_pb2.Study]:
    """The study now and at every change, until it ends. The last one given is its end."""
    call = session.coordinator.WatchStudy(coordinator_pb2.WatchStudyRequest(study_id=study_id))
    async for answer in call:
        yield answer.study
        if answer.study.state in ENDED:
            return


def require_ready(study: coordinator_pb2.Study) -> coordinator_pb2.Study:
    """The study itself when its model is released; says in plain words why not otherwise."""
    if study.state == coordinator_pb2.STUDY_STATE_READY:
        return study
    reason = study.failure or f"it is {STATE_NAMES.get(study.state, 'in an unknown state')}"
    raise FailedPrecondition(f"The study {study.study_id} has no model to ask: {reason}")


async def fetch_weights(session: Session, *, model_id: str, plan: TrainingPlan) -> npt.NDArray[np.float64]:
    """The weights that a training version means, in clear. Only its readers get the three shares.

    With a server optimiser they follow from all versions before it too, which are fetched one by one.
    """
    study_id, _, number = model_id.rpartition("/round-")
    if not number.isdecimal():
        raise InvalidInput(f"{model_id!r} is no version of training weights, like STUDY/round-3.")
    federation = await describe_federation(session)
    channels = session.party_channels(federation.parties)
    reader, last = Reader(plan), int(number)
    for version in range(0 if strategy_of(plan).reads_all_versions else last, last + 1):
        reference = types_pb2.VectorRef(model_id=f"{study_id}/round-{version}")
        encoded = await fetch_vector(reference, ring=Ring.RING_32, channels=channels)
        reader.read(encoded, round_number=version)
    return reader.opened.weights


async def fetch_metrics(session: Session, *, study_id: str, round_number: int) -> RoundMetrics:
    """A round's metrics, summed over its hospitals: opened from the three parties' shares, here for the first
    time.
    """
    federation = await describe_federation(session)
    reference = types_pb2.VectorRef(metrics=types_pb2.RoundRef(study_id=study_id, round=round_number))
    channels = session.party_channels(federation.parties)
    encoded = await fetch_vector(reference, ring=Ring.RING_32, channels=channels)
    if len(encoded) != METRICS_LENGTH:
        raise InvalidInput(
            f"The metrics of round {round_number} have {len(encoded)} elements, not {METRICS_LENGTH}: "
            "the hospitals run another version of Trefoil. Update this client."
        )
    return decode_metrics(encoded)
