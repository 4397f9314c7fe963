"""What each participant of one prediction received, said for the person whose X-ray it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from libs.cli.output import human_bytes, print_table, results

if TYPE_CHECKING:
    from libs.cli.client.predictions import Prediction


def who_saw_what(predictions: Sequence[Prediction]) -> list[tuple[str, str, str]]:
    """(who, role, what it saw) for every participant of these questions, in which all had the same roles."""
    count = sum(len(prediction.logits) for prediction in predictions)
    images = "one image" if count == 1 else f"{count} images"
    rows = [
        ("you", "client", f"{images} and the result"),
        ("coordinator", "assigns roles", f"that you asked one model about {images}, and when"),
        (
            f"party {predictions[0].dealer}",
            "dealer",
            "nothing of yours: it dealt random numbers before the question",
        ),
    ]
    for parts in zip(*(prediction.evaluators for prediction in predictions), strict=True):
        sent = human_bytes(sum(part.online_bytes for part in parts))
        saw = f"masked numbers that look random; sent {sent} in {sum(part.rounds for part in parts)} rounds"
        rows.append((f"party {parts[0].party}", "evaluator", saw))
    rows.append(("hospitals", "trained it", "nothing"))
    return rows


def same_roles(predictions: Sequence[Prediction]) -> list[list[int]]:
    """Indices of the predictions, those with the same roles together: roles rotate between questions."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, prediction in enumerate(predictions):
        roles = (prediction.dealer, *(evaluator.party for evaluator in prediction.evaluators))
        groups.setdefault(roles, []).append(index)
    return list(groups.values())


def print_who_saw_what(predictions: Sequence[Prediction]) -> None:
    """A table for each assignment of roles, and the condition under which they are true."""
    groups = same_roles(predictions)
    for group in groups:
        questions = ", ".join(str(index + 1) for index in group)
        title = "Who saw what" if len(groups) == 1 else f"Who saw what in question {questions}"
        rows = who_saw_what([predictions[index] for index in group])
        print_table(["who", "role", "saw"], rows, title=title, if_empty="")
    results().print(
        "This holds as long as no two of the three parties work together against you.", style="dim"
    )
