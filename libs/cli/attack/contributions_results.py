"""What a malicious hospital did to the model: table, page and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.cli.attack.page import build_page, heading, paragraph, table
from libs.cli.attack.showing import show_summary
from libs.cli.demo.results_folder import new_run_folder, write_results
from libs.cli.output import human_moment
from libs.data.imageset import ImageSet
from libs.fl.attacks.contributions_trial import Pair, Result, change
from libs.fl.training_plan import TrainingPlan

COLUMNS = (
    "attack",
    ">AUC without check",
    ">change",
    ">AUC with check",
    ">change",
    ">refused in",
    ">trigger works, without",
    ">trigger works, with",
)
TOLERANCE = 0.02
"""By how much the check may leave the AUC below the clean run's, to count as having held."""


def rows(pairs: Sequence[Pair]) -> list[list[str]]:
    """One for each of `pairs`, the first being the clean run, in the order of COLUMNS."""
    clean = pairs[0]
    return [
        [
            "none" if pair.attack is None else pair.attack.name,
            _auc(pair.unchecked),
            _change(pair.unchecked, clean.unchecked),
            _auc(pair.checked),
            _change(pair.checked, clean.checked),
            f"{pair.checked.refused_rounds} of {pair.checked.rounds}",
            _trigger(pair.unchecked),
            _trigger(pair.checked),
        ]
        for pair in pairs
    ]


def verdict(pair: Pair, clean: Pair) -> str:
    """A plain sentence on what the check did about an attack."""
    if pair.attack is None:
        return f"{pair.checked.honest_refused} rounds refused an honest hospital."
    moved = change(pair.checked, clean.checked)
    held = moved is not None and moved >= -TOLERANCE
    backdoor = pair.attack.backdoor and not pair.checked.refused_rounds
    if pair.checked.refused_rounds:
        return (
            f"refused; the AUC {'stays within' if held else 'is NOT within'} {TOLERANCE} of the clean run's."
        )
    if backdoor:
        return "passes the check, which does not look for triggers."
    return (
        f"passes the check; the AUC {'stays within' if held else 'is NOT within'} {TOLERANCE} all the same."
    )


def write(
    output: Path,
    *,
    source: str,
    plan: TrainingPlan,
    hospitals: Mapping[str, ImageSet],
    pairs: Sequence[Pair],
    cpu_s: float,
) -> Path:
    """Page and summary.json in a folder of their own, which is returned."""
    now = datetime.now(UTC)
    folder = new_run_folder(output, now)
    assert plan.contribution_check is not None
    summary = {
        "attack": "contributions",
        "data": source,
        "images": {name: len(part) for name, part in hospitals.items()},
        "plan": plan.model_dump(mode="json"),
        "max_norm": plan.contribution_check.max_norm,
        "first_max_norm": plan.contribution_check.first_max_norm,
        "results": [_as_json(pair, pairs[0]) for pair in pairs],
        "table": rows(pairs),
        "cpu_s": cpu_s,
        "created_at": now.isoformat(),
    }
    write_results(folder, summary=summary, page=_page(source, plan, hospitals, pairs, now))
    return folder


def show(folder: Path, *, as_json: bool) -> None:
    """The summary as a table, or as it is; and where the page lies."""
    show_summary(
        folder,
        as_json=as_json,
        columns=COLUMNS,
        title="One malicious hospital",
        verdicts=lambda summary: ((one["name"], one["verdict"]) for one in summary["results"]),
    )


def _as_json(pair: Pair, clean: Pair) -> dict[str, Any]:
    return {
        "name": "none" if pair.attack is None else pair.attack.name,
        "does": "" if pair.attack is None else pair.attack.does,
        "without_check": asdict(pair.unchecked) | {"change": change(pair.unchecked, clean.unchecked)},
        "with_check": asdict(pair.checked) | {"change": change(pair.checked, clean.checked)},
        "verdict": verdict(pair, clean),
    }


def _auc(result: Result) -> str:
    return f"ruined in round {result.rounds + 1}" if result.auc is None else f"{result.auc:.3f}"


def _change(result: Result, clean: Result) -> str:
    moved = change(result, clean)
    return "" if moved is None else f"{moved:+.3f}"


def _trigger(result: Result) -> str:
    return "" if result.triggered is None else f"{result.triggered:.0%}"


def _page(
    source: str,
    plan: TrainingPlan,
    hospitals: Mapping[str, ImageSet],
    pairs: Sequence[Pair],
    now: datetime,
) -> str:
    check = plan.contribution_check
    assert check is not None
    images = sum(len(part) for part in hospitals.values())
    does = [["none" if pair.attack is None else pair.attack.name, verdict(pair, pairs[0])] for pair in pairs]
    return build_page(
        title="One malicious hospital",
        lead=f"{len(hospitals)} hospitals train {plan.model} for {plan.rounds} rounds on {images} X-rays "
        f"({source}). One of them attacks. The check refuses updates longer than {check.max_norm:.2f}, in "
        f"the first round {check.first_max_norm:.2f}.",
        created_at=human_moment(now),
        command="trefoil attack contributions",
        body=[
            table(
                COLUMNS,
                rows(pairs),
                caption="Changes are against the clean run. Ruined: honest hospitals could not go on, "
                "since the model's numbers had left every range. Trigger works: ill images found, and "
                "called healthy once marked.",
            ),
            heading("What the check did"),
            table(("attack", "result"), does, caption=""),
            heading("What this means, and what it does not"),
            paragraph(
                "The check bounds the length of a contribution under encryption. It stops whoever shouts, "
                "and nobody who lies in an ordinary voice: wrong labels and backdoors of ordinary length "
                "go into the mean with the weight of that hospital's images. Against those help many "
                "hospitals, agreement on who takes part, and a look at the model's answers before it is "
                "used."
            ),
        ],
    )
