"""The steps that need real services: a study over coordinator, hospitals and parties, then questions."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from libs.cli.client.predictions import open_prediction
from libs.cli.client.session import Session, open_session
from libs.cli.demo import journey, staff
from libs.cli.demo.material import Material as DemoMaterial
from libs.cli.demo.material import hand_out
from libs.cli.demo.results_folder import federation_folder
from libs.cli.evaluate.asking import ask_all, deal_model
from libs.cli.evaluate.material import Division, Material
from libs.cli.evaluate.rows import Asking, Step, Study
from libs.cli.evaluate.store import Array, Outcome
from libs.cli.evaluate.training import TrainingJob, history_facts, threshold_facts
from libs.cli.local_cluster import LocalCluster
from libs.cli.local_cluster.layout import COORDINATOR, PARTY_NAMES
from libs.cli.local_cluster.termination import sigterm_as_exit
from libs.cli.settings_files import Settings
from libs.data.imageset import ImageSet
from libs.fl.evaluation import predict_probabilities, threshold_from_metrics
from libs.fl.vectorise import state_vector

_DEADLINE_S = 3600.0
_Finished = Callable[[Step, Outcome], None]


@dataclass
class _Work:
    """What is to be done on one cluster, and what is known already, by the keys' hashes."""

    steps: Sequence[Step]
    outcomes: dict[str, Outcome]
    material: Material
    finished: _Finished
    console: Console


def run_on_cluster(
    steps: Sequence[Step],
    outcomes: dict[str, Outcome],
    material: Material,
    *,
    folder: Path,
    finished: _Finished,
    console: Console,
) -> None:
    """Do the steps of one seed on a cluster of their own: first its study, if there is one, then questions.

    `outcomes` holds what the questions are about and gets what comes out. Only logs stay in `folder`.
    """
    study = next((step.work for step in steps if isinstance(step.work, Study)), None)
    hospitals = () if study is None else tuple(study.division)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed: keys, shares and images
    folder.mkdir(parents=True, mode=0o700)
    work = _Work(steps, outcomes, material, finished, console)
    with sigterm_as_exit(), federation_folder(folder, keep=False) as root:
        console.print(f"Starting {4 + len(hospitals)} processes, linked by mutual TLS 1.3", style="dim")
        with LocalCluster(root, hospitals=hospitals, overrides=_settings()) as cluster:
            asyncio.run(cluster.guard(_run(cluster, work, study)))


def _settings() -> dict[str, Settings]:
    roomy: Settings = {"prediction_deadline_s": _DEADLINE_S}
    # By itself a dealer chooses by the links how signs are found, and so rounds and bytes: to repeat them.
    party: Settings = {**roomy, "comparison": "narrow"}
    return {COORDINATOR: roomy, **dict.fromkeys(PARTY_NAMES, party)}


async def _run(cluster: LocalCluster, work: _Work, study: Study | None) -> None:
    released: dict[str, str] = {}
    async with open_session(cluster.profile("scientist")) as scientist:
        if study is not None:
            step = next(step for step in work.steps if step.work is study)
            outcome, released[step.key.hash] = await _train(cluster, scientist, study, work)
            work.outcomes[step.key.hash] = outcome
            work.finished(step, outcome)
        for step in work.steps:
            if isinstance(step.work, Asking):
                work.console.print(
                    f"Asking about {len(work.material.test)} images: {step.key.name}", style="dim"
                )
                outcome = await _ask(scientist, step.work, released, work)
                work.finished(step, outcome)


async def _train(cluster: LocalCluster, scientist: Session, study: Study, work: _Work) -> tuple[Outcome, str]:
    """The study's outcome, and the id of the model that it released."""
    plan, parts = study.plan, _parts(study.division, work.material)
    demo = DemoMaterial(source=work.material.source, parts=parts, test=work.material.test)
    hand_out(demo, {name: cluster.folder(f"hospital-{name}") / "data" for name in cluster.hospitals})
    await staff.claim_nodes(cluster)
    await staff.publish_everywhere(cluster)
    datasets = await journey.find_data(cluster, scientist)
    await journey.ask_for_access(scientist, plan=plan, datasets=datasets)
    await staff.approve_everywhere(cluster, plan_hash=plan.hash)
    await journey.require_approved(scientist, requests=len(datasets))
    started = time.perf_counter()
    created = await journey.create_study(scientist, plan=plan, datasets=datasets)
    ended = await journey.train(scientist, created, work.console)
    seconds = time.perf_counter() - started
    trained = await journey.open_results(scientist, study=ended, plan=plan)
    released = (await open_prediction(scientist, model_id=ended.released_model_id, batch=1)).plan
    links = journey.training_bytes(ended, plan, released)
    facts = {
        **threshold_facts(threshold_from_metrics(trained.metrics[-1])),
        "seconds": round(seconds, 3),
        "bytes": sum(links.values()),
        "bytes_by_link": links,
        "rounds": ended.rounds_done,
        "model": plan.model,
        "images": {name: part.class_counts for name, part in parts.items()},
        "plan_hash": plan.hash,
        "by_round": history_facts(trained.metrics),
    }
    arrays: dict[str, Array] = {
        "probabilities": predict_probabilities(trained.module, work.material.test.images),
        "weights": state_vector(trained.module),
    }
    return Outcome(facts, arrays), ended.released_model_id


async def _ask(scientist: Session, asking: Asking, released: dict[str, str], work: _Work) -> Outcome:
    """Of the model that a study of this cluster released, or of one whose stored weights are dealt anew."""
    source = asking.of
    assert isinstance(source.work, TrainingJob | Study)  # answers are not asked about
    outcome, plan = work.outcomes[source.key.hash], source.work.plan
    model_id = released.get(source.key.hash)
    if model_id is None:
        parts = _parts(source.work.division, work.material)
        model_id = await deal_model(
            scientist, name=source.key.name, plan=plan, weights=outcome.arrays["weights"], parts=parts
        )
    return await ask_all(
        scientist,
        model_id=model_id,
        plan=plan,
        source=outcome,
        test=work.material.test,
        console=work.console,
    )


def _parts(division: Division, material: Material) -> dict[str, ImageSet]:
    return {name: material.train.select(indices) for name, indices in division.items()}
