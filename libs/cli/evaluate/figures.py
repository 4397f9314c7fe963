"""From answers to figures: quality with its error, calibration, cost, and the comparison with all data in one
place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.cli.evaluate.options import RowKind
from libs.cli.evaluate.rows import Row
from libs.cli.evaluate.store import Outcome
from libs.data.imageset import ImageSet
from libs.fl.auc_inference import AucEstimates, Comparison, Interval, estimate_aucs
from libs.fl.evaluation import Evaluation, evaluate
from libs.fl.reliability import Reliability, reliability
from libs.fl.resampling import bootstrap

QUALITIES = ("accuracy", "sensitivity", "specificity", "mcc")


@dataclass(frozen=True)
class RowFigures:
    """One line of the table. With several seeds figures are means over them.

    `auc`: DeLong's interval, patients counted once. `auc_sd`: between seeds, None for one. `bootstrap`: of
    the first seed. `reliability`: bins over the answers of all seeds together. `against`: this row's AUC
    minus that of all data in one place.
    """

    row: Row
    evaluations: tuple[Evaluation, ...]
    outcomes: tuple[Outcome, ...]
    auc: Interval
    auc_sd: float | None
    bootstrap: Mapping[str, Interval]
    reliability: Reliability
    against: Comparison | None

    def mean(self, name: str) -> float:
        """Of a figure in `Evaluation`, over the seeds."""
        return float(np.mean([getattr(evaluation, name) for evaluation in self.evaluations]))

    def cost(self, name: str) -> float | None:
        """Mean over the seeds of a number among the facts; None where a row has no such number."""
        values = [outcome.facts[name] for outcome in self.outcomes if name in outcome.facts]
        return float(np.mean(values)) if values else None

    @property
    def epsilon(self) -> float | None:
        """The largest that any hospital paid for any seed's model; None without privacy."""
        return max((o.facts["epsilon"] for o in self.outcomes if "epsilon" in o.facts), default=None)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Of the first seed's model, for curves."""
        return self.outcomes[0].probabilities


def measure_all(
    rows: Sequence[Row],
    outcome_of: Callable[[str], Outcome],
    test: ImageSet,
    *,
    resamples: int,
    seed: int,
) -> list[RowFigures]:
    """Figures of every row. `outcome_of` finds a step's result by its key's hash."""
    outcomes = [tuple(outcome_of(step.key.hash) for step in row.steps) for row in rows]
    places, start = [], 0
    for own in outcomes:
        places.append(range(start, start + len(own)))
        start += len(own)
    scores = np.array([outcome.probabilities for own in outcomes for outcome in own])
    everything = estimate_aucs(scores, test.labels, patients=test.patients)
    central = next((i for i, row in enumerate(rows) if row.kind is RowKind.CENTRALISED), None)
    return [
        RowFigures(
            row=row,
            evaluations=tuple(
                evaluate(o.probabilities, test.labels, threshold=o.facts["threshold"]) for o in own
            ),
            outcomes=own,
            auc=_chosen(everything, place).mean(),
            auc_sd=float(everything.aucs[list(place)].std(ddof=1)) if len(own) > 1 else None,
            bootstrap=bootstrap(
                own[0].probabilities,
                test.labels,
                threshold=own[0].facts["threshold"],
                seed=seed,
                patients=test.patients,
                resamples=resamples,
            ),
            reliability=reliability(
                np.concatenate([o.probabilities for o in own]), np.tile(test.labels, len(own))
            ),
            against=None if central in (None, i) else everything.compare(place, places[central or 0]),
        )
        for i, (row, own, place) in enumerate(zip(rows, outcomes, places, strict=True))
    ]


def _chosen(estimates: AucEstimates, place: Sequence[int]) -> AucEstimates:
    chosen = list(place)
    return AucEstimates(estimates.aucs[chosen], estimates.covariance[np.ix_(chosen, chosen)])


def to_json(figures: RowFigures) -> dict[str, Any]:
    """A row for machines: everything that the report says, and each seed by itself."""
    row = figures.row
    return {
        "id": row.id,
        "kind": row.kind.value,
        "title": row.title,
        "auc": asdict(figures.auc) | {"sd_between_seeds": figures.auc_sd},
        **{name: figures.mean(name) for name in QUALITIES},
        "threshold": figures.mean("threshold"),
        "bootstrap": {name: asdict(interval) for name, interval in figures.bootstrap.items()},
        "calibration": asdict(figures.reliability),
        "against_centralised": None if figures.against is None else asdict(figures.against),
        "cost": {
            "seconds": figures.cost("seconds"),
            "cpu_s": figures.cost("cpu_s"),
            "bytes": figures.cost("bytes"),
            "target_epsilon": row.epsilon,
            "epsilon": figures.epsilon,
            "delta": figures.cost("delta"),
        },
        "seeds": [
            {"step": step.key.name, "inputs_sha256": step.key.hash, **asdict(evaluation), **outcome.facts}
            for step, evaluation, outcome in zip(
                row.steps, figures.evaluations, figures.outcomes, strict=True
            )
        ],
    }
