"""An evaluation from beginning to end: what is stored is taken, what is missing done, then all is written."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from libs.cli.bench.machine import describe_machine
from libs.cli.evaluate.charts import draw_all
from libs.cli.evaluate.figures import measure_all
from libs.cli.evaluate.material import Material, load_material
from libs.cli.evaluate.options import EvaluateOptions
from libs.cli.evaluate.page import build_page
from libs.cli.evaluate.report import Report, report_markdown, results_json, table_csv
from libs.cli.evaluate.rows import Asking, Row, Step, Study, rows_of
from libs.cli.evaluate.schedule import train_all, usual_workers
from libs.cli.evaluate.store import Outcome, StepStore
from libs.cli.evaluate.tables import (
    COST_COLUMNS,
    QUALITY_COLUMNS,
    agreement_lines,
    cost_rows,
    quality_rows,
)
from libs.cli.evaluate.training import Recipe, TrainingJob
from libs.cli.local_cluster import hospital_names
from libs.cli.output import make_table, print_json, remarks, results
from libs.models.registry import architecture_of


def run_evaluation(options: EvaluateOptions, *, as_json: bool) -> Path:
    """Do what is missing, write all documents, print the table (or results.json), and return the folder."""
    console = remarks()
    architecture_of(options.model_name, size=options.image_size)  # before anything is read or trained
    hospitals = hospital_names(options.hospitals)
    console.print("Reading and dividing the data", style="dim")
    material = load_material(options)
    rows = rows_of(options, material, hospitals)
    outcomes = do_steps(rows, material, options, console)
    table = measure_all(
        rows, outcomes.__getitem__, material.test, resamples=options.resamples, seed=options.seed
    )
    report = Report(
        options=options,
        material=material,
        hospitals=hospitals,
        table=table,
        machine=describe_machine(),
        command=shlex.join(["trefoil", *sys.argv[1:]]),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    document = write_documents(report, options.output)
    if as_json:
        print_json(document)
    else:
        title = f"On {len(material.test)} test images of {material.test.patient_count} patients"
        results().print(make_table(QUALITY_COLUMNS, quality_rows(table), title=title))
        results().print(make_table(COST_COLUMNS, cost_rows(table), title="Calibration and cost"))
        for line in agreement_lines(table):
            results().print(line, markup=False)
    console.print(f"Page: {options.output / 'index.html'}", markup=False)
    return options.output


def write_documents(report: Report, folder: Path) -> dict[str, object]:
    """Everything but the steps' results; gives what results.json holds."""
    charts = draw_all(report.table, report.material.test, folder)
    document = results_json(report)
    (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (folder / "table.csv").write_text(table_csv(report.table), encoding="utf-8")
    (folder / "report.md").write_text(report_markdown(report, list(charts)), encoding="utf-8")
    (folder / "index.html").write_text(build_page(report, charts), encoding="utf-8")
    return document


def do_steps(
    rows: Sequence[Row], material: Material, options: EvaluateOptions, console: Console
) -> dict[str, Outcome]:
    """Outcomes of all steps that the rows need, by the keys' hashes."""
    options.output.mkdir(parents=True, exist_ok=True)
    store = StepStore(options.output / "steps")
    steps = _needed(rows)
    outcomes = {step.key.hash: outcome for step in steps if (outcome := store.find(step.key)) is not None}
    missing = [step for step in steps if step.key.hash not in outcomes]
    _announce(len(outcomes), missing, store, console)
    training = [step for step in missing if isinstance(step.work, TrainingJob)]
    outcomes |= train_all(
        sorted(training, key=_longest_first),
        material,
        store,
        workers=options.workers or usual_workers(),
        console=console,
    )
    for number, group in enumerate(_by_seed([step for step in missing if step not in training])):
        # Loads the services' code, which rows without them need not wait for.
        from libs.cli.evaluate.cluster import run_on_cluster

        def finished(step: Step, outcome: Outcome) -> None:
            store.keep(step.key, outcome)
            outcomes[step.key.hash] = outcome

        folder = options.output / "cluster" / str(number)
        run_on_cluster(group, outcomes, material, folder=folder, finished=finished, console=console)
    return outcomes


def _needed(rows: Sequence[Row]) -> list[Step]:
    """Every step once, what others need before them."""
    found: dict[str, Step] = {}
    for row in rows:
        for step in row.steps:
            if isinstance(step.work, Asking):
                found.setdefault(step.work.of.key.hash, step.work.of)
            found.setdefault(step.key.hash, step)
    return list(found.values())


def _longest_first(step: Step) -> tuple[bool, bool, int]:
    """Privacy takes longest, then what sees most images: short ones fill the gaps at the end."""
    assert isinstance(step.work, TrainingJob)
    images = sum(len(indices) for indices in step.work.division.values())
    return (step.work.plan.privacy is None, step.work.recipe is Recipe.ONE_OWNER, -images)


def _by_seed(steps: Sequence[Step]) -> list[list[Step]]:
    """A cluster for each seed that has something to do: its study first, then its questions."""
    groups: dict[int, list[Step]] = {}
    for step in sorted(steps, key=lambda step: not isinstance(step.work, Study)):
        work = step.work.of.work if isinstance(step.work, Asking) else step.work
        assert not isinstance(work, Asking)
        groups.setdefault(work.plan.seed, []).append(step)
    return list(groups.values())


def _announce(stored: int, missing: Sequence[Step], store: StepStore, console: Console) -> None:
    console.print(f"{stored} results are there, {len(missing)} are to be made", style="dim")
    for step in missing:
        if changed := store.why_again(step.key):
            console.print(f"  {step.key.name}: again, for {', '.join(changed)} changed", style="dim")
