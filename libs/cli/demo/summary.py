"""summary.json: the figures of a run for machines.

Two runs with the same seed, data and options on one machine give the same summary but for the keys named
under `volatile`: times, and what fresh cryptographic randomness may change in the last digits. Of those,
`encrypted.label_agreement` differs only when an image's score lies within the rounding of the threshold.
`encrypted.max_logit_difference` is the exact figure of the run; `encrypted.max_logit_difference_bound` is the
next power of two, which repeats.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from libs.cli.demo.asking import Asked, bytes_of_one_image, bytes_sent_by_party
from libs.cli.demo.figures import Figures
from libs.cli.demo.journey import Trained, training_bytes
from libs.cli.demo.material import Material
from libs.cli.demo.options import DemoOptions
from libs.cli.demo.records import Records
from libs.fl.evaluation import Evaluation
from libs.fl.metrics import RoundMetrics
from libs.fl.training_plan import TrainingPlan

FORMAT = "trefoil-demo-summary-1"
VOLATILE = (
    "created_at",
    "seconds",
    "measured",
    "encrypted.latency_s",
    "encrypted.batch32_s",
    "encrypted.label_agreement",
    "encrypted.max_logit_difference",
)


def build_summary(
    *,
    options: DemoOptions,
    plan: TrainingPlan,
    material: Material,
    trained: Trained,
    asked: Asked,
    figures: Figures,
    records: Records,
    seconds: dict[str, float],
    created_at: str,
) -> dict[str, Any]:
    """The whole summary."""
    return {
        "format": FORMAT,
        "volatile": list(VOLATILE),
        "created_at": created_at,
        "data": _data(options, material),
        "training_plan": plan.model_dump(mode="json"),
        "plan_hash": plan.hash,
        "hospitals": [
            {
                "name": name,
                "images": len(part),
                "patients": part.patient_count,
                "classes": part.class_counts,
                "alone": _figures(figures.alone[name]),
            }
            for name, part in material.parts.items()
        ],
        "centralised": _figures(figures.centralised),
        "federated": {
            **_figures(figures.federated),
            "rounds": trained.study.rounds_done,
            "by_round": [_round(number) for number in trained.metrics],
            "bytes": training_bytes(trained.study, plan, asked.plan),
        },
        "encrypted": {
            "images": len(asked.logits),
            "label_agreement": figures.agreement,
            "max_logit_difference": figures.largest_difference,
            "max_logit_difference_bound": figures.difference_bound,
            "latency_s": round(asked.latency_s, 4),
            "batch32_s": round(asked.batch_s, 4),
            "rounds": asked.rounds,
            "bytes_sent_by_party": bytes_sent_by_party(asked),
            "bytes_for_one_image": bytes_of_one_image(asked),
        },
        "records": {
            "ledgers": {
                name: {
                    "entries": [entry.kind for entry in ledger.entries],
                    "spent_epsilon": [balance.spent.epsilon for balance in ledger.balances],
                }
                for name, ledger in records.ledgers.items()
            },
            "trails_whole": {name: report.finding is None for name, report in records.trails.items()},
        },
        "measured": {
            "audit_entries": {name: report.entries for name, report in records.trails.items()},
            "encrypted": asdict(figures.encrypted),
            "online_latency_s": round(asked.online_s, 4),
            "study_id": trained.study.study_id,
            "model_id": trained.study.released_model_id,
        },
        "seconds": seconds,
    }


def without_volatile(summary: dict[str, Any]) -> dict[str, Any]:
    """The part that the same seed reproduces."""
    kept: dict[str, Any] = {}
    for key, value in summary.items():
        if key in VOLATILE:
            continue
        inner = {path.partition(".")[2] for path in VOLATILE if path.startswith(f"{key}.")}
        kept[key] = {name: v for name, v in value.items() if name not in inner} if inner else value
    return kept


def _data(options: DemoOptions, material: Material) -> dict[str, Any]:
    return {
        "source": material.source,
        "image_size": options.image_size,
        "train_images": material.train_images,
        "test_images": len(material.test),
        "test_classes": material.test.class_counts,
        "test_patients": material.test.patient_count,
        "skew": options.skew,
        "seed": options.seed,
    }


def _figures(evaluation: Evaluation) -> dict[str, float]:
    return {name: round(value, 6) for name, value in asdict(evaluation).items()}


def _round(metrics: RoundMetrics) -> dict[str, float | None]:
    return {
        "train_loss": metrics.train_loss,
        "validation_loss": metrics.validation_loss,
        "validation_auc": metrics.auc,
        "validation_accuracy": metrics.accuracy,
    }
