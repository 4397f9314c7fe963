"""The federated part of the demo, through the same calls that the commands make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from torch import nn

from libs.cli.client.access import list_access_requests, request_access
from libs.cli.client.catalogue import search_datasets
from libs.cli.client.session import Session
from libs.cli.client.studies import (
    create_and_start,
    fetch_metrics,
    fetch_weights,
    model_of,
    require_ready,
    watch,
)
from libs.cli.demo.material import TAGS
from libs.cli.demo.staff import until
from libs.cli.local_cluster import LocalCluster
from libs.cli.study_progress import StudyProgress
from libs.core.ids import PARTIES
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics
from libs.fl.training_plan import TrainingPlan
from libs.fl.vectorise import load_state_vector, parameter_count
from libs.mpc.prg import SEED_BYTES
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.secure_nn.plan import Plan


@dataclass(frozen=True)
class Trained:
    """What the scientist holds at the end: metrics of all rounds, and (as a listed reader) the weights in
    clear.
    """

    study: coordinator_pb2.Study
    metrics: list[RoundMetrics]
    module: nn.Module


async def find_data(cluster: LocalCluster, scientist: Session) -> list[coordinator_pb2.Dataset]:
    """What a search by tags finds, once every hospital's description has reached the catalogue."""

    async def look() -> list[coordinator_pb2.Dataset] | None:
        found = await search_datasets(scientist, tags=TAGS)
        complete = len(found) == len(cluster.hospitals) and all(dataset.online for dataset in found)
        return sorted(found, key=lambda dataset: dataset.dataset_id) if complete else None

    return await until(look, "Not all data sets reached the catalogue")


async def ask_for_access(
    scientist: Session, *, plan: TrainingPlan, datasets: Sequence[coordinator_pb2.Dataset]
) -> None:
    """The scientist asks every owner to let this plan learn from their data, in words that are signed."""
    for dataset in datasets:
        await request_access(
            scientist, dataset_id=dataset.dataset_id, plan=plan, reason="A pneumonia detector (demo)"
        )


async def require_approved(scientist: Session, *, requests: int) -> None:
    """Wait until the owners' approvals have reached the coordinator."""

    async def look() -> bool | None:
        mine = await list_access_requests(scientist)
        approved = [r for r in mine if r.decision.state == coordinator_pb2.ACCESS_STATE_APPROVED]
        return True if len(approved) == requests else None

    await until(look, "Not all approvals reached the coordinator")


async def create_study(
    scientist: Session, *, plan: TrainingPlan, datasets: Sequence[coordinator_pb2.Dataset]
) -> coordinator_pb2.Study:
    """The scientist proposes the plan and deals the first weights."""
    ids = [dataset.dataset_id for dataset in datasets]
    return await create_and_start(scientist, plan=plan, title="Pneumonia detector (demo)", dataset_ids=ids)


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
