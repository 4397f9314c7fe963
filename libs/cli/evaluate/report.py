"""report.md, table.csv and results.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from libs.cli.evaluate.figures import QUALITIES, RowFigures, to_json
from libs.cli.evaluate.material import Material
from libs.cli.evaluate.options import EvaluateOptions
from libs.cli.evaluate.tables import (
    COST_COLUMNS,
    ERROR_COLUMNS,
    QUALITY_COLUMNS,
    Rows,
    agreement_lines,
    cost_rows,
    error_rows,
    quality_rows,
)
from libs.fl.reliability import majority_brier

FORMAT = "trefoil-evaluation-1"
VOLATILE = ("created_at", "machine", "command", "seconds", "cpu_s", "latency_s", "largest_logit_difference")
"""Keys, wherever they are, that two runs of one seed may differ in. What is asked under encryption rounds
with fresh randomness besides: its figures agree with another run's as they do with the clear ones.
"""


@dataclass(frozen=True)
class Report:
    """What the documents are written from. `command` runs it again."""

    options: EvaluateOptions
    material: Material
    hospitals: tuple[str, ...]
    table: Sequence[RowFigures]
    machine: Mapping[str, Any]
    command: str
    created_at: str


def results_json(report: Report) -> dict[str, Any]:
    """All figures for machines."""
    options, material = report.options, report.material
    return {
        "format": FORMAT,
        "volatile": list(VOLATILE),
        "created_at": report.created_at,
        "command": report.command,
        "machine": dict(report.machine),
        "data": {
            "source": material.source,
            "image_size": options.image_size,
            "train_images": len(material.train),
            "train_patients": material.train.patient_count,
            "train_classes": material.train.class_counts,
            "test_images": len(material.test),
            "test_patients": material.test.patient_count,
            "test_classes": material.test.class_counts,
            "majority_brier": majority_brier(material.test.labels),
        },
        "hospitals": list(report.hospitals),
        "seeds": list(options.seeds),
        "quick": options.quick,
        "rows": [to_json(figures) for figures in report.table],
    }


def table_csv(table: Sequence[RowFigures]) -> str:
    """A line for each row, numbers in full."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            *("id", "title", "seeds", "auc", "auc_low", "auc_high", "auc_sd_between_seeds", *QUALITIES),
            *("threshold", "brier", "expected_calibration_error", "auc_minus_centralised", "p"),
            *("seconds", "bytes", "target_epsilon", "epsilon", "delta"),
        ]
    )
    for figures in table:
        against = figures.against
        numbers = [
            *(figures.auc.estimate, figures.auc.low, figures.auc.high, figures.auc_sd),
            *(figures.mean(name) for name in (*QUALITIES, "threshold")),
            *(figures.reliability.brier, figures.reliability.expected_error),
            *((None, None) if against is None else (against.difference.estimate, against.p)),
            *(figures.cost("seconds"), figures.cost("bytes")),
            *(figures.row.epsilon, figures.epsilon, figures.cost("delta")),
        ]
        writer.writerow(
            [
                *(figures.row.id, figures.row.title, len(figures.outcomes)),
                *("" if number is None else f"{number:.6g}" for number in numbers),
            ]
        )
    return stream.getvalue()


def report_markdown(report: Report, pictures: Sequence[str]) -> str:
    """The report for people. `pictures`: names of the files beside it, without .png."""
    template = resources.files("libs.cli.evaluate").joinpath("report.md").read_text(encoding="utf-8")
    table = report.table
    values = {
        **texts(report),
        "quality": _table(QUALITY_COLUMNS, quality_rows(table)),
        "errors": _table(ERROR_COLUMNS, error_rows(table)),
        "cost": _table(COST_COLUMNS, cost_rows(table)),
        "agreement": "\n".join(f"- {line}" for line in agreement_lines(table)),
        "plans": "\n".join(f"- {line}" for line in plan_lines(table)),
        "pictures": "\n\n".join(f"![{name.replace('_', ' ')}]({name}.png)" for name in pictures),
    }
    return Template(template).substitute(values)


def texts(report: Report) -> dict[str, str]:
    """The words that report and page share."""
    options, train, test = report.options, report.material.train, report.material.test
    seeds, machine = options.seeds, report.machine
    return {
        "source": report.material.source,
        "size": str(options.image_size),
        "train_images": str(len(train)),
        "train_patients": str(train.patient_count),
        "test_images": str(len(test)),
        "test_patients": str(test.patient_count),
        "test_pneumonia": str(test.class_counts["PNEUMONIA"]),
        "hospitals": str(len(report.hospitals)),
        "majority_brier": f"{majority_brier(test.labels):.3f}",
        "seeds": str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}",
        "seed_words": (
            "One seed: how much chance in training moves these figures is not in the intervals."
            if len(seeds) == 1
            else f"Figures are means over {len(seeds)} seeds, ± is the standard deviation between them, and "
            "the interval holds both the choice of test patients and that of seeds."
        ),
        "quick": (
            " This is the quick form: fewer images, rounds and epsilons. It shows that all works, and is no "
            "result."
            if options.quick
            else ""
        ),
        "command": report.command,
        "machine": f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}",
        "load": f"{machine['load_average_1min']:.1f}",
        "created_at": report.created_at,
    }


def plan_lines(table: Sequence[RowFigures]) -> list[str]:
    """Each different plan of the first seed, and the rows that it trained."""
    rows_of: dict[str, list[str]] = {}
    for figures in table:
        facts = figures.outcomes[0].facts
        counts = ", ".join(
            f"{name} {sum(classes.values())} ({classes['PNEUMONIA']} with pneumonia)"
            for name, classes in facts["images"].items()
        )
        words = f"{facts['model']}, plan `{facts['plan_hash'][:12]}`, images: {counts}"
        rows_of.setdefault(words, []).append(figures.row.title.removeprefix("+ "))
    return [f"{'; '.join(names)}: {words}" for words, names in rows_of.items()]


def _table(columns: Sequence[str], rows: Rows) -> str:
    head = "| " + " | ".join(column.lstrip(">") for column in columns) + " |"
    line = "| " + " | ".join("---:" if column.startswith(">") else "---" for column in columns) + " |"
    return "\n".join([head, line, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
