"""What each participant of one prediction received, said for the person whose X-ray it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libs.cli.output import human_bytes, print_table, results

if TYPE_CHECKING:
    from libs.cli.client.predictions import Prediction


def who_saw_what(prediction: Prediction) -> list[tuple[str, str, str]]:
    """(who, role, what it saw) for every participant."""
    count = len(prediction.logits)
    images = "one image" if count == 1 else f"{count} images"
    first, second = prediction.evaluators
    rows = [
        ("you", "client", f"{images} and the result"),
        ("coordinator", "assigns roles", f"that you asked one model about {images}, and when"),
        (
            f"party {prediction.dealer}",
            "dealer",
            "nothing of yours: it dealt random numbers before the question",
        ),
    ]
    for evaluator in (first, second):
        sent = human_bytes(evaluator.online_bytes)
        saw = f"masked numbers that look random; sent {sent} in {evaluator.rounds} rounds"
        rows.append((f"party {evaluator.party}", "evaluator", saw))
    rows.append(("hospitals", "trained it", "nothing"))
    return rows


def print_who_saw_what(prediction: Prediction) -> None:
    """The table, and the condition under which it is true."""
    print_table(["who", "role", "saw"], who_saw_what(prediction), title="Who saw what", if_empty="")
    results().print(
        "This holds as long as no two of the three parties work together against you.", style="dim"
    )
