"""The demo from beginning to end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from libs.cli.client.session import open_session
from libs.cli.demo import journey
from libs.cli.demo.asking import Asked, ask_about_all
from libs.cli.demo.baselines import train_baselines
from libs.cli.demo.figures import measure
from libs.cli.demo.material import TAGS, Material, hand_out, load_material
from libs.cli.demo.options import DemoOptions
from libs.cli.demo.page import build_page
from libs.cli.demo.phases import Phases
from libs.cli.demo.results_folder import federation_folder, new_run_folder, write_results
from libs.cli.demo.summary import build_summary
from libs.cli.demo.tables import print_tables
from libs.cli.local_cluster import LocalCluster, hospital_names
from libs.cli.local_cluster.layout import PARTY_NAMES
from libs.cli.local_cluster.termination import sigterm_as_exit
from libs.cli.output import human_seconds, print_json, remarks, results
from libs.fl.presets import default_plan
from libs.fl.training_plan import ModelAccess, TrainingPlan
from libs.models.registry import architecture_of
from libs.rpc.identity import Identity, Kind

CLINIC = Identity(Kind.CLIENT, "clinic").uri


@dataclass(frozen=True)
class _Federated:
    trained: journey.Trained
    asked: Asked


def run_demo(options: DemoOptions, *, as_json: bool) -> Path:
    """Run it, print the tables (or the summary), and return the folder with the results."""
    console = remarks()
    architecture_of(options.model_name, size=options.image_size)  # before anything is made or started
    started, now = time.perf_counter(), datetime.now(UTC)
    hospitals = hospital_names(options.hospitals)
    phases = Phases(console)
    with phases.phase("data", f"Reading and dividing the data for {len(hospitals)} hospitals"):
        material = load_material(options, hospitals)
    plan = make_plan(options, material)
    folder = new_run_folder(options.output, now)
    # The files of the processes are gone before the comparison begins, and also when anything fails.
    with sigterm_as_exit(), federation_folder(folder, keep=options.keep) as federation:
        federated = _run_federated(federation, material, plan, phases, console)
    with phases.phase(
        "baselines", "The same training in clear: each hospital alone, and all data in one place"
    ):
        baselines = train_baselines(
            material, plan, on_done=lambda name: console.print(f"  {name}", style="dim")
        )
    figures = measure(federated.trained, federated.asked, baselines, material.test)
    seconds = {**phases.seconds, "total": round(time.perf_counter() - started, 3)}
    summary = build_summary(
        options=options,
        plan=plan,
        material=material,
        trained=federated.trained,
        asked=federated.asked,
        figures=figures,
        seconds=seconds,
        created_at=now.isoformat(timespec="seconds"),
    )
    page = build_page(
        plan=plan,
        material=material,
        trained=federated.trained,
        asked=federated.asked,
        baselines=baselines,
        figures=figures,
        seconds=seconds,
        summary=summary,
    )
    write_results(folder, summary=summary, page=page)
    if as_json:
        print_json(summary)
    else:
        print_tables(
            results(),
            figures=figures,
            seconds=seconds,
            trained=federated.trained,
            asked=federated.asked,
            plan=plan,
        )
    console.print(f"Done in {human_seconds(seconds['total'])}. Page: {folder / 'index.html'}", markup=False)
    return folder


def make_plan(options: DemoOptions, material: Material) -> TrainingPlan:
    """The preset for the model, with this demo's seed, rounds and tags."""
    plan = default_plan(
        model=options.model_name,
        image_size=options.image_size,
        images=material.train_images,
        rounds=options.rounds,
        seed=options.seed,
        dataset_tags=TAGS,
        model_access=ModelAccess(ask=(CLINIC,)),
    )
    return TrainingPlan.checked({**plan.model_dump(), "quorum": min(plan.quorum, options.hospitals)})


def _run_federated(
    root: Path, material: Material, plan: TrainingPlan, phases: Phases, console: Console
) -> _Federated:
    """Everything that needs the processes; they are gone when this returns or raises."""
    # By itself a dealer chooses how signs are found by the links, and so rounds and bytes; the same seed is
    # to give the same summary.
    overrides = {party: {"comparison": "narrow"} for party in PARTY_NAMES}
    cluster = LocalCluster(root, hospitals=tuple(material.parts), overrides=overrides)
    count = len(cluster.services)
    try:
        with phases.phase("start", f"Making keys and starting {count} processes, linked by mutual TLS 1.3"):
            cluster.__enter__()
        hand_out(material, {name: cluster.folder(f"hospital-{name}") / "data" for name in cluster.hospitals})
        return asyncio.run(cluster.guard(_journey(cluster, material, plan, phases, console)))
    finally:
        cluster.__exit__(None, None, None)


async def _journey(
    cluster: LocalCluster, material: Material, plan: TrainingPlan, phases: Phases, console: Console
) -> _Federated:
    async with (
        open_session(cluster.profile("scientist")) as scientist,
        open_session(cluster.profile("clinic")) as clinic,
    ):
        with phases.phase("publish", f"Publishing at each hospital, then searching for {', '.join(TAGS)}"):
            await journey.publish_everywhere(cluster)
            datasets = await journey.find_data(cluster, scientist)
        with phases.phase("approve", f"Proposing plan {plan.hash[:12]} and having every owner approve it"):
            study = await journey.create_study(scientist, plan=plan, datasets=datasets)
            await journey.approve_everywhere(cluster, study)
        with phases.phase("train", f"Training {plan.model} for {plan.rounds} rounds, then releasing it"):
            study = await journey.train(scientist, study, console)
        trained = await journey.open_results(scientist, study=study, plan=plan)
        with phases.phase("predict", f"Asking about {len(material.test)} images under encryption"):
            asked = await ask_about_all(
                clinic, model_id=study.released_model_id, test=material.test, console=console
            )
    return _Federated(trained=trained, asked=asked)
