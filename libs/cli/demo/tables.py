"""The tables that the demo prints at the end."""

from __future__ import annotations

from rich.console import Console

from libs.cli.demo.asking import Asked, bytes_of_one_image, bytes_sent_by_party
from libs.cli.demo.figures import Figures
from libs.cli.demo.journey import Trained, training_bytes
from libs.cli.output import human_bytes, human_seconds, make_table
from libs.fl.evaluation import Evaluation
from libs.fl.training_plan import TrainingPlan

COLUMNS = ["", ">AUC", ">accuracy", ">sensitivity", ">specificity", ">MCC"]

PHASE_TITLES = {
    "data": "reading and dividing the data",
    "start": "starting the processes",
    "join": "admitting hospitals, claiming nodes",
    "publish": "publishing and searching",
    "approve": "asking for access, approving",
    "train": "training and releasing",
    "predict": "asking about all test images",
    "records": "ledgers and audit trails",
    "baselines": "baselines in clear",
}


def quality_rows(figures: Figures) -> list[list[str]]:
    """One row per way of training or asking."""
    rows = [_row(f"{name} alone", evaluation) for name, evaluation in figures.alone.items()]
    rows.append(_row("all data in one place", figures.centralised))
    rows.append(_row("federated, in clear", figures.federated))
    rows.append(_row("federated, encrypted", figures.encrypted))
    return rows


def cost_rows(
    *, seconds: dict[str, float], trained: Trained, asked: Asked, plan: TrainingPlan
) -> list[list[str]]:
    """Seconds and payload bytes per phase."""
    sent = training_bytes(trained.study, plan, asked.plan)
    asking = sum(bytes_sent_by_party(asked)) + sum(b.bytes_sent + b.bytes_received for b in asked.batches)
    bytes_of = {"train": human_bytes(sum(sent.values())), "predict": human_bytes(asking)}
    return [
        [PHASE_TITLES.get(name, name), human_seconds(value), bytes_of.get(name, "")]
        for name, value in seconds.items()
    ]


def agreement_text(figures: Figures, asked: Asked) -> str:
    """What encryption changed, and what it cost."""
    same = round(figures.agreement * len(asked.logits))
    each_way = human_bytes(bytes_of_one_image(asked)["first_evaluator"])
    return (
        f"Encrypted and clear agree on {same} of {len(asked.logits)} labels; the largest difference of "
        f"a logit is {figures.largest_difference:.4f}.\n"
        f"One image takes {human_seconds(asked.latency_s)} ({asked.rounds} rounds, "
        f"{each_way} each way), a batch of 32 takes {human_seconds(asked.batch_s)}."
    )


def print_tables(
    console: Console,
    *,
    figures: Figures,
    seconds: dict[str, float],
    trained: Trained,
    asked: Asked,
    plan: TrainingPlan,
) -> None:
    """Quality, agreement and cost."""
    console.print(make_table(COLUMNS, quality_rows(figures), title=f"On {len(asked.logits)} held-out images"))
    console.print(agreement_text(figures, asked) + "\n")
    rows = cost_rows(seconds=seconds, trained=trained, asked=asked, plan=plan)
    console.print(make_table(["phase", ">time", ">payload"], rows, title="Time and bytes"))


def _row(name: str, evaluation: Evaluation) -> list[str]:
    values = (
        evaluation.auc,
        evaluation.accuracy,
        evaluation.sensitivity,
        evaluation.specificity,
        evaluation.mcc,
    )
    return [name, *[f"{value:.3f}" for value in values]]
