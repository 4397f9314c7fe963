"""The federated part of the demo, through the same calls that the commands make."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from torch import nn

from libs.cli.client.catalogue import describe_federation, search_datasets
from libs.cli.client.session import CALL_TIMEOUT_S, Session, open_session
from libs.cli.client.studies import (
    create_and_start,
    fetch_metrics,
    fetch_weights,
    model_of,
    require_ready,
    watch,
)
from libs.cli.demo.material import DATASET_NAME, TAGS
from libs.cli.local_cluster import LocalCluster
from libs.cli.study_progress import StudyProgress
from libs.core.errors import DeadlineExceeded
from libs.core.ids import PARTIES, new_id
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics
from libs.fl.training_plan import TrainingPlan
from libs.fl.vectorise import load_state_vector, parameter_count
from libs.mpc.prg import SEED_BYTES
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2, hospital_pb2
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost
from libs.secure_nn.plan import Plan

_WITHOUT_PRIVACY = PrivacyCost(epsilon="inf")
_WAIT_S = 30.0
_POLL_S = 0.1
_PUBLISH_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Trained:
    """What the scientist holds at the end: metrics of all rounds, and (as a listed reader) the weights in
    clear.
    """

    study: coordinator_pb2.Study
    metrics: list[RoundMetrics]
    module: nn.Module


async def publish_everywhere(cluster: LocalCluster) -> None:
    """The staff of every hospital publishes its folder."""
    await asyncio.gather(*[_publish(cluster, hospital) for hospital in cluster.hospitals])


async def _publish(cluster: LocalCluster, hospital: str) -> None:
    path = cluster.folder(f"hospital-{hospital}") / "data" / DATASET_NAME
    request = hospital_pb2.PublishDatasetRequest(
        name=DATASET_NAME,
        description=f"Chest radiographs of {hospital}",
        tags=TAGS,
        path=str(path),
        licence="For this demonstration only",
        # Weights in training follow from these numbers, and the demo's figures from the weights.
        disclosure=hospital_pb2.COUNT_DISCLOSURE_EXACT,
    )
    async with open_session(cluster.profile(f"staff-{hospital}")) as staff:
        await staff.hospital.PublishDataset(request, timeout=_PUBLISH_TIMEOUT_S)


async def find_data(cluster: LocalCluster, scientist: Session) -> list[coordinator_pb2.Dataset]:
    """What a search by tags finds, once every hospital's description has reached the catalogue."""
    for _ in range(round(_WAIT_S / _POLL_S)):
        found = await search_datasets(scientist, tags=TAGS)
        if len(found) == len(cluster.hospitals) and all(dataset.online for dataset in found):
            return sorted(found, key=lambda dataset: dataset.dataset_id)
        await asyncio.sleep(_POLL_S)
    federation = await describe_federation(scientist)
    online = ", ".join(node.name for node in federation.nodes if node.online) or "none"
    raise DeadlineExceeded(
        f"Not all data sets reached the catalogue within {_WAIT_S:.0f} s. Attached hospitals: {online}."
    )


async def create_study(
    scientist: Session, *, plan: TrainingPlan, datasets: Sequence[coordinator_pb2.Dataset]
) -> coordinator_pb2.Study:
    """The scientist proposes the plan and deals the first weights."""
    ids = [dataset.dataset_id for dataset in datasets]
    return await create_and_start(scientist, plan=plan, title="Pneumonia detector (demo)", dataset_ids=ids)


async def approve_everywhere(cluster: LocalCluster, study: coordinator_pb2.Study) -> None:
    """The owner of every hospital's data reads what is asked, allows it and approves the plan by its hash."""
    await asyncio.gather(*[_approve(cluster, hospital, study) for hospital in cluster.hospitals])


async def _approve(cluster: LocalCluster, hospital: str, study: coordinator_pb2.Study) -> None:
    async with open_session(cluster.profile(f"staff-{hospital}")) as staff:
        asked = await _asked(staff, study)
        # The demo's plan adds no noise, so the owner says in so many words that none is needed.
        budget = access_pb2.SetBudgetRequest(
            call_id=new_id("call"), dataset_name=asked.dataset_name, budget=_WITHOUT_PRIVACY
        )
        await staff.access.SetBudget(budget, timeout=CALL_TIMEOUT_S)
        decision = access_pb2.DecideRequestRequest(
            call_id=new_id("call"),
            request_id=asked.request_id,
            plan_hash=study.plan_hash,
            approve=True,
            granted=_WITHOUT_PRIVACY,
        )
        await staff.access.DecideRequest(decision, timeout=CALL_TIMEOUT_S)


async def _asked(staff: Session, study: coordinator_pb2.Study) -> access_pb2.AccessRequest:
    """The study as the request that waits at the node."""
    for _ in range(round(_WAIT_S / _POLL_S)):
        answer = await staff.access.ListRequests(
            access_pb2.ListRequestsRequest(pending_only=True), timeout=CALL_TIMEOUT_S
        )
        for request in answer.requests:
            if request.study_id == study.study_id:
                return request
        await asyncio.sleep(_POLL_S)
    raise DeadlineExceeded(f"Study {study.study_id} did not reach every hospital within {_WAIT_S:.0f} s.")


async def train(scientist: Session, study: coordinator_pb2.Study, console: Console) -> coordinator_pb2.Study:
    """Watch until the model is released."""
    return require_ready(await StudyProgress(console).follow(watch(scientist, study.study_id)))


async def open_results(scientist: Session, *, study: coordinator_pb2.Study, plan: TrainingPlan) -> Trained:
    """Open the summed metrics of every round and the last training weights from the three parties' shares."""
    metrics = [
        await fetch_metrics(scientist, study_id=study.study_id, round_number=number)
        for number in range(1, study.rounds_done + 1)
    ]
    module = model_of(plan)
    load_state_vector(module, await fetch_weights(scientist, model_id=study.latest_model_id, plan=plan))
    return Trained(study=study, metrics=metrics, module=module)


def training_bytes(study: coordinator_pb2.Study, plan: TrainingPlan, released: Plan) -> dict[str, int]:
    """Payload bytes from the first weights to the released model, by link (framing and TLS come on top).

    Counted from what the study says: the contributions that were added, and one reading of the weights by
    each hospital for a round, for calibration and for the release. Retries are not in it.
    """
    weights = 4 * parameter_count(model_of(plan))
    metrics = 4 * METRICS_LENGTH
    rounds, last = study.rounds[: study.rounds_done], study.rounds[study.rounds_done :]
    contributions = sum(len(number.survivor_identities) for number in rounds)
    releases = sum(len(number.survivor_identities) for number in last)
    release = released.parameter_length * released.ring.element_bytes
    seeds = 2 * SEED_BYTES  # a vector is dealt as itself, masked, and two seeds
    parties = len(PARTIES)
    return {
        "scientist_to_parties": weights + seeds,
        "hospitals_to_parties": contributions * (weights + metrics + seeds) + releases * (release + seeds),
        "parties_to_hospitals": (contributions + 2 * releases) * parties * weights,
        "parties_to_scientist": parties * (len(rounds) * metrics + weights),
        "between_parties": sum(number.bytes_between_parties for number in study.rounds),
    }
